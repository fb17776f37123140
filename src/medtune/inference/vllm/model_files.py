"""What vLLM reads of a model beside its weights: the tokenizer as medtune has it, and where answers end."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def write_settings(folder: Path, tokenizer: Any, end_token_ids: Iterable[int], cap: int) -> None:
    """Write the tokenizer and greedy settings for generation to `folder`.

    They stand in for the base's own, whose sampling and penalties would fill every gap of a request.
    """
    tokenizer.save_pretrained(folder)
    settings = {"eos_token_id": sorted(end_token_ids), "temperature": 0.0, "max_new_tokens": cap}
    (folder / "generation_config.json").write_text(json.dumps(settings), encoding="utf-8")

"""`medtune ask`: answers from a run or an adapter, streamed as they are written."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TextIO

from medtune.checked_files import MAX_SETTINGS_BYTES
from medtune.config import Config
from medtune.errors import DataError, ModelError
from medtune.run_dir import RunDir, pin_revision
from medtune.terminal import harmless


def read_questions(path: Path) -> list[str]:
    """One question a line, empty lines left out. Raises DataError."""
    try:
        if path.stat().st_size > MAX_SETTINGS_BYTES:
            raise DataError(
                f"{path}: larger than {MAX_SETTINGS_BYTES:,} bytes; give a text file with one question a line"
            )
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; give a text file with one question a line") from None
    except (UnicodeDecodeError, IsADirectoryError):
        raise DataError(f"{path}: not a UTF-8 text file; give one with one question a line") from None
    questions = [line.strip() for line in lines if line.strip()]
    if not questions:
        raise DataError(f"{path}: holds no question; write one a line")
    return questions


def ask(target: str, questions: Sequence[str], *, use_adapter: bool, out: TextIO) -> None:
    """Write the answer to each question to `out` as it comes, control characters spelled out. Raises MedtuneError."""
    import torch
    from transformers import TextStreamer

    from medtune.inference.generation import greedy_config
    from medtune.model.adapters import attach_adapter
    from medtune.model.loaded import load_model

    if not all(question.strip() for question in questions):
        raise DataError("ask: the question is empty; write it in quotes")
    config, adapter = _find(target)
    loaded = load_model(config, for_training=False)
    model = attach_adapter(loaded.model, adapter, trainable=False)
    tokenizer = loaded.renderer.tokenizer

    class Writer(TextStreamer):  # type: ignore[misc]
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            out.write(harmless(text))
            out.flush()

    for number, question in enumerate(questions):
        if len(questions) > 1:
            out.write(f"{'' if number == 0 else chr(10)}> {harmless(question)}\n")
        prompt = torch.tensor([loaded.renderer.prompt_ids(question)], device=loaded.device)
        writer = Writer(tokenizer, skip_prompt=True, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        with torch.inference_mode(), nullcontext() if use_adapter else model.disable_adapter():
            model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                generation_config=greedy_config(tokenizer, loaded.end_token_ids, config.generation.max_new_tokens),
                streamer=writer,
            )
        out.write("\n")


def _find(target: str) -> tuple[Config, Any]:
    """Configuration and adapter folder of a run directory, or of an adapter given as a folder or a Hub id."""
    from medtune.model.adapters import adapter_config, resolve_adapter

    path = Path(target)
    if (path / "config.yaml").is_file():
        run = RunDir.open(path)
        run.require("train", f"medtune train {path}")
        return pin_revision(run, run.config()), run.adapter_dir
    if path.is_dir() and not (path / "adapter_config.json").is_file():
        raise ModelError(f"{target}: neither a run directory (no config.yaml) nor an adapter (no adapter_config.json)")
    adapter = resolve_adapter(target)
    return adapter_config(adapter), adapter

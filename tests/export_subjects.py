"""A tiny model as it is exported."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from gguf_twins import TWINS
from medtune.data.prompts import PromptRenderer
from medtune.publishing.export.subject import Subject


def subject_of(folder: Path, family: str, tokenizer: Any) -> Subject:
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] + eos_token }}{% endfor %}"
    replace(TWINS[family], tokenizer=lambda: tokenizer).save(folder)
    config = SimpleNamespace(
        generation=SimpleNamespace(max_new_tokens=256),
        training=SimpleNamespace(max_length=512),
        data=SimpleNamespace(system_prompt=""),
    )
    run: Any = SimpleNamespace(path=folder.parent / "Mine & Yours", config=config)
    names: Any = SimpleNamespace(base="owner/base", base_revision="abc")
    licence: Any = SimpleNamespace(identifier="other")
    return Subject(run, folder, PromptRenderer(tokenizer), names, licence, positions=8192)

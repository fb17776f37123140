"""A model's folder written as a GGUF file, and read back by the package's own reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medtune.model.loaded import load_tokenizer
from medtune.publishing.export.gguf_files import Label, plan_gguf, write_gguf

gguf = pytest.importorskip("gguf", reason='needs pip install "medtune[export]"')

LABEL = Label("tiny", "owner/base", "apache-2.0", "Not medical advice.")


def write(folder: Path, file: Path, dtype: Any = "f32", **options: Any) -> Any:
    tokenizer = load_tokenizer(folder)
    bos = tokenizer.bos_token_id is not None
    plan = plan_gguf(folder, tokenizer, dtype, end_token_id=tokenizer.eos_token_id, adds_bos=bos)
    write_gguf(plan, file, LABEL, **options)
    return gguf.GGUFReader(file)

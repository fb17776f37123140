"""What a model is called where it runs, and what Ollama would make of a merged folder by itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from export_subjects import subject_of
from gguf_twins import LLAMA_3, QWEN_2, splitting_by
from medtune.publishing.export.subject import ollama_adds_bos, ollama_obstacle


def test_ollama_imports_what_it_reads_as_medtune_does(tmp_path: Path) -> None:
    llama = subject_of(tmp_path / "llama", "LLaMA 3", splitting_by(LLAMA_3, whole_words=True))
    qwen = subject_of(tmp_path / "qwen", "Qwen 2.5", splitting_by(QWEN_2))
    assert ollama_obstacle(llama) is ollama_obstacle(qwen) is None
    # It adds BOS by the tokenizer's rule, unless the tokenizer's settings say whether to.
    assert (ollama_adds_bos(llama), ollama_adds_bos(qwen)) == (True, False)
    file = llama.folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"add_bos_token": False}))
    assert not ollama_adds_bos(llama)


def test_ollama_gets_a_file_of_what_it_does_not_import(tmp_path: Path) -> None:
    qwen3 = subject_of(tmp_path / "qwen3", "Qwen 3", splitting_by(QWEN_2))
    assert ollama_obstacle(qwen3) == "Ollama does not import folders of qwen3"
    other = subject_of(tmp_path / "other", "LLaMA 3", splitting_by(LLAMA_3))  # merged otherwise than Ollama would
    assert "split texts into other tokens" in str(ollama_obstacle(other))


def test_a_name_is_one_for_every_program_and_the_context_holds_prompt_and_answer(tmp_path: Path) -> None:
    subject = subject_of(tmp_path / "llama", "LLaMA 3", splitting_by(LLAMA_3, whole_words=True))
    assert subject.name == "mine-yours"
    assert subject.generation.context == 1024
    assert replace(subject, positions=600).generation.context == 600

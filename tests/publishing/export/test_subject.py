"""What Ollama would make of a merged folder by itself, and what vLLM is told of an adapter."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gguf_twins import LLAMA_3, QWEN_2, TWINS, splitting_by
from medtune.data.prompts import PromptRenderer
from medtune.errors import ModelError
from medtune.publishing.export.subject import Subject, ollama_adds_bos, ollama_obstacle
from medtune.publishing.export.vllm import launch_line


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


@pytest.mark.parametrize(("rank", "told"), [(4, 8), (16, 16), (100, 128)])
def test_vllm_is_told_a_rank_that_it_knows(tmp_path: Path, rank: int, told: int) -> None:
    subject = subject_of(tmp_path / "llama", "LLaMA 3", splitting_by(LLAMA_3, whole_words=True))
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 2, "rank_pattern": {"q_proj": rank}}))
    line = launch_line(subject, "owner/base", adapter=tmp_path)
    assert line.startswith("vllm serve owner/base --enable-lora --lora-modules ")
    assert f" --max-lora-rank {told} --revision abc --chat-template chat_template.jinja " in line


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "layers trained whole"),
        ({"r": 600}, "rank 600"),
    ],
)
def test_an_adapter_that_vllm_does_not_serve_is_refused(tmp_path: Path, settings: dict[str, Any], kind: str) -> None:
    subject = subject_of(tmp_path / "llama", "LLaMA 3", splitting_by(LLAMA_3, whole_words=True))
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match=f"has {kind}, which vLLM does not serve beside a base; `medtune merge` it"):
        launch_line(subject, "owner/base", adapter=tmp_path)

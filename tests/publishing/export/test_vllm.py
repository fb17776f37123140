"""What vLLM gets beside a model, and what it is told of an adapter."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from export_subjects import subject_of
from gguf_twins import LLAMA_3, splitting_by
from medtune.errors import ModelError
from medtune.publishing.export.vllm import launch_line, write_serving_files


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


def test_it_answers_greedily_with_the_runs_template_cap_and_end_tokens(tmp_path: Path) -> None:
    subject = subject_of(tmp_path / "llama", "LLaMA 3", splitting_by(LLAMA_3, whole_words=True))
    (tmp_path / "out").mkdir()
    assert write_serving_files(subject, tmp_path / "out") == ("chat_template.jinja", "generation_config.json")
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == subject.renderer.tokenizer.chat_template
    settings = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert settings == {"eos_token_id": subject.end_token_ids, "max_new_tokens": 256, "temperature": 0.0}


def test_a_merged_folder_is_served_under_the_runs_name_in_its_context(tmp_path: Path) -> None:
    subject = subject_of(tmp_path / "llama", "LLaMA 3", splitting_by(LLAMA_3, whole_words=True))
    assert shlex.split(launch_line(subject, "./my model")) == [
        "vllm", "serve", "./my model", "--served-model-name", "mine-yours", "--chat-template", "chat_template.jinja",
        "--generation-config", ".", "--max-model-len", "1024",
    ]  # fmt: skip


def test_a_base_without_a_commit_is_served_as_it_is(tmp_path: Path) -> None:
    subject = subject_of(tmp_path / "llama", "LLaMA 3", splitting_by(LLAMA_3, whole_words=True))
    subject.names.base_revision = None  # type: ignore[misc]
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 8}))
    line = launch_line(subject, "owner/base", adapter=tmp_path, name="my adapter")
    assert "--revision" not in line
    assert "--lora-modules 'mine-yours=my adapter' --max-lora-rank 8" in line

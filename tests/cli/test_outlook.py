"""`medtune plan` and `medtune doctor`: what they refuse, and how they end."""

from __future__ import annotations

from pathlib import Path

import pytest

from command_line import Medtune, lines_on


@pytest.fixture(scope="module")
def folder(llama_folder: Path) -> Path:
    return llama_folder


@pytest.fixture
def medtune(medtune: Medtune, monkeypatch: pytest.MonkeyPatch) -> Medtune:
    monkeypatch.setenv("COLUMNS", "140")
    return medtune


def test_bad_gpus_and_what_does_not_fit(folder, medtune):
    for gpu, text in (("rtx", "--gpu rtx: unknown"), ("4", "training does not fit")):
        result = medtune("plan", "llama3-8b-t4", "--gpu", gpu, "--set", f"model.base={folder}")
        assert result.status == 2
        assert text in result.err


def test_overrides_need_a_recipe(medtune):
    for option in (("--set", "seed=1"), ("--run-dir", "x")):
        result = medtune("doctor", *option)
        assert result.status == 2
        assert "belong to a recipe" in result.err


def test_a_token_is_never_shown(medtune, own, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_verySecret")
    # A user may have put it where it will be quoted.
    result = medtune("doctor", "demo", *own, "--set", "evaluation.bertscore_model=./hf_verySecret")
    assert result.status == 2
    assert "***" in lines_on(result.out, "BERTScore")[0]
    assert "hf_verySecret" not in result.out + result.err

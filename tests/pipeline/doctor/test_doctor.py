"""`medtune doctor` as a whole, offline: the machine first, then the recipe, and nothing hides the rest."""

from __future__ import annotations

import shutil
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from command_line import Medtune, command_runner, lines_on

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def medtune(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Medtune:
    monkeypatch.chdir(tmp_path)
    return command_runner(monkeypatch, capsys)


def test_a_machine_in_order(medtune):
    """Offline, as all tests are."""
    result = medtune("doctor")
    assert result.status == 0, result.out
    assert lines_on(result.out, "Hub") == [
        "ok: Hub: HF_HUB_OFFLINE is set: nothing is asked of it, and only its cache is used"
    ]
    assert not lines_on(result.out, "model")
    assert result.out.splitlines()[-1].startswith("no failures")


def test_all_that_is_wrong_is_told_together(medtune, own, tmp_path, facts, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", None)
    (tmp_path / "bad.csv").write_text("qtype,Question\ncauses,What ?\n", encoding="utf-8")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 2**20))
    facts.memory(free=2**20)
    result = medtune(
        "doctor", "demo", *own, "--set", f"data.source={tmp_path / 'bad.csv'}", "--set", "training.optimizer=adam_what",
        "--set", "training.report_to=[trackio]", "--set", "evaluation.bertscore_model=./nothing",
    )  # fmt: skip
    assert result.status == 2
    failed = {line.split(": ")[1] for line in result.out.splitlines() if line.startswith("failure")}
    assert failed == {"recipe", "BERTScore", "data", "memory", "disk"}
    assert len(lines_on(result.out, "recipe")) == 2
    assert "no column 'Answer'; it has qtype, Question; name yours with --set data.columns.answer=NAME" in result.out
    assert result.err == ""


def test_a_bad_recipe_does_not_hide_the_machine(medtune):
    result = medtune("doctor", "nosuch")
    assert result.status == 2
    assert lines_on(result.out, "recipe")[0].startswith(
        "failure: recipe: nosuch: unknown recipe; shipped are chatdoctor, "
    )
    assert lines_on(result.out, "GPU")
    assert not lines_on(result.out, "model")

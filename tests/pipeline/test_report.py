"""The report stage of a run that was compared by this version or by one that knew no reports."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from medtune.errors import RunDirError
from medtune.pipeline.run import perform, refresh_after_merge, refresh_report
from medtune.run_dir.directory import RunDir
from report_runs import compared_run, write_merge
from tiny_model import Tiny


@pytest.fixture
def run(tmp_path: Path, tiny: Tiny) -> RunDir:
    run = compared_run(tmp_path / "run")
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):  # by which the card writes prompts
        shutil.copy(tiny.path / file, run.adapter_dir)
    return run


def test_a_compared_run_gets_its_report_once_and_again_when_asked(run: RunDir, capfd) -> None:
    assert not run.is_complete("report")  # as in a run of an older version
    perform("report", run)
    assert run.is_complete("report")
    assert list(run.stage_records["report"]["files"]) == ["README.md", "report.html"]
    first = run.report_file.read_bytes()
    perform("report", run)
    assert "── report: complete, skipped" in capfd.readouterr().err
    write_merge(run)
    perform("report", run, again=True)
    assert run.is_complete("report")
    assert b'id="merge"' in run.report_file.read_bytes()
    assert "What merging changed was not measured." in run.card_file.read_text(encoding="utf-8")
    run.merge_file.unlink()
    run.report_file.unlink()
    perform("report", run)
    assert "report.html is missing" in capfd.readouterr().err
    assert run.report_file.read_bytes() == first  # its own cost is no part of it


def test_what_somebody_has_edited_is_kept_until_the_report_is_asked_for(run: RunDir, capfd) -> None:
    perform("report", run)
    run.card_file.write_text("# Mine\n", encoding="utf-8")
    refresh_report(run, again=True)
    assert "README.md: edited since it was written, kept" in capfd.readouterr().err
    assert run.card_file.read_text(encoding="utf-8") == "# Mine\n"
    perform("report", run, again=True)
    assert run.card_file.read_text(encoding="utf-8") != "# Mine\n"
    assert not run.edited_texts("report")


def test_a_report_that_cannot_be_made_again_does_not_undo_a_merge(run: RunDir, capfd) -> None:
    perform("report", run)
    page = run.report_file.read_bytes()
    write_merge(run)
    run.audit_file.unlink()
    refresh_after_merge(run)
    error = capfd.readouterr().err
    assert "report and card are as they were, without this merge: " in error
    assert str(run.audit_file) in error
    assert run.report_file.read_bytes() == page


def test_a_new_comparison_asks_for_a_new_report(run: RunDir) -> None:
    perform("report", run)
    run.write_text(run.comparison_text_file, "# Another\n")
    run.complete("compare", {"seconds": 1.0})
    assert not run.is_complete("report")
    assert run.report_file.exists()


def test_without_a_comparison_the_command_is_named(run: RunDir) -> None:
    run.comparison_file.unlink()
    with pytest.raises(RunDirError) as caught:
        perform("report", run)
    assert str(caught.value).startswith(f"{run.path}: the compare stage is not complete; run `medtune compare ")
    assert not run.report_file.exists()

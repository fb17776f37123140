"""The report stage of a run that was compared by this version or by one that knew no reports."""

from __future__ import annotations

from pathlib import Path

import pytest

from medtune.errors import RunDirError
from medtune.publishing_stages import report_stage
from medtune.run_dir import RunDir
from report_runs import compared_run


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return compared_run(tmp_path / "run")


def test_a_compared_run_gets_its_report_once_and_again_when_asked(run: RunDir, capfd) -> None:
    assert not run.is_complete("report")  # as in a run of an older version
    report_stage(run)
    assert run.is_complete("report")
    assert list(run.provenance()["stages"]["report"]["files"]) == ["report.html"]
    first = run.report_file.read_bytes()
    report_stage(run)
    assert "── report: complete, skipped" in capfd.readouterr().err
    run.write_json(run.merge_file, {"dtype": "bfloat16"})
    report_stage(run, again=True)
    assert run.is_complete("report")
    assert b'id="merge"' in run.report_file.read_bytes()
    run.merge_file.unlink()
    run.report_file.write_bytes(first[:1000])
    report_stage(run)
    assert "report.html has 1,000 of" in capfd.readouterr().err
    assert run.report_file.read_bytes() == first  # its own cost is no part of it


def test_a_new_comparison_asks_for_a_new_report(run: RunDir) -> None:
    report_stage(run)
    run.write_text(run.comparison_text_file, "# Another\n")
    run.complete("compare", {"seconds": 1.0})
    assert not run.is_complete("report")
    assert run.report_file.exists()


def test_without_a_comparison_the_command_is_named(run: RunDir) -> None:
    run.comparison_file.unlink()
    with pytest.raises(RunDirError) as caught:
        report_stage(run)
    assert str(caught.value).startswith(f"{run.path}: the compare stage is not complete; run `medtune compare ")
    assert not run.report_file.exists()

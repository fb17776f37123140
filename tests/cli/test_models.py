"""`medtune merge` and `medtune publish`: which options reach the work, and what is said after it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from command_line import Medtune
from medtune.model.merging.record import MergeRecord
from medtune.run_dir.directory import RunDir
from report_runs import write_merge


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the work gets of one command."""
    got: dict[str, Any] = {}

    def publish(run: RunDir, repo: str, **options: Any) -> SimpleNamespace:
        got.update(repo=repo, **options)
        return SimpleNamespace(python="load()", url="https://hub/someone/tiny")

    monkeypatch.setattr("medtune.publishing.publish.publish", publish)
    return got


def test_a_dry_run_passes_everything_on_and_writes_nothing(
    medtune: Medtune, run: RunDir, published: dict[str, Any]
) -> None:
    result = medtune(
        "publish", run.path, "--repo", "someone/tiny", "--merged", "out", "--base-model", "a/b", "--private",
        "--without-evaluation", "--overwrite", "--dry-run",
    )  # fmt: skip
    assert (result.status, result.out) == (0, "")
    assert published == {
        "repo": "someone/tiny", "private": True, "merged": Path("out"), "base_model": "a/b", "dry_run": True,
        "options": ["without-evaluation", "overwrite"],
    }  # fmt: skip
    assert "report.html is not there yet, or outdated" in result.err
    assert not run.report_file.exists()


def test_a_report_that_stays_out_is_not_spoken_of(medtune: Medtune, run: RunDir, published: dict[str, Any]) -> None:
    result = medtune("publish", run.path, "--repo", "someone/tiny", "--without-report", "--dry-run")
    assert (result.status, result.err) == (0, "")
    assert published["options"] == ["without-report"]


def test_what_is_published_says_how_to_load_it(
    medtune: Medtune, run: RunDir, published: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    refreshed: list[bool] = []
    monkeypatch.setattr("medtune.pipeline.run.refresh_report", lambda run, again: refreshed.append(again))
    result = medtune("publish", run.path, "--repo", "someone/tiny")
    assert result.out == "load()\nhttps://hub/someone/tiny\n"
    assert (published["private"], published["options"], published["dry_run"]) == (False, [], False)
    assert refreshed == [False]


@pytest.mark.parametrize(("option", "measure"), [(None, None), ("--measure", True), ("--no-measure", False)])
def test_a_merge_says_where_it_is_and_what_comes_next(
    medtune: Medtune, run: RunDir, monkeypatch: pytest.MonkeyPatch, option: str | None, measure: bool | None
) -> None:
    got: dict[str, Any] = {}

    def merge(run: RunDir, to: Path, **options: Any) -> MergeRecord:
        got.update(to=to, **options)
        write_merge(run)
        return replace(run.read_as(MergeRecord, run.merge_file), dtype=options["dtype"])

    monkeypatch.setattr("medtune.pipeline.merge.merge_stage", merge)
    monkeypatch.setattr("medtune.pipeline.run.refresh_after_merge", lambda run: None)
    result = medtune("merge", run.path, "--to", "out", "--dtype", "float16", *([option] if option else []))
    assert result.status == 0, result.err
    assert got == {"to": Path("out"), "dtype": "float16", "measure": measure}
    assert result.out.splitlines()[-1] == "out"
    assert "next: medtune ask out " in result.err
    assert f"medtune publish {run.path} --merged out --repo OWNER/NAME --dry-run" in result.err


def test_an_export_passes_everything_on_and_says_how_to_run_it(
    medtune: Medtune, run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medtune.publishing.export.page import ExportRecord

    got: list[Any] = []

    def export(run: RunDir, request: Any) -> ExportRecord:
        got.append(request)
        return ExportRecord(
            "gguf", "q8_0", "b", None, "a", ("x",), ("llama-server -m x", "ollama create x"), ("Note.",)
        )

    monkeypatch.setattr("medtune.pipeline.export.export_stage", export)
    result = medtune(
        "export", run.path, "--to", "my out", "--format", "gguf", "--dtype", "q8_0", "--merged", "m", "--adapter-only"
    )
    assert result.status == 0, result.err
    (request,) = got
    assert (request.to, request.format, request.dtype) == (Path("my out"), "gguf", "q8_0")
    assert (request.merged, request.adapter_only) == (Path("m"), True)
    assert result.out == "my out\n"
    assert "next: cd 'my out' && llama-server -m x\n" in result.err
    assert "ollama create x\n" in result.err

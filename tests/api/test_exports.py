"""Exports and measurements from Python: what reaches the work, and that a run is opened as everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import medtune
from medtune.pipeline.export import ExportRequest
from medtune.run_dir.directory import RunDir
from report_runs import compared_run


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return compared_run(tmp_path / "run")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    got: list[Any] = []

    def work(run: RunDir, what: Any) -> str:
        got.append((run.path, what))
        return "its record"

    monkeypatch.setattr("medtune.pipeline.export.export_stage", work)
    monkeypatch.setattr("medtune.pipeline.merge.measure_folder", work)
    return got


def test_an_export_passes_everything_on(run: RunDir, asked: list[Any]) -> None:
    assert medtune.export(run.path, "out", "vllm") == "its record"
    options: Any = {"dtype": "q8_0", "merged": "m", "adapter_only": True}
    assert medtune.export(medtune.load_run(run.path), Path("out"), "gguf", **options) == "its record"
    assert asked == [
        (run.path, ExportRequest(Path("out"), "vllm", "f16", None, False)),
        (run.path, ExportRequest(Path("out"), "gguf", "q8_0", Path("m"), True)),
    ]


def test_a_folder_is_measured_against_its_run(run: RunDir, asked: list[Any]) -> None:
    assert medtune.measure(str(run.path), "plain") == "its record"
    assert asked == [(run.path, Path("plain"))]


def test_what_is_no_run_is_refused_before_any_work(tmp_path: Path, asked: list[Any]) -> None:
    for call in (
        lambda: medtune.export(tmp_path / "absent", "out", "gguf"),
        lambda: medtune.measure(tmp_path, "plain"),
    ):
        with pytest.raises(medtune.MedtuneError, match=str(tmp_path)):
            call()
    assert asked == []

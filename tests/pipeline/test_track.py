"""At a run's end its trackers get the comparison, the report, the configuration and the adapter; nothing unasked."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from medtune.pipeline.run import perform
from medtune.run_dir.directory import RunDir
from medtune.training.trackers import following
from medtune.training.trackers.tracker import Results
from report_runs import compared_run
from tiny_model import Tiny

TOKEN = "hf_" + "a1B2" * 9


def report(run: RunDir, tiny: Tiny) -> dict[str, Any]:
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):  # by which the card writes prompts
        shutil.copy(tiny.path / file, run.adapter_dir)
    perform("report", run)
    return run.stage_records["report"]


def test_results_of_a_run(tiny: Tiny, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = compared_run(tmp_path / "run", settings=["training.report_to=[tensorboard]"])
    assert report(run, tiny)["trackers"] == {"tensorboard": 0}
    events = EventAccumulator(str(run.tracker_dir)).Reload()
    assert {f"test/rougeL/{kind}" for kind in ("baseline", "tuned", "difference")} <= {*events.Tags()["scalars"]}
    texts = {tag.split("/")[-2] for tag in events.Tags()["tensors"]}
    assert {"comparison.json", "comparison.md", "report.html", "config.yaml", "adapter_model.safetensors"} <= texts


def test_nothing_is_sent_unasked(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "SERVICES", {})
    run = compared_run(tmp_path / "run")
    assert "trackers" not in report(run, tiny)
    assert not run.trackers_file.exists()


def test_what_holds_a_secret_stays_here(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    sent: list[Results] = []
    monkeypatch.setattr(following, "send_results", lambda run, names, results: sent.append(results) or {})
    run = compared_run(tmp_path / "run", settings=["training.report_to=[tensorboard]"])
    (run.adapter_dir / "notes.json").write_text(f'{{"token": "{TOKEN}"}}')
    report(run, tiny)
    (results,) = sent
    assert results.adapter is None
    assert list(results.files) == ["comparison.json", "comparison.md", "report.html", "config.yaml"]
    error = " ".join(capfd.readouterr().err.split())
    assert f"{run.adapter_dir}: not sent to trackers; notes.json holds a Hugging Face token in line 1" in error
    assert TOKEN not in error

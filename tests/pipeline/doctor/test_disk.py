"""Sums of what a run writes, against disks that are short, and run directories that cannot be made."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple

import pytest

from medtune.config.recipes import load_recipe
from medtune.errors import spell_out
from medtune.pipeline.doctor import disk
from medtune.pipeline.doctor.disk import CHECKPOINT_BYTES, TOKENIZER, Need, check_disk, check_output, run_needs
from medtune.pipeline.doctor.findings import Finding
from medtune.run_dir.directory import RunDir

Usage = namedtuple("Usage", "total used free")
GIB = 2**30


def only(found) -> Finding:
    (finding,) = found
    return finding


@pytest.fixture
def free(monkeypatch):
    """Call it with the bytes that every disk shall have free."""
    return lambda size: monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(size, 0, size))


def test_a_run_writes_checkpoints_adapter_rows_and_answers(tmp_path):
    config = load_recipe("llama3-8b-t4")
    needs = run_needs(config, tmp_path, 41_943_040, questions=200, text_bytes=20_000_000)
    checkpoints, adapter, rows = (need.bytes for need in needs)
    # Two are kept, and the third is written before one goes; LLaMA-3-8B's adapter of rank 16 is 160 MiB in float32.
    assert checkpoints == 3 * (CHECKPOINT_BYTES * 41_943_040 + TOKENIZER)
    assert adapter == 160 * 2**20 + TOKENIZER
    assert rows == 3 * 20_000_000 + 8 * 200 * (5 * 512 + 4000)
    one = load_recipe("llama3-8b-t4", ["training.keep_checkpoints=1"])
    assert run_needs(one, tmp_path, 10, 1, 1)[0].bytes == run_needs(config, tmp_path, 10, 1, 1)[0].bytes
    many = load_recipe("llama3-8b-t4", ["training.keep_checkpoints=5"])
    assert run_needs(many, tmp_path, 0, 1, 1)[0].bytes == 6 * TOKENIZER


@pytest.mark.parametrize(
    ("size", "state", "text"),
    [(20 * GIB, "ok", "20.0 GiB free"), (17 * GIB, "warning", "17.0 GiB free"), (10 * GIB, "failure", "10.0 GiB free")],
)
def test_what_goes_to_one_disk_is_summed(tmp_path, free, size, state, text):
    free(size)
    needs = [Need(tmp_path / "hub", "download of a/b", 15 * GIB), Need(tmp_path / "runs" / "x", "3 checkpoints", GIB)]
    found = only(check_disk(needs))
    assert found.state == state
    assert "16.0 GiB to be written (15.0 GiB download of a/b + 1.0 GiB 3 checkpoints)" in found.reason
    assert text in found.reason
    assert (found.fix == "") is (state == "ok")
    if state == "failure":
        assert spell_out(found.fix).startswith("free 6.0 GiB, or set HF_HOME or --run-dir")


def test_disks_are_judged_each_by_itself(tmp_path, monkeypatch, free):
    """Room on one does not help the other."""
    for name in ("hub", "runs"):
        (tmp_path / name).mkdir()
    sizes = {str(tmp_path / "hub"): 100 * GIB, str(tmp_path / "runs"): GIB}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, sizes[str(path)]))
    devices = {str(tmp_path / "hub"): 1, str(tmp_path / "runs"): 2}
    monkeypatch.setattr(disk, "device_of", lambda path: devices[str(path)])
    needs = [Need(tmp_path / "runs" / "x", "a", GIB // 2), Need(tmp_path / "hub", "b", 50 * GIB)]
    needs.append(Need(tmp_path / "runs" / "x", "c", GIB))
    hub, runs = check_disk(needs)
    assert (hub.state, runs.state) == ("ok", "failure")
    assert "512 MiB a + 1.0 GiB c" in runs.reason


def test_a_new_run_directory_can_be_made(tmp_path):
    found = only(check_output(load_recipe("demo"), tmp_path / "runs" / "demo"))
    assert found.state == "ok"
    assert list(tmp_path.iterdir()) == [], "nothing is made by looking"


def test_a_run_that_is_there_is_a_warning(tmp_path):
    RunDir.create(tmp_path / "demo", load_recipe("demo"), resume=False)
    (tmp_path / "demo" / "adapter").mkdir()
    found = only(check_output(load_recipe("demo"), tmp_path / "demo"))
    assert found.state == "warning"
    assert "--resume" in spell_out(found.fix)


def test_a_file_in_the_way_is_a_failure(tmp_path):
    (tmp_path / "runs").write_text("a file")
    for path in (tmp_path / "runs", tmp_path / "runs" / "demo"):
        found = only(check_output(load_recipe("demo"), path))
        assert found.state == "failure"
        assert "choose another --run-dir" in spell_out(found.fix)


def test_a_folder_that_cannot_be_written_is_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != str(tmp_path))
    found = only(check_output(load_recipe("demo"), tmp_path / "runs" / "demo"))
    assert found.state == "failure"
    assert f"{tmp_path} cannot be written" in found.reason

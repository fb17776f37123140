"""Disks that are full, limited, read-only or cannot rename: a clear stop, nothing torn, and on it goes once mended."""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from command_line import Medtune, command_runner
from forked import fork
from medtune.__main__ import main
from medtune.run_dir.directory import RunDir
from medtune.run_dir.layout import STAGE_NAMES
from medtune.run_dir.lock import release_locks
from medtune.storage import writing
from stopping import results, write_recipe

pytestmark = pytest.mark.slow

TOO_LARGE = "larger than a file may be here; raise the limit (`ulimit -f`) or move to another file system"
FULL = "no space left on the device; make room"
# Largest file in bytes → what is the first to be larger. Each run goes on from where the one before it stopped.
LIMITS = {
    1_000: "config.yaml",
    5_000: "data/train.parquet",
    7_500: "baseline/predictions.jsonl",
    200_000: "checkpoints/checkpoint-7",  # its optimizer, by torch
}


@pytest.fixture(scope="module")
def recipe(tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_recipe(tiny, tmp_path_factory.mktemp("disk"), steps=8)
    values = json.loads(path.read_text())
    # So that answers take more room than rows.
    values["data"]["split"] = {"test": 0.5, "validation": 0.1}
    values["generation"]["batch_size"] = 10
    path.write_text(json.dumps(values))
    return path


@pytest.fixture(scope="module")
def expected(recipe: Path) -> dict[str, object]:
    """Results of a run that nothing stopped."""
    run = recipe.parent / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["medtune", "run", str(recipe), "--run-dir", str(run)])
        patch.setattr(sys, "excepthook", sys.excepthook)  # typer puts its own there
        with pytest.raises(SystemExit) as ended:
            main()
    assert not ended.value.code
    return results(run)


def take_steps(folder: Path, steps: list[dict[str, Any]], *options: str) -> list[tuple[int, str]]:
    """Steps of `disk_steps` in a process of their own: statuses and errors."""
    file = folder / "steps.json"
    file.write_text(json.dumps(steps))
    done = fork(Path(__file__).with_name("disk_steps.py"), file, *options).finish(240)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return [(step["status"], step["errors"]) for step in json.loads(file.read_text())]


def require_clear_stop(status: int, errors: str, named: Path, problem: str, command: list[str]) -> None:
    """One line, which names a file in the folder `named` or that itself, and status 2."""
    assert status == 2, errors
    assert "Traceback" not in errors
    (line,) = (line for line in errors.splitlines() if line.startswith("medtune: "))
    assert line == errors.splitlines()[-1]
    file, _, rest = line.removeprefix("medtune: ").partition(": ")
    assert rest == f"{problem}, then go on with `{shlex.join(['medtune', *command])}`"
    assert Path(file).is_relative_to(named), line


def require_nothing_torn(run: RunDir) -> None:
    """No temporary name, and every stage that is recorded has the files that it wrote."""
    assert [path.name for path in run.path.rglob(".*")] == [".lock"]
    assert [stage for stage in run.stage_records if not run.is_complete(stage)] == []
    for folder in run.checkpoints_dir.glob("checkpoint-*"):
        assert (folder / "sealed.json").is_file()


def test_a_file_size_limit_at_one_writer_after_another(recipe: Path, expected, tmp_path: Path) -> None:
    run, made = tmp_path / "run", tmp_path / "made"
    command = ["run", str(recipe), "--run-dir", str(run), "--resume"]
    *stopped, last, adapter, again = take_steps(
        tmp_path,
        [
            *[{"arguments": command, "limit": limit} for limit in LIMITS],
            {"arguments": command},
            {"arguments": command, "limit": 100_000, "shell": f"cp -r {run} {made}; rm -r {run}/adapter"},
            {"arguments": command, "shell": f"ls -A {run} > {tmp_path}/left"},
        ],
    )
    for end, name in zip(stopped, LIMITS.values(), strict=True):
        require_clear_stop(*end, run / name, TOO_LARGE, command)
    require_clear_stop(*adapter, run / "adapter", TOO_LARGE, command)
    assert f"{run}: adapter/adapter_model.safetensors is missing; the train stage is made again" in adapter[1]
    left = (tmp_path / "left").read_text().split()
    assert "config.yaml" in left
    assert not [name for name in left if "adapter" in name]
    for status, errors in (last, again):
        assert status == 0, errors
    assert results(run) == results(made) == expected
    require_nothing_torn(RunDir(run))


def _can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    with_tmpfs = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(with_tmpfs, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("kilobytes", "named"),
    [(4, "provenance.json"), (30, "data"), (90, "controls"), (300, "checkpoints")],
)
def test_a_full_disk(recipe: Path, expected, tmp_path: Path, kilobytes: int, named: str) -> None:
    if not _can_mount():
        pytest.skip("needs a user namespace to mount a tmpfs in (`unshare -rm`)")
    disk = tmp_path / "disk"
    disk.mkdir()
    run = disk / "run"
    command = ["run", str(recipe), "--run-dir", str(run), "--resume"]
    # What is mounted goes with the process.
    keep = f"cp -r {run} {tmp_path}/stopped; mount -o remount,size=20m {disk}"
    full, last, _ = take_steps(
        tmp_path,
        [
            {"arguments": command, "shell": f"mount -t tmpfs -o size={kilobytes}k tmpfs {disk}"},
            {"arguments": command, "shell": keep},
            {"arguments": ["--version"], "shell": f"cp -r {run} {tmp_path}/mended"},
        ],
        "--mounting",
    )
    require_clear_stop(*full, run / named, FULL, command)
    require_nothing_torn(RunDir(tmp_path / "stopped"))
    assert last[0] == 0, last[1]
    assert results(tmp_path / "mended") == expected


def test_a_disk_that_fills_up_under_tensorboard(recipe: Path, tmp_path: Path) -> None:
    """Its writer fails in a thread, which prints no traceback of its own."""
    run = tmp_path / "run"
    prepare = ["data", "prepare", str(recipe), "--run-dir", str(run), "--set", "training.report_to=[tensorboard]"]
    train = ["train", str(run), "--resume"]
    made, full, last = take_steps(
        tmp_path, [{"arguments": prepare}, {"arguments": train, "limit": 6_000}, {"arguments": train}]
    )
    assert made[0] == last[0] == 0, last[1]
    assert full[0] == 2
    assert "Traceback" not in full[1]
    assert full[1].splitlines()[-1] == (
        f"medtune: {run}, or where output goes: {TOO_LARGE}, then go on with `medtune train {run} --resume`"
    )


# A file system that cannot rename folders, as mounts of buckets ------------------------------------------------------


@pytest.fixture
def medtune(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Medtune:
    return command_runner(monkeypatch, capsys)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EMFILE])
def test_a_run_where_no_folder_can_be_renamed(
    recipe: Path, expected, tmp_path: Path, medtune: Medtune, monkeypatch: pytest.MonkeyPatch, caplog, number: int
) -> None:
    def refusing_folders(rename: Callable[..., None]) -> Callable[..., None]:
        def act(source: str, *args: object, **kwargs: object) -> None:
            if os.path.isdir(source):
                raise OSError(number, os.strerror(number), str(source))
            rename(source, *args, **kwargs)

        return act

    for name in ("rename", "replace"):
        monkeypatch.setattr(os, name, refusing_folders(getattr(os, name)))
    monkeypatch.setattr(writing, "_said_copied", False)
    run = tmp_path / "run"
    made = medtune("run", recipe, "--run-dir", run)
    assert made.status == 0, made.err
    assert [line for line in caplog.messages if "cannot rename" in line] == [
        f"{run}: the file system cannot rename folders ({os.strerror(number)}); they are copied to their places, and "
        "checksums tell which are whole"
    ]
    require_nothing_torn(RunDir(run))
    assert results(run) == expected
    again = medtune("run", recipe, "--run-dir", run, "--resume")
    assert again.err.splitlines()[:-1] == [f"── {stage}: complete, skipped" for stage in STAGE_NAMES]
    # Cut off after it was complete: noticed, and made again, with what was made from it.
    scores = run / "tuned" / "scores.json"
    scores.write_bytes(scores.read_bytes()[:50])
    mended = medtune("run", recipe, "--run-dir", run, "--resume")
    assert mended.status == 0, mended.err
    assert f"{run}: tuned/scores.json has 50 of " in mended.err
    assert [line for line in mended.err.splitlines() if line.startswith("── ") and "skipped" not in line] == [
        "── tuned",  # to the same bytes, so that the comparison stands
    ]
    assert results(run) == expected
    release_locks()

"""Step checkpoints: sealed when they are whole, found again, passed over when torn, refused when foreign.

The trainer writes a checkpoint file by file. The seal, which lists every file with its size and checksum, comes last
and as an atomic file: a checkpoint without one, or with a file that differs from it, was cut off.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medtune.atomic_files import flush
from medtune.checksums import describe_file
from medtune.config import Config
from medtune.disk_errors import writing
from medtune.errors import DiskError, RunDirError
from medtune.progress import say
from medtune.recipes import MAY_CHANGE
from medtune.records import EncodedRow
from medtune.run_dir import RunDir

SEAL_NAME = "sealed.json"
PLAN_NAME = "plan.json"
# What of a configuration a training depends on.
_SECTIONS = {"seed", "model", "lora", "data", "training"}


def training_origin(config: Config, revision: str | None, *splits: list[EncodedRow]) -> dict[str, str]:
    """What a training is made of. A checkpoint of another origin continues another training."""
    values = config.model_dump(mode="json", include=_SECTIONS)
    for key in MAY_CHANGE:
        section, name = key.split(".")
        values[section].pop(name)
    settings = json.dumps(values, sort_keys=True)
    rows = hashlib.sha256()
    for split in splits:
        for row in split:
            rows.update(json.dumps([row.input_ids, row.labels]).encode())
    return {
        "base": config.model.base + (f" at {revision}" if revision else ""),
        "configuration": hashlib.sha256(settings.encode()).hexdigest(),
        "rows": rows.hexdigest(),
    }


@contextmanager
def writing_checkpoint(folder: Path) -> Iterator[None]:
    """The block writes a checkpoint. Raises DiskError, and leaves nothing of it, if the disk does not let it."""
    try:
        with writing(folder):
            yield
    except DiskError:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def seal_checkpoint(run: RunDir, folder: Path, origin: Mapping[str, str]) -> None:
    """Flush the files of a checkpoint to disk, then record that it is whole."""
    files = {file.relative_to(folder).as_posix(): file for file in _files(folder)}
    for file in files.values():
        flush(file)
    flush(folder)
    if run.history_file.is_file():
        flush(run.history_file)
    sealed = {name: describe_file(file) for name, file in sorted(files.items())}
    run.write_json(folder / SEAL_NAME, {"origin": dict(origin), "files": sealed})


def last_checkpoint(run: RunDir) -> Path | None:
    """The newest whole step checkpoint, if there is one; says which torn ones it passed over."""
    for folder in sorted(_folders(run), key=_step, reverse=True):
        damage = _damage(folder)
        if damage is None:
            return folder
        say(f"{folder}: torn ({damage}), skipped")
    return None


def require_origin(folder: Path, origin: Mapping[str, str]) -> None:
    """Raises RunDirError, naming what differs, if a sealed checkpoint is of another training."""
    found = json.loads((folder / SEAL_NAME).read_text(encoding="utf-8"))["origin"]
    if differing := [name for name, value in origin.items() if found.get(name) != value]:
        raise RunDirError(
            f"{folder}: of a training with another {' and '.join(differing)}; "
            f"delete {folder.parent} to start over, or choose another --run-dir"
        )


def prune_checkpoints(run: RunDir, keep: int, best_step: int | None) -> None:
    """Delete torn checkpoints and all whole ones but the newest `keep`, of which the best is one."""
    folders = sorted(_folders(run), key=_step, reverse=True)
    sealed = [folder for folder in folders if (folder / SEAL_NAME).is_file()]
    kept = sealed[:1] + [folder for folder in sealed[1:] if _step(folder) == best_step]
    kept += [folder for folder in sealed if folder not in kept][: max(0, keep - len(kept))]
    for folder in folders:
        if folder not in kept:
            # The seal first: what is half deleted must not pass for whole.
            (folder / SEAL_NAME).unlink(missing_ok=True)
            shutil.rmtree(folder)


def save_plan(run: RunDir, plan: Mapping[str, Any]) -> None:
    """Keep the plan of a training beside its checkpoints."""
    run.write_json(run.checkpoints_dir / PLAN_NAME, dict(plan))


def read_plan(run: RunDir) -> str:
    """The plan that the checkpoints were made with, as JSON. Raises RunDirError if it is missing."""
    file = run.checkpoints_dir / PLAN_NAME
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        raise plan_error(run, "missing") from None


def plan_error(run: RunDir, problem: str) -> RunDirError:
    """That training cannot go on without its plan."""
    return RunDirError(
        f"{run.checkpoints_dir / PLAN_NAME}: {problem}; restore it, or delete {run.checkpoints_dir} to start over"
    )


def _folders(run: RunDir) -> list[Path]:
    return [path for path in run.checkpoints_dir.glob("checkpoint-*") if path.name.split("-")[1].isdigit()]


def _step(folder: Path) -> int:
    return int(folder.name.split("-")[1])


def _files(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file() and file.name != SEAL_NAME]


def _damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, in a few words."""
    try:
        sealed = json.loads((folder / SEAL_NAME).read_text(encoding="utf-8"))
        files = dict(sealed["files"])
        expected = {name: (int(entry["bytes"]), str(entry["sha256"])) for name, entry in files.items()}
        dict(sealed["origin"])
    except FileNotFoundError:
        return "not saved to its end"
    except (ValueError, KeyError, TypeError):
        return f"{SEAL_NAME} is damaged"
    for name, (size, checksum) in expected.items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size:,} of {size:,} bytes"
        if describe_file(file)["sha256"] != checksum:
            return f"{name} is damaged"
    return None

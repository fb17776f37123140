"""Step checkpoints: sealed when they are whole, found again, passed over when torn, refused when foreign.

The trainer writes a checkpoint file by file. The seal, which lists every file with its size and checksum, comes last
and as an atomic file: a checkpoint without one, or with a file that differs from it, was cut off.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

from medtune.config.changes import MAY_CHANGE
from medtune.config.schema import Config
from medtune.config.training import LoraSection
from medtune.errors import DiskError, Option, RunDirError
from medtune.model.packing import rows_checksum
from medtune.records import EncodedRow
from medtune.run_dir.directory import RunDir
from medtune.runtime.progress import say
from medtune.storage.disk_errors import writing
from medtune.storage.reading import DamagedError, FileRecord, check_type, describe_file, difference, read_mapping
from medtune.storage.writing import flush

SEAL_NAME = "sealed.json"
PLAN_NAME = "plan.json"
# In the rows already, and unknown to versions whose checkpoints go on.
_IN_ROWS = {
    "data": (
        "prompt_date", "markup", "html", "table", "sources", "hub_config", "hub_split", "min_answer_words", "stream",
        "near_duplicate_limit",
    ),
    "training": ("loss_on",),
    "model": ("chat_template", "template_settings"),
}  # fmt: skip
_COLUMNS_IN_ROWS = ("messages", "context")
_SPLIT_IN_ROWS = ("most_rows",)
# The sections of a configuration that a training depends on.
_SECTIONS = {"seed", "model", "lora", "data", "training"}
# What `lora` had from the beginning.
_FIRST_KEYS = {"rank", "alpha", "dropout", "targets"}
_NAME = re.compile(r"checkpoint-[0-9]{1,12}")


@dataclass(frozen=True)
class _Seal:
    origin: dict[str, str]
    files: dict[str, FileRecord]


def training_origin(config: Config, base: str, *splits: list[EncodedRow], dtype: str) -> dict[str, str]:
    """What a training is made of, `base` being the model's identity, and in which dtype it is computed.

    A checkpoint of another origin belongs to another training; only the dtype may change with the machine.
    """
    values = config.model_dump(mode="json", include=_SECTIONS)
    for key in MAY_CHANGE:
        section, name = key.split(".")
        values[section].pop(name)
    for section, names in _IN_ROWS.items():
        for name in names:
            values[section].pop(name)
    for name in _COLUMNS_IN_ROWS:
        values["data"]["columns"].pop(name)
    for name in _SPLIT_IN_ROWS:
        values["data"]["split"].pop(name)
    # Keys that came later tell trainings apart only where they are set: checkpoints of earlier versions go on.
    defaults = LoraSection().model_dump(mode="json")
    values["lora"] = {
        key: value for key, value in values["lora"].items() if key in _FIRST_KEYS or value != defaults[key]
    }
    settings = json.dumps(values, sort_keys=True)
    return {
        "base": base,
        "configuration": hashlib.sha256(settings.encode()).hexdigest(),
        "rows": rows_checksum(chain(*splits)),
        "dtype": dtype,
    }


@contextmanager
def writing_checkpoint(folder: Path) -> Iterator[None]:
    """In this block a checkpoint is written. If the disk does not let it, raises DiskError and leaves nothing of it."""
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
    for folder in sorted(_folders(run), key=step_of, reverse=True):
        damage = damage_of(folder)
        if damage is None:
            return folder
        say(f"{folder}: torn ({damage}), skipped")
    return None


def require_origin(folder: Path, origin: Mapping[str, str]) -> None:
    """Raises RunDirError, naming what differs, if a sealed checkpoint is of another training.

    Says so where the dtype is another: training continues, but not bit for bit.
    """
    if (before := _read_seal(folder).origin.get("dtype", origin["dtype"])) != origin["dtype"]:
        say(f"{folder}: its steps were computed in {before}, those to come in {origin['dtype']}")
    if differing := differing_origin(folder, origin):
        fix = (f"delete {folder.parent} to start over, or choose another ", Option("run_dir"))
        raise RunDirError(folder, f"of a training with another {' and '.join(differing)}", fix)


def differing_origin(folder: Path, origin: Mapping[str, str]) -> list[str]:
    """The parts of `origin` in which the training of a sealed checkpoint differs, except the dtype."""
    found = _read_seal(folder).origin
    return [name for name, value in origin.items() if found.get(name) != value and name != "dtype"]


def link_checkpoint(folder: Path, target: Path, suffixes: Collection[str]) -> None:
    """Put the files of the sealed checkpoint `folder` that end in `suffixes` into `target`, with a seal.

    They are hard links where the file system has those: they outlive `folder`, and take no space before.
    """
    sealed = json.loads((folder / SEAL_NAME).read_text(encoding="utf-8"))
    kept = {name: entry for name, entry in sealed["files"].items() if Path(name).suffix in suffixes}
    for name in kept:
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(folder / name, copy)
        except OSError:
            shutil.copyfile(folder / name, copy)
    (target / SEAL_NAME).write_text(json.dumps({**sealed, "files": kept}, indent=2), encoding="utf-8")


def prune_checkpoints(run: RunDir, keep: int, best_step: Callable[[Path], int | None]) -> None:
    """Delete torn checkpoints and all whole ones but the newest, its best, and up to `keep` in all.

    `best_step` is the step of the best checkpoint when one was saved. An older one is of use only beside its own best:
    no training can resume without that.
    """
    folders = sorted(_folders(run), key=step_of, reverse=True)
    sealed = {step_of(folder): folder for folder in folders if (folder / SEAL_NAME).is_file()}
    kept: list[Path] = []
    for folder in sealed.values():
        step = best_step(folder)
        best = folder if step is None else sealed.get(step)
        new = [one for one in dict.fromkeys((folder, best or folder)) if one not in kept]
        if not kept or (best is not None and len(kept) + len(new) <= keep):
            kept += new
    for folder in folders:
        if folder not in kept:
            # The seal first: what is half deleted must not pass for whole.
            (folder / SEAL_NAME).unlink(missing_ok=True)
            shutil.rmtree(folder)


def _folders(run: RunDir) -> list[Path]:
    return [path for path in run.checkpoints_dir.glob("checkpoint-*") if _NAME.fullmatch(path.name)]


def step_of(folder: Path) -> int:
    """The optimiser step after which a checkpoint was saved."""
    return int(folder.name.split("-")[1])


def _files(folder: Path) -> list[Path]:
    # What begins with a dot is a file manager's.
    return [file for file in folder.rglob("*") if file.is_file() and file.name != SEAL_NAME and file.name[0] != "."]


def damage_of(folder: Path) -> str | None:
    """What is wrong with a checkpoint, in a few words."""
    try:
        seal = _read_seal(folder)
    except FileNotFoundError:
        return "not saved to its end"
    except DamagedError:
        return f"{SEAL_NAME} is damaged"
    # By the names that are in the folder: a name in the seal may lead anywhere.
    found = {file.relative_to(folder).as_posix(): file for file in _files(folder)}
    if added := sorted(found.keys() - seal.files.keys()):
        return f"{added[0]} was added later"
    for name, sealed in seal.files.items():
        file = found.get(name)
        if file is None:
            return f"{name} is missing"
        if how := difference(file, asdict(sealed)):
            return f"{name} {how}"
    return None


def _read_seal(folder: Path) -> _Seal:
    return check_type(_Seal, read_mapping(folder / SEAL_NAME))

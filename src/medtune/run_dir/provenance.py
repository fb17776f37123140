"""What `provenance.json` records: what a run was made of, and which files its complete stages wrote."""

import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePath
from typing import Any

from medtune import __version__
from medtune.config.recipes import read_config
from medtune.config.recipes.yaml_text import dump_config
from medtune.errors import ConfigError
from medtune.run_dir.layout import StageName, made_from
from medtune.runtime.hardware import describe_hardware
from medtune.storage.reading import DamagedError, FileRecord, check_type, describe_file, difference

LIBRARIES = (
    "medtune", "torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "datasets", "tokenizers",
    "huggingface_hub", "sacrebleu", "rouge-score", "bert-score", "sentencex", "numpy",
)  # fmt: skip


@dataclass(frozen=True)
class Decisive:
    """The entries that decide which stages run again, and on which model."""

    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    model: dict[str, str | None] = field(default_factory=dict)
    config: FileRecord | None = None
    prompt_date: str | None = None


def environment() -> dict[str, Any]:
    """Versions, hardware, and the commit of medtune's checkout if it is one."""
    import platform

    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    # The code's own: an editable installation keeps the version that it was made with.
    versions["medtune"] = __version__
    return {"versions": versions, "hardware": describe_hardware(), "commit": _own_commit()}


def _own_commit() -> str | None:
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def is_cut_off(file: Path, record: Mapping[str, Any] | None) -> bool:
    """Whether a `config.yaml` has lost its end; the keys that are left may make a valid configuration.

    Without a `record`, of older versions, none has.
    """
    if record is None or file.stat().st_size >= record["bytes"]:
        return False
    try:
        # A whole one has every key.
        return dump_config(read_config(file)) != file.read_text(encoding="utf-8")
    except ConfigError:
        return True


def check_records(records: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises DamagedError, naming it, for a list of files that is none, or names a file outside of the run."""
    for stage, record in records.items():
        try:
            files = check_type(dict[str, FileRecord], record.get("files", {}))
            for name in files:
                if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
                    raise DamagedError(f"{name} is not in the run")
        except DamagedError as error:
            raise DamagedError(f"stages.{stage}.files: {error}") from None


def add_record(
    records: Mapping[str, Any],
    stage: StageName,
    cost: Mapping[str, Any],
    root: Path,
    files: Iterable[Path],
    *,
    outdates: bool = True,
) -> dict[str, Any]:
    """`records` with that of `stage`: what it cost, and sizes and checksums of its `files` below `root`.

    Stages that were made from an earlier version of its artefacts are left out, unless that was the same, or what
    changed `outdates` none of them.
    """
    described = {file.relative_to(root).as_posix(): describe_file(file) for file in sorted(files) if file.is_file()}
    same = not outdates or (bool(described) and records.get(stage, {}).get("files") == described)
    kept = {name: record for name, record in records.items() if same or name not in made_from(stage)}
    return {**kept, stage: {**cost, **({"files": described} if described else {})}}


def find_damage(record: Mapping[str, Any], root: Path, needed: Iterable[Path]) -> str | None:
    """Which file of a complete stage is missing, torn or edited, and how; None if none is.

    `needed` are files that must be there at least: records of older versions list none.
    """
    for file in needed:
        if not file.is_file():
            return f"{file.relative_to(root).as_posix()} is missing"
    return next((f"{name} {how}" for name, how in _differences(record, root) if not _is_for_reading(name)), None)


def changed_texts(record: Mapping[str, Any], root: Path) -> list[str]:
    """Names of a complete stage's texts for people that differ from what it wrote. Nothing is made from them."""
    return [name for name, _ in _differences(record, root) if _is_for_reading(name)]


def _is_for_reading(name: str) -> bool:
    return name.endswith((".md", ".html"))


def _differences(record: Mapping[str, Any], root: Path) -> Iterator[tuple[str, str]]:
    for name, described in record.get("files", {}).items():
        if how := difference(root / name, described):
            yield name, how

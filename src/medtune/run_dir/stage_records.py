"""Records of complete stages: what was made from what, and whether the files are those that the stage wrote."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from medtune.records import FileRecord
from medtune.run_dir.layout import StageName, made_from
from medtune.storage.reading import DamagedError, check_type, describe_file, difference


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
    records: Mapping[str, Any], stage: StageName, cost: Mapping[str, Any], root: Path, files: Iterable[Path]
) -> dict[str, Any]:
    """`records` with that of `stage`: what it cost, and sizes and checksums of its `files` below `root`.

    Stages that were made from an earlier version of its artefacts are left out, unless that was the same.
    """
    described = {file.relative_to(root).as_posix(): describe_file(file) for file in sorted(files) if file.is_file()}
    same = bool(described) and records.get(stage, {}).get("files") == described
    kept = {name: record for name, record in records.items() if same or name not in made_from(stage)}
    return {**kept, stage: {**cost, **({"files": described} if described else {})}}


def damage(record: Mapping[str, Any], root: Path, needed: Iterable[Path]) -> str | None:
    """Which file of a complete stage is missing, torn or edited, and how; None if none is.

    `needed` are files that must be there at least: records of older versions list none.
    """
    for file in needed:
        if not file.is_file():
            return f"{file.relative_to(root).as_posix()} is missing"
    return next((f"{name} {how}" for name, how in _differences(record, root) if not _is_for_reading(name)), None)


def edited_texts(record: Mapping[str, Any], root: Path) -> list[str]:
    """Names of a complete stage's texts for people that differ from what it wrote. Nothing is made from them."""
    return [name for name, _ in _differences(record, root) if _is_for_reading(name)]


def _is_for_reading(name: str) -> bool:
    return name.endswith((".md", ".html"))


def _differences(record: Mapping[str, Any], root: Path) -> Iterator[tuple[str, str]]:
    for name, described in record.get("files", {}).items():
        if how := difference(root / name, described):
            yield name, how

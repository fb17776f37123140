"""What a repository holds already: which files need not go up, which medtune put there, and which somebody edited."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from medtune.storage.hub_repositories import RepositoryState, StoredFile, fetch_files, stored_files
from medtune.storage.reading import DamagedError, check_type, describe_file, read_mapping

# In the repository, beside the files: what medtune put there, so that it knows them from a user's own.
MANIFEST = "medtune-files.json"
State = Literal["new", "changed", "same", "delete"]
# The Hub takes no larger file outside of the store of large files, whose ids are another checksum.
_MAX_BLOB_BYTES = 10 << 20


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """A file as medtune put it there: size, SHA-256 and, where it is small, git's id."""

    bytes: int
    sha256: str
    blob: str | None

    def is_in(self, stored: StoredFile | None) -> bool:
        """Whether that is what the repository holds."""
        if stored is None or stored.bytes != self.bytes:
            return False
        return stored.sha256 == self.sha256 if stored.sha256 is not None else stored.blob == self.blob


@dataclass(frozen=True, slots=True)
class Change:
    """What happens to one file of the repository."""

    name: str
    bytes: int
    state: State


@dataclass(frozen=True, slots=True)
class Differences:
    """Every file that goes up, stays or goes; and those in the way that medtune did not put there as they are."""

    changes: tuple[Change, ...]
    edited: tuple[str, ...] = ()

    def names(self, *states: State) -> tuple[str, ...]:
        """The files in one of these states."""
        return tuple(change.name for change in self.changes if change.state in states)

    def bytes(self, *states: State) -> int:
        """What these take together."""
        return sum(change.bytes for change in self.changes if change.state in states)


def write_manifest(files: Mapping[str, Path], folder: Path) -> Path:
    """What `files` are, by their names in the repository, as the text that says so there."""
    described = {name: asdict(describe_published(file)) for name, file in sorted(files.items())}
    path = folder / MANIFEST
    path.write_text(json.dumps({"version": 1, "files": described}, indent=2) + "\n", encoding="utf-8")
    return path


def find_differences(repo: str, state: RepositoryState | None, files: Mapping[str, Path], scratch: Path) -> Differences:
    """`files` beside the head of the repository; where there is none, all of them are new. `scratch` is a folder."""
    if state is None:
        return Differences(tuple(Change(name, file.stat().st_size, "new") for name, file in sorted(files.items())))
    stored, earlier = stored_files(repo, state), _read_manifest(repo, state, scratch)
    changes, edited = [], []
    for name, file in sorted(files.items()):
        own, there = describe_published(file), stored.get(name)
        kind: State = "new" if there is None else "same" if own.is_in(there) else "changed"
        changes.append(Change(name, own.bytes, kind))
        if kind == "changed" and name != MANIFEST and not (name in earlier and earlier[name].is_in(there)):
            edited.append(name)
    gone = [name for name, was in sorted(earlier.items()) if name not in files and was.is_in(stored.get(name))]
    changes += [Change(name, earlier[name].bytes, "delete") for name in gone]
    return Differences(tuple(changes), tuple(edited))


def describe_published(file: Path) -> PublishedFile:
    """A file's size and checksums."""
    from huggingface_hub.utils.sha import git_hash

    described = describe_file(file)
    small = described["bytes"] <= _MAX_BLOB_BYTES
    return PublishedFile(described["bytes"], described["sha256"], git_hash(file.read_bytes()) if small else None)


def _read_manifest(repo: str, state: RepositoryState, scratch: Path) -> dict[str, PublishedFile]:
    """What medtune put there last; nothing where it never did, or where somebody damaged the list."""
    if MANIFEST not in state.files:
        return {}
    fetch_files(repo, state, [MANIFEST], [], scratch)
    try:
        return check_type(dict[str, PublishedFile], read_mapping(scratch / MANIFEST).get("files"))
    except (DamagedError, FileNotFoundError):
        return {}

"""Temporary files and folders that a killed process left."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from medtune.storage.writing import is_abandoned

# A folder has eight random characters; for a while it had the process's number.
_FILE, _FOLDER = re.compile(r"\.(.+)\.\d+"), re.compile(r"\.(.+)-(?:\d+|[a-z0-9_]{8})")


def is_leftover(path: Path, names: Iterable[str]) -> bool:
    """Whether `path` is a temporary name of a file or folder that is called one of `names`."""
    found = (_FOLDER if path.is_dir() else _FILE).fullmatch(path.name)
    return found is not None and found[1] in names and not path.is_symlink()


def clear_leftovers(folder: Path, names: Iterable[str]) -> None:
    """Delete the temporary files of `names` in `folder`, which the caller has locked: they may be in use."""
    names = set(names)
    for path in folder.iterdir() if folder.is_dir() else ():
        if is_leftover(path, names):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def clear_abandoned(path: Path) -> None:
    """Delete the temporary folders of `path` whose processes have ended, where no lock protects its parent."""
    for folder in path.parent.iterdir() if path.parent.is_dir() else ():
        ours = folder.name.startswith(f".{path.name}-") and folder.is_dir() and not folder.is_symlink()
        if ours and is_abandoned(folder):
            shutil.rmtree(folder)

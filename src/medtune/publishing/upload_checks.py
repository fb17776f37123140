"""What may not be published: weights that are no numbers, secrets, programs in disguise, links out of the folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from medtune.errors import Option, Problem, PublishError
from medtune.publishing.licences import BaseLicence
from medtune.publishing.secrets import find_secrets
from medtune.runtime.progress import progress_bar
from medtune.runtime.terminal import one_line
from medtune.storage.hub import NEVER, is_repository_name

if TYPE_CHECKING:
    from medtune.model.tensor_files import StoredTensor

# How much of a matrix in float32 is looked at in one go.
_BLOCK_BYTES = 1 << 26


def require_name(repo: str, licence: BaseLicence) -> None:
    """Raises PublishError unless `repo` is owner/name, with a name that begins as the base's licence demands."""
    if "/" not in repo or not is_repository_name(repo):
        raise PublishError(Option("repo", one_line(repo)), "must be a Hub repository of the form owner/name")
    owner, _, name = repo.partition("/")
    prefix = licence.name_prefix
    if prefix is not None and not name.startswith(prefix):
        rest = name.lower().removeprefix("meta-").removeprefix("llama-3").removeprefix("llama").strip("-_.")
        fix = f"name it {owner}/{prefix}-{rest or 'medtune'}"
        raise PublishError(Option("repo", repo), f"the {licence.title} wants a name that begins with {prefix}", fix)


def require_plain_files(folder: Path) -> None:
    """Raises PublishError if a file in `folder` is a link, or one of the kinds that may hold a program."""
    problems = []
    for file in sorted(folder.iterdir()):
        if file.is_symlink():
            problems.append(Problem(one_line(str(file)), "a link", "put the file itself there"))
        elif file.is_file() and any(fnmatchcase(file.name, pattern) for pattern in NEVER if "/" not in pattern):
            problems.append(
                Problem(one_line(str(file)), "a pickle or a program, which is never published", "delete it")
            )
    if problems:
        raise PublishError.together(problems)


def require_no_secrets(files: Mapping[str, Path]) -> None:
    """Raises PublishError with a line for every secret that `files`, by their names in the repository, hold."""
    problems = [problem for name, file in files.items() for problem in find_secrets(name, file)]
    if problems:
        raise PublishError.together(problems)


def require_finite_weights(files: Iterable[Path]) -> None:
    """Raises PublishError if a safetensors file holds NaN or infinite numbers, ModelError if it cannot be read."""
    from medtune.model.tensor_files import stored_in

    weights = {file: stored_in(file) for file in files if file.suffix == ".safetensors"}
    total = sum(tensor.bytes for tensors in weights.values() for tensor in tensors.values())
    with progress_bar("Checking weights", total) as advance:
        for file, tensors in weights.items():
            for name, tensor in tensors.items():
                if not _is_finite(tensor):
                    fix = "train, or merge, again"
                    raise PublishError(one_line(str(file)), f"{one_line(name)} holds NaN or infinite numbers", fix)
                advance(tensor.bytes)


def _is_finite(tensor: StoredTensor) -> bool:
    """Looked at piece by piece, so that a matrix of any size takes little memory."""
    import torch

    from medtune.model.tensor_files import blocks

    pieces = (tensor.read_rows(start, stop) for start, stop in blocks(tensor, _BLOCK_BYTES))
    return all(bool(torch.isfinite(piece).all()) for piece in pieces)

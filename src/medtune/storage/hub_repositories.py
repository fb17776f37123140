"""Repositories on the Hub: created, inspected, written in single commits, read back.

All functions raise HubUnavailableError for what may work later and HubError for what will not, in one line that names
the repository and never shows a token or a signed address.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, RepoFile, constants, errors
from huggingface_hub.utils import _http

from medtune.errors import HubError
from medtune.runtime.process import give_back_later
from medtune.storage.hub_errors import explained_upload

# Without it huggingface_hub waits for ever for an answer.
ANSWER_SECONDS = 60
_TOKEN_ADVICE = "set HF_TOKEN to one that may write, or log in with `hf auth login`"


@dataclass(frozen=True, slots=True)
class RepositoryState:
    """The head of a repository: its commit, the names of its files, and whether it is private."""

    commit: str
    files: tuple[str, ...]
    private: bool = True


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file at the head: bytes, git's id of it, and its SHA-256 if it is in the store of large files."""

    bytes: int
    blob: str
    sha256: str | None


def require_write_token(repo: str) -> None:
    """Raises HubError unless there is a token that the Hub knows and that may write."""
    _require_token(repo)
    with explained_upload(repo):
        _limit_waiting()
        token = HfApi().whoami().get("auth", {}).get("accessToken", {})
    if token.get("role") == "read":
        raise HubError(f"repository {repo}", "the token may only read", _TOKEN_ADVICE)


def open_private_repository(repo: str) -> RepositoryState:
    """The head of a private model repository, created if there is none. Raises HubError if it is public."""
    _require_token(repo)
    state = find_repository(repo) or make_repository(repo, private=True)
    if not state.private:
        fix = "make it private in its settings, or name another repository"
        raise HubError(f"repository {repo}", "public, and adapters may have learnt rows by heart", fix)
    return state


def find_repository(repo: str) -> RepositoryState | None:
    """The head of a model repository; None if there is none, or none that this user may see."""
    with explained_upload(repo):
        _limit_waiting()
        try:
            return _head(repo)
        except errors.GatedRepoError:
            raise
        except errors.RepositoryNotFoundError:
            return None


def make_repository(repo: str, *, private: bool) -> RepositoryState:
    """The head of a new model repository, or of one that somebody created in the meantime."""
    with explained_upload(repo):
        _limit_waiting()
        HfApi().create_repo(repo, private=private, exist_ok=True)
        return _head(repo)


def stored_files(repo: str, state: RepositoryState) -> dict[str, StoredFile]:
    """The files at the head, by their names."""
    with explained_upload(repo):
        entries = list(HfApi().list_repo_tree(repo, recursive=True, revision=state.commit))
    return {
        entry.path: StoredFile(entry.size, entry.blob_id, entry.lfs.sha256 if entry.lfs else None)
        for entry in entries
        if isinstance(entry, RepoFile)
    }


def commit_files(
    repo: str, files: Mapping[str, Path], *, deleted: Collection[str], message: str, parent: str | None = None
) -> str:
    """Add `files`, by their names in the repository, and delete others, in one commit: readers see all or nothing.

    What the store of large files has already is not sent again. Unless the head is `parent`, if it is given, raises
    HubUnavailableError. Returns the commit.
    """
    # Not upload_folder, which makes several commits of one folder; and file by file, since huggingface_hub uploads
    # several in threads that the interpreter waits for at its end, however long the Hub takes.
    with explained_upload(repo):
        api = HfApi()
        added = [CommitOperationAdd(name, file) for name, file in files.items()]
        for operation in added:
            api.preupload_lfs_files(repo, [operation], free_memory=False)
        operations: list[Any] = [*(CommitOperationDelete(name, is_folder=False) for name in sorted(deleted)), *added]
        made = api.create_commit(repo, operations, commit_message=message, parent_commit=parent)
        return str(made.oid)


def repository_address(repo: str) -> str:
    """The page of a model repository on the Hub that is asked."""
    return f"{constants.ENDPOINT}/{repo}"


def squash_history(repo: str, message: str) -> None:
    """Reduce a repository's history to its head, so that deleted files take no storage any more."""
    with explained_upload(repo):
        HfApi().super_squash_history(repo, commit_message=message)


def fetch_files(
    repo: str, state: RepositoryState, patterns: Collection[str], never: Collection[str], folder: Path
) -> None:
    """Download the files at the head that match `patterns` and none of `never` to `folder`, by their names."""
    with explained_upload(repo):
        huggingface_hub.snapshot_download(
            repo, revision=state.commit, allow_patterns=list(patterns), ignore_patterns=list(never), local_dir=folder
        )


def _require_token(repo: str) -> None:
    if huggingface_hub.get_token() is None:
        raise HubError(f"repository {repo}", "needs a token of the Hub", _TOKEN_ADVICE)


def _head(repo: str) -> RepositoryState:
    info: Any = HfApi().repo_info(repo, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    names = tuple(sibling.rfilename for sibling in info.siblings or [])
    return RepositoryState(str(info.sha), names, bool(info.private))


def _limit_waiting() -> None:
    """Give huggingface_hub's clients a time limit until this call of medtune ends, unless whoever set them up did."""
    if huggingface_hub.get_session().timeout.read is None:
        make_client = _http._GLOBAL_CLIENT_FACTORY

        def make_limited_client() -> Any:
            client = make_client()
            client.timeout = ANSWER_SECONDS
            return client

        huggingface_hub.set_client_factory(make_limited_client)
        give_back_later(huggingface_hub.set_client_factory, make_client)

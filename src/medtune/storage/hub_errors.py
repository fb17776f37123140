"""What goes wrong with the Hub, said in one line that names the repository and a fix, and shows no token or address."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from textwrap import shorten

from medtune.errors import DiskError, HubError, HubUnavailableError, MedtuneError, first_line
from medtune.runtime.terminal import one_line
from medtune.storage.disk_errors import describe_disk_error

# Too early or too many requests, and two commits at once. 5xx are the same.
_TRANSIENT = {408, 409, 412, 425, 429}
# What the local cache has to do with it, by what was asked for.
_CACHE = {
    "model": "the local cache lacks it; ",
    "adapter": "the local cache lacks it; ",
    "data set": "HF_HUB_OFFLINE=1 takes it from the local cache; ",
}


@contextmanager
def explained(error_class: type[MedtuneError], kind: str, name: str, revision: str | None = None) -> Iterator[None]:
    """Errors of huggingface_hub in the block become `error_class`, or DiskError where the cache's disk is full."""
    where = one_line(f"{kind} {name}".strip() + (f" at {revision}" if revision else ""))

    def explain(error: Exception) -> MedtuneError | None:
        if problem := _disk_problem(error):
            return problem
        parts = _problem(error, kind)
        return error_class(where, *parts) if parts else None

    with _replacing(explain):
        yield


@contextmanager
def explained_upload(repo: str) -> Iterator[None]:
    """As `explained`, of a repository that is written and read back: what may work later is a HubUnavailableError."""
    with _replacing(lambda error: _upload_problem(f"repository {repo}", error)):
        yield


@contextmanager
def _replacing(explain: Callable[[Exception], MedtuneError | None]) -> Iterator[None]:
    try:
        yield
    except MedtuneError:
        raise
    except Exception as error:
        if explanation := explain(error):
            raise explanation from None
        raise


def failure_reason(error: BaseException) -> str:
    """What went wrong with a request, in a few words and without its address, which may be a signed one."""
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        return f"the Hub answered {error.response.status_code} {error.response.reason_phrase}".rstrip()
    if isinstance(error, json.JSONDecodeError):
        return "what answered is not the Hub"
    return f"the Hub cannot be reached ({first_line(error)})"


def failure_remedy(error: BaseException) -> str:
    """What the user can do about it."""
    from huggingface_hub.errors import HfHubHTTPError

    if not isinstance(error, HfHubHTTPError):
        return "check the network and HF_ENDPOINT"
    status = error.response.status_code
    if status in (401, 403):
        return "check HF_TOKEN, or log in again with `hf auth login`"
    return "wait a few minutes, or log in with `hf auth login`" if status == 429 else "try again later"


def _is_answer(error: BaseException) -> bool:
    """Whether it is about a request, and not about a file."""
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    return isinstance(error, (HTTPError, json.JSONDecodeError))


def _disk_problem(error: Exception) -> DiskError | None:
    from huggingface_hub import constants, errors

    is_file = isinstance(error, OSError) and not isinstance(
        error, (errors.OfflineModeIsEnabled, errors.EntryNotFoundError)
    )
    return describe_disk_error(error, elsewhere=constants.HF_HOME) if is_file and not _is_answer(error) else None


def _problem(error: Exception, kind: str) -> tuple[str, ...] | None:
    """What is wrong with a download, and what to do where that is known; None for a bug."""
    from huggingface_hub import errors

    # The narrower error before the wider.
    for error_class, parts in _problems_of_downloads():
        if isinstance(error, error_class):
            return parts
    if _is_answer(error):
        return failure_reason(error), f"{_CACHE.get(kind, '')}{failure_remedy(error)}"
    if isinstance(error, errors.LocalEntryNotFoundError):
        # The Hub answered first and then no more: the cause says why.
        cause = error.__cause__ or error
        return f"the download broke off: {failure_reason(cause)}", failure_remedy(cause)
    if isinstance(error, OSError):
        return f"cannot be fetched ({first_line(error)})", "check the network, the disk space and HF_HOME"
    return None


def _problems_of_downloads() -> Iterator[tuple[type[Exception], tuple[str, ...]]]:
    from huggingface_hub import errors

    log_in = "log in with `hf auth login` or set HF_TOKEN"
    yield errors.GatedRepoError, ("gated", f"accept its licence on its Hub page, then {log_in}")
    yield errors.RevisionNotFoundError, ("no such revision on the Hub", "check model.revision or data.revision")
    yield errors.RepositoryNotFoundError, ("not on the Hub, or private", f"check the name, or {log_in}")
    yield errors.HFValidationError, ("neither an existing path nor a Hub id of the form owner/name",)
    offline = "not in the local cache, and HF_HUB_OFFLINE forbids asking the Hub"
    yield errors.OfflineModeIsEnabled, (offline, "unset it, or run once online")


def _upload_problem(where: str, error: Exception) -> HubError | None:
    from huggingface_hub import errors

    if isinstance(error, errors.OfflineModeIsEnabled):
        return HubError(where, "HF_HUB_OFFLINE forbids asking the Hub", "unset it, or name no repository")
    if isinstance(error, errors.HFValidationError):
        return HubError(where, "no Hub id of the form owner/name")
    if _is_answer(error) or isinstance(error, (RuntimeError, OSError, errors.EntryNotFoundError)):
        return _upload_failure(where, error)
    if isinstance(error, ValueError):  # refused by the store of large files
        return HubError(where, shorten(str(error), 200, placeholder=" …"))
    return None


def _upload_failure(where: str, error: BaseException) -> HubError:
    """What an error means. Uploads wrap it in others, and hf_xet tells nothing but a RuntimeError of its own."""
    from huggingface_hub import errors

    cause = error
    while not _is_answer(cause) and cause.__cause__ is not None:
        cause = cause.__cause__
    if not _is_answer(cause):
        if isinstance(cause, OSError) and not isinstance(cause, (ConnectionError, TimeoutError)):
            return HubError(where, _without_addresses(cause), "check the disk and HF_TOKEN")
        reason = f"the transfer failed ({_without_addresses(cause)})"
        return HubUnavailableError(where, reason, "try again later", reason=reason)
    reason, remedy, seconds = failure_reason(cause), failure_remedy(cause), 0.0
    if isinstance(cause, errors.HfHubHTTPError):
        status = cause.response.status_code
        # Its head moved, or was squashed, while it was read.
        moved = isinstance(cause, (errors.RevisionNotFoundError, errors.RemoteEntryNotFoundError))
        if status < 500 and status not in _TRANSIENT and not moved:
            if status == 404:
                remedy = "check the name, and that the token may write there"
            return HubError(where, reason, remedy)
        seconds = _asked_to_wait(cause.response.headers)
    return HubUnavailableError(where, reason, remedy, reason=reason, seconds=seconds)


def _without_addresses(error: BaseException) -> str:
    """What an error says, in a few words: addresses of the store are signed."""
    return shorten(re.sub(r"https?://\S+", "…", first_line(error)), 120, placeholder=" …")


def _asked_to_wait(headers: Mapping[str, str]) -> float:
    """Seconds until the Hub wants to be asked again, by either of its headers; 0 where it does not say."""
    from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]

    value, limit = headers.get("Retry-After", ""), parse_ratelimit_headers(headers)
    reset = limit.reset_in_seconds if limit is not None and limit.remaining == 0 else 0
    return float(value) if value.isdecimal() else reset

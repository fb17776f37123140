"""What huggingface_hub raises, said in one line with a fix."""

from __future__ import annotations

import errno
import json

import httpx2
import pytest
from huggingface_hub import errors

from medtune.errors import DataError, DiskError, HubError, HubUnavailableError, ModelError
from medtune.storage.hub_errors import explained, explained_upload

SIGNED = "https://store.example/key?signature=secret"


def answered(kind: type[errors.HfHubHTTPError], status: int, **headers: str) -> errors.HfHubHTTPError:
    """An error of the kind that huggingface_hub makes of an answer."""
    request = httpx2.Request("GET", SIGNED)
    return kind(f"{status} for {SIGNED}", response=httpx2.Response(status, headers=headers, request=request))


def broken_off() -> errors.LocalEntryNotFoundError:
    error = errors.LocalEntryNotFoundError("cannot find it")
    error.__cause__ = httpx2.ConnectError("connection refused")
    return error


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (answered(errors.GatedRepoError, 403), "gated; accept its licence on its Hub page, then log in with"),
        (answered(errors.RevisionNotFoundError, 404), "no such revision on the Hub; check model.revision or"),
        (answered(errors.RepositoryNotFoundError, 401), "not on the Hub, or private; check the name, or log in"),
        (errors.HFValidationError("x"), "neither an existing path nor a Hub id of the form owner/name"),
        (errors.OfflineModeIsEnabled("x"), "not in the local cache, and HF_HUB_OFFLINE forbids asking the Hub"),
        (
            answered(errors.HfHubHTTPError, 401),
            "the Hub answered 401 Unauthorized; the local cache lacks it; check HF_TOKEN, or log in again",
        ),
        (
            answered(errors.HfHubHTTPError, 429),
            "the Hub answered 429 Too Many Requests; the local cache lacks it; wait a few minutes",
        ),
        (
            httpx2.ConnectError("connection refused"),
            "the Hub cannot be reached (connection refused); the local cache lacks it; check the network and HF_END",
        ),
        (json.JSONDecodeError("x", "<html>", 0), "what answered is not the Hub; the local cache lacks it; check the"),
        (broken_off(), "the download broke off: the Hub cannot be reached (connection refused); check the network"),
        (OSError("odd"), "cannot be fetched (odd); check the network, the disk space and HF_HOME"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_a_model_that_cannot_be_fetched(error: Exception, problem: str) -> None:
    with pytest.raises(ModelError) as caught, explained(ModelError, "model", "owner/name", "v1"):
        raise error
    assert str(caught.value).startswith(f"model owner/name at v1: {problem}")
    assert "secret" not in str(caught.value)


def test_a_data_set_may_be_in_the_cache() -> None:
    with pytest.raises(DataError) as caught, explained(DataError, "data set", "owner/rows"):
        raise answered(errors.HfHubHTTPError, 503)
    assert str(caught.value) == (
        "data set owner/rows: the Hub answered 503 Service Unavailable; HF_HUB_OFFLINE=1 takes it from the local "
        "cache; try again later"
    )


@pytest.mark.parametrize("error", [KeyError("bug"), ModelError("one line")])
def test_other_errors_stay_what_they_are(error: Exception) -> None:
    for explaining in (explained(DataError, "data set", "owner/rows"), explained_upload("owner/run")):
        with pytest.raises(type(error)) as caught, explaining:
            raise error
        assert caught.value is error


@pytest.mark.parametrize("deep", [False, True])
def test_a_full_cache_is_no_trouble_with_the_network(deep: bool) -> None:
    def fetch() -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device", "cache/blob")
        except OSError as error:
            if deep:
                raise OSError("the file could not be moved") from error
            raise

    with pytest.raises(DiskError) as caught, explained(ModelError, "model", "owner/name", None):
        fetch()
    assert str(caught.value) == "cache/blob: no space left on the device; make room"


@pytest.mark.parametrize(
    ("error", "problem", "seconds"),
    [
        (answered(errors.HfHubHTTPError, 503), "the Hub answered 503 Service Unavailable; try again later", 0),
        (
            answered(errors.HfHubHTTPError, 429, **{"Retry-After": "7"}),
            "the Hub answered 429 Too Many Requests; wait",
            7,
        ),
        (answered(errors.HfHubHTTPError, 412), "the Hub answered 412 Precondition Failed; try again later", 0),
        (answered(errors.RevisionNotFoundError, 404), "the Hub answered 404 Not Found; try again later", 0),
        (RuntimeError(f"broken pipe to {SIGNED}"), "the transfer failed (broken pipe to …); try again later", 0),
        (TimeoutError("timed out"), "the transfer failed (timed out); try again later", 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_upload_that_may_work_later(error: Exception, problem: str, seconds: float) -> None:
    with pytest.raises(HubUnavailableError) as caught, explained_upload("owner/run"):
        raise error
    assert str(caught.value).startswith(f"repository owner/run: {problem}")
    assert caught.value.seconds == seconds


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (answered(errors.HfHubHTTPError, 403), "the Hub answered 403 Forbidden; check HF_TOKEN, or log in again"),
        (
            answered(errors.HfHubHTTPError, 404),
            "the Hub answered 404 Not Found; check the name, and that the token may",
        ),
        (errors.OfflineModeIsEnabled("x"), "HF_HUB_OFFLINE forbids asking the Hub; unset it, or name no repository"),
        (errors.HFValidationError("x"), "no Hub id of the form owner/name"),
        (OSError(errno.EACCES, f"denied at {SIGNED}"), "[Errno 13] denied at …; check the disk and HF_TOKEN"),
        (ValueError("refused by the store"), "refused by the store"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_upload_that_will_not_work(error: Exception, problem: str) -> None:
    with pytest.raises(HubError) as caught, explained_upload("owner/run"):
        raise error
    assert not isinstance(caught.value, HubUnavailableError)
    assert str(caught.value).startswith(f"repository owner/run: {problem}")

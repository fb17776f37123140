"""Access to the Hub: whether it answers, whose token it gets, and how much of a model is still to be downloaded."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import huggingface_hub
from huggingface_hub import HfApi, constants, get_session, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import filter_repo_objects, hf_raise_for_status  # type: ignore[attr-defined]

from medtune.errors import MedtuneError, ModelError
from medtune.storage.hub import CONFIG_FILES, NEVER, WEIGHT_FILES, check_settings
from medtune.storage.hub_errors import explained

# Seconds that a request may stay without an answer.
TIME_LIMIT = 10.0


@dataclass(frozen=True, slots=True)
class Login:
    """The user of a token, its role if the Hub names one, and where it was found. Never the token."""

    user: str
    role: str | None
    origin: str


@dataclass(frozen=True, slots=True)
class ModelRepository:
    """The files of a Hub model that a run needs, in bytes, and how many of them are not in the cache."""

    commit: str
    gated: bool
    licence: str | None
    bytes: int
    missing_bytes: int


def hub_host() -> str:
    """Host and port of the Hub that is asked, without the user and password that its address may hold."""
    return urlsplit(constants.ENDPOINT).netloc.rpartition("@")[2]


@contextmanager
def time_limit(seconds: float = TIME_LIMIT) -> Iterator[None]:
    """In this block requests that huggingface_hub would wait for without end are given up after `seconds`."""
    client = get_session()
    before, client.timeout = client.timeout, seconds
    try:
        yield
    finally:
        client.timeout = before


def reach_hub() -> None:
    """Raises MedtuneError unless a Hub answers, whoever asks."""
    check_settings()
    with explained(MedtuneError, "", hub_host()):
        try:
            # Not HfApi.list_models, which asks six times before it gives up, for half a minute.
            answer = get_session().get(f"{constants.ENDPOINT}/api/models", params={"limit": 1}, timeout=TIME_LIMIT)
            hf_raise_for_status(answer)
            answer.json()
        except HfHubHTTPError as error:
            # A mirror may have no lists, or none for strangers.
            if error.response.status_code >= 500:
                raise


def find_login() -> Login | None:
    """The user whose token is sent to the Hub; None without one. Raises MedtuneError if the Hub refuses it."""
    check_settings()
    if huggingface_hub.get_token() is None:
        return None
    origin = next((name for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") if os.environ.get(name)), "the stored login")
    with explained(MedtuneError, "the token of", origin):
        found: Any = HfApi().whoami()
    role = ((found.get("auth") or {}).get("accessToken") or {}).get("role")
    return Login(str(found.get("name", "unknown")), role, origin)


def model_repository(repo: str, revision: str | None = None) -> ModelRepository:
    """A Hub model that this user may read, from its list of files. Raises ModelError if it cannot be had."""
    with explained(ModelError, "model", repo, revision):
        check_settings()
        info: Any = HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=TIME_LIMIT)
        if info.gated:
            HfApi().auth_check(repo)
    wanted = list(
        filter_repo_objects(
            info.siblings or [],
            allow_patterns=[*CONFIG_FILES, *WEIGHT_FILES],
            ignore_patterns=list(NEVER),
            key=lambda file: file.rfilename,
        )
    )
    missing = [
        file for file in wanted if not isinstance(try_to_load_from_cache(repo, file.rfilename, revision=info.sha), str)
    ]
    licences = [tag.removeprefix("license:") for tag in info.tags or [] if tag.startswith("license:")]
    sizes = (sum(file.size or 0 for file in files) for files in (wanted, missing))
    return ModelRepository(info.sha, bool(info.gated), licences[0] if licences else None, *sizes)

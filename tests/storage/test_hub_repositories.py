"""Repositories on the Hub; tests of checkpoints and of publishing write them over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest
from huggingface_hub import close_session, constants, get_session, set_client_factory
from huggingface_hub.errors import OfflineModeIsEnabled
from huggingface_hub.utils._http import default_client_factory

from medtune.errors import HubError
from medtune.runtime.process import settings_given_back
from medtune.storage.hub_repositories import (
    ANSWER_SECONDS,
    find_repository,
    open_private_repository,
    repository_address,
    require_write_token,
)


@pytest.mark.parametrize("ask", [require_write_token, open_private_repository])
def test_without_a_token_the_hub_is_not_asked(ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(HubError) as caught:
        ask("owner/run")
    assert str(caught.value) == (
        "repository owner/run: needs a token of the Hub; set HF_TOKEN to one that may write, or log in with "
        "`hf auth login`"
    )


def test_the_page_of_a_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "https://mirror.example")
    assert repository_address("owner/run") == "https://mirror.example/owner/run"


@pytest.fixture
def client_factory() -> Iterator[None]:
    """huggingface_hub with the clients that it makes by itself, before and after."""
    set_client_factory(default_client_factory)
    yield
    set_client_factory(default_client_factory)


def test_requests_get_a_time_limit_until_the_call_ends(client_factory: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of a client that huggingface_hub makes anew after a connection broke."""
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    before = get_session().timeout
    assert before.read is None
    with settings_given_back():
        for _ in range(2):
            find_offline()
            assert get_session().timeout.read == ANSWER_SECONDS
            close_session()
    assert get_session().timeout == before


def test_a_clients_own_settings_stay(client_factory: None) -> None:
    made: list[httpx2.Client] = []

    def refuse(request: httpx2.Request) -> None:
        raise OfflineModeIsEnabled("HF_HUB_OFFLINE is set")

    def make() -> httpx2.Client:
        hooks = {"request": [refuse]}
        made.append(httpx2.Client(headers={"x-mine": "1"}, event_hooks=hooks, timeout=None if len(made) < 2 else 7))
        return made[-1]

    set_client_factory(make)
    with settings_given_back():
        find_offline()
        assert get_session().headers["x-mine"] == "1"
        assert get_session().timeout.read == ANSWER_SECONDS
    assert get_session() is made[-1]
    assert get_session().timeout.read == 7, "back to the program's own"
    with settings_given_back():
        find_offline()
        assert get_session() is made[-1], "a limit that is there already will do"


def find_offline() -> None:
    with pytest.raises(HubError, match="HF_HUB_OFFLINE"):
        find_repository("owner/run")

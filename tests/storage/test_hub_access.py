"""Access to the Hub; `tests/pipeline/doctor/test_network.py` asks one over HTTP."""

from __future__ import annotations

import pytest
from huggingface_hub import constants, get_session

from medtune.storage.hub_access import find_login, hub_host, time_limit


def test_the_hubs_name_has_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "https://user:secret@mirror.example:8443")
    assert hub_host() == "mirror.example:8443"


def test_a_time_limit_ends_with_its_block() -> None:
    before = get_session().timeout
    with time_limit(3):
        assert get_session().timeout.read == 3
    assert get_session().timeout == before


def test_without_a_token_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert find_login() is None

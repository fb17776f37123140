"""Repositories on the Hub; tests of checkpoints and of publishing write them over HTTP."""

from __future__ import annotations

import pytest
from huggingface_hub import constants

from medtune.errors import HubError
from medtune.storage.hub_repositories import open_private_repository, repository_address, require_write_token


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

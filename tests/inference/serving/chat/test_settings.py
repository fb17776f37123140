"""Where the page is served, and who can reach it there."""

import pytest

from medtune.inference.serving.chat.settings import ChatSettings


def test_unless_told_otherwise_nobody_else_can_reach_it_and_who_wrote_what_is_shown():
    settings = ChatSettings()
    assert settings.address.is_local
    assert (settings.address.host, settings.address.port) == ("127.0.0.1", 7860)
    assert not settings.blind


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7"])
def test_a_page_for_others_is_not_refused_for_want_of_a_key(host, monkeypatch):
    """A server's address would be; the page has none, whatever the server's key is."""
    monkeypatch.setenv("MEDTUNE_API_KEY", "word")
    address = ChatSettings(host, 81).address
    assert not address.is_local
    assert (address.host, address.port, address.key) == (host, 81, "")

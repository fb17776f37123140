"""What `medtune chat` opens, and what it says where the page cannot be had."""

import threading
from contextlib import nullcontext

import pytest

from medtune.errors import ConfigError
from medtune.inference.serving.chat import page_server, starting
from medtune.inference.serving.chat.page_server import ServedPage
from medtune.inference.serving.chat.settings import ChatSettings


@pytest.fixture
def started(echo, monkeypatch):
    """Which of the two was started."""
    names = []
    monkeypatch.setattr(starting, "_open_engine", lambda target: nullcontext(echo))
    served = ServedPage("http://127.0.0.1:1/", threading.current_thread())
    monkeypatch.setattr(starting, "_serving", lambda engine, target, settings, listener: nullcontext(served))
    monkeypatch.setattr(page_server, "wait_for_signal", lambda thread: names.append("page"))
    monkeypatch.setattr(
        "medtune.inference.serving.chat.terminal.chat_in_terminal", lambda engine: names.append("terminal")
    )
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(starting, "find_spec", lambda name: name)
    return names


def test_the_page_is_served_where_it_can_be_looked_at(started):
    starting.chat("run", ChatSettings(port=0))
    starting.chat("run", ChatSettings(port=0), in_terminal=True)
    assert started == ["page", "terminal"]


def test_without_gradio_it_is_a_chat_in_the_terminal_and_says_how_to_get_it(started, monkeypatch, capsys):
    monkeypatch.setattr(starting, "find_spec", lambda name: None)
    starting.chat("run", ChatSettings(port=0))
    assert started == ["terminal"]
    assert 'the page needs pip install "medtune[chat]": chatting in this terminal' in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r'--blind: needs the page; pip install "medtune\[chat\]"'):
        starting.chat("run", ChatSettings(port=0, blind=True))


def test_without_a_display_it_says_how_to_have_the_page_all_the_same(started, monkeypatch, capsys):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    starting.chat("run", ChatSettings(port=0))
    starting.chat("run", ChatSettings(port=0, open_browser=False))
    starting.chat("run", ChatSettings(port=0, blind=True))
    assert started == ["terminal", "page", "page"]
    assert "no display here: chatting in this terminal; --no-browser serves" in " ".join(
        capsys.readouterr().err.split()
    )


def test_blind_needs_a_base_and_the_page(started, echo):
    with pytest.raises(ConfigError, match="--blind: is the page's; leave out --terminal"):
        starting.chat("run", ChatSettings(blind=True), in_terminal=True)
    echo.models = ("tuned",)
    with pytest.raises(ConfigError, match="run is merged, with no base beside it; chat with its run"):
        starting.chat("run", ChatSettings(port=0, blind=True))


def test_a_port_that_is_taken_is_said_before_the_model_is_loaded(started, monkeypatch):
    from medtune.inference.serving.address import Address, bind

    monkeypatch.setattr(starting, "_open_engine", lambda target: pytest.fail("the model was loaded"))
    with bind(Address(port=0)) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}: Address already in use; choose another with --port"):
            starting.chat("run", ChatSettings(port=port))
    assert started == []

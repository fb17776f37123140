"""`medtune chat`: loads the model, and chats on the page or in the terminal."""

from __future__ import annotations

import os
import shlex
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from medtune.errors import ConfigError, Option
from medtune.evaluation.human.blinding import ChatOrigin
from medtune.inference.chat import Chat
from medtune.inference.serving.address import bind
from medtune.inference.serving.chat.blind_sheet import BlindSheet
from medtune.inference.serving.chat.run_questions import RunQuestions, typed
from medtune.inference.serving.chat.settings import ChatSettings
from medtune.runtime.progress import say

if TYPE_CHECKING:
    from medtune.inference.serving.chat.page_server import ServedPage
    from medtune.inference.serving.engine import Engine

# Answers written at once for each model, and the longest prompt: a conversation, whose beginning may be left out.
_ROWS = 8
_PROMPT_TOKENS = 2048
# The page's cap may be raised this far, where the model reads as much.
_LARGEST_CAP = 1024
_EXTRA = 'pip install "medtune[chat]"'


def chat(target: str, settings: ChatSettings, *, in_terminal: bool = False) -> None:
    """Chat with a run, an adapter or a merged model, until the user leaves. Raises MedtuneError.

    Without Gradio, or a display to open the page on, it is a chat in the terminal, and says so.
    """
    if settings.blind and in_terminal:
        raise ConfigError(Option("blind"), "is the page's", ("leave out ", Option("terminal")))
    in_terminal = in_terminal or _needs_terminal(settings)
    if in_terminal:
        from medtune.inference.serving.chat.terminal import chat_in_terminal

        with _open_engine(target) as engine:
            chat_in_terminal(engine)
        return
    with serving_chat(target, settings) as served:
        from medtune.inference.serving.chat.page_server import wait_for_signal

        say(f"the page is at {served.url} until Ctrl-C", verbatim=True)
        wait_for_signal(served.thread)


@contextmanager
def serving_chat(target: str, settings: ChatSettings) -> Iterator[ServedPage]:
    """The page about a run, an adapter or a merged model, served until this block ends. Raises MedtuneError."""
    if find_spec("gradio") is None:
        raise ConfigError("chat", "the page needs Gradio", _EXTRA)
    with bind(settings.address) as listener, _open_engine(target) as engine:
        if settings.blind and "base" not in engine.models:
            raise ConfigError(Option("blind"), f"{target} is merged, with no base beside it", "chat with its run")
        with _serving(engine, target, settings, listener) as served:
            yield served


@contextmanager
def _serving(engine: Engine, target: str, settings: ChatSettings, listener: socket.socket) -> Iterator[ServedPage]:
    from medtune.inference.serving.chat.local_only import switch_telemetry_off

    switch_telemetry_off()
    from medtune.inference.serving.chat.page import Page
    from medtune.inference.serving.chat.page_server import serving_page

    questions = RunQuestions.of(target)
    if questions.missing:
        say(questions.missing)
    name = Path(target).resolve().name if os.path.isdir(target) else target
    place = Path(target) if (Path(target) / "config.yaml").is_file() else Path()
    origin = ChatOrigin(name, engine.chat.max_new_tokens)
    sheet = BlindSheet(place, origin) if "base" in engine.models else None
    # The index takes a second to build: not the first reader's.
    threading.Thread(target=questions.nearest_to, args=[typed("what")], daemon=True).start()
    with serving_page(Page(engine, questions, sheet, settings), name, settings, listener) as served:
        yield served
    if sheet is not None and sheet.folder is not None:
        files = shlex.join(map(str, sheet.ratings_files))
        say(f"next: medtune human score {files} {Option('key', shlex.quote(str(sheet.folder)))}", verbatim=True)


def _open_engine(target: str) -> Engine:
    from medtune.inference.serving.engine import Engine
    from medtune.inference.serving.limits import Limits

    opened = Chat.open_for_batches(target)
    for notice in opened.notices:
        say(notice)
    positions = opened.loaded.positions
    cap = max(opened.max_new_tokens, min(_LARGEST_CAP, positions // 2 if positions else _LARGEST_CAP))
    prompt = min(_PROMPT_TOKENS, positions or _PROMPT_TOKENS)
    return Engine(opened, Limits(rows=_ROWS, prompt_tokens=prompt, new_tokens=cap))


def _needs_terminal(settings: ChatSettings) -> bool:
    """Whether the page cannot be had, or nobody here would see it; says why."""
    if find_spec("gradio") is None:
        if settings.blind:
            raise ConfigError(Option("blind"), "needs the page", _EXTRA)
        say(f"the page needs {_EXTRA}: chatting in this terminal")
        return True
    if settings.open_browser and not settings.blind and not _has_display():
        say(f"no display here: chatting in this terminal; {Option('no_browser')} serves the page all the same")
        return True
    return False


def _has_display() -> bool:
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))

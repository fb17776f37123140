"""An engine of one's own making: two models that answer word by word, as fast as a test lets them."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from served import wait_until

from medtune.errors import DataError
from medtune.inference.serving.answering import Answering, EngineError
from medtune.inference.serving.limits import Limits


@dataclass
class Echo:
    """Answers with the question's words after the model's name; `prompts` are the texts that it was asked.

    A question that holds "wait" is answered up to its second word until `go` is set; "break" fails.
    """

    models: tuple[str, ...] = ("tuned", "base")
    cap: int = 8
    most_words: int = 60
    prompts: list[tuple[str, str]] = field(default_factory=list)
    options: list[Any] = field(default_factory=list)
    go: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.max_new_tokens = 64
        self.limits = Limits(prompt_tokens=self.most_words)
        self.chat = SimpleNamespace(max_new_tokens=self.cap, loaded=SimpleNamespace(positions=None), is_demo=False)
        self.is_same = False

    def chat_prompt(self, turns: Any) -> list[str]:
        if not turns[-1].content.strip():
            raise DataError("messages", "the last one is empty")
        return [word for turn in turns for word in [f"<{turn.role}>", *turn.content.split()]]

    def submit(self, prompt: list[str], *, model: str, options: Any, on_news: Any = lambda: None) -> Answering:
        self.prompts.append((model, " ".join(prompt)))
        self.options.append(options)
        answering = Answering(len(prompt), on_news)
        threading.Thread(target=self._answer, args=(answering, prompt, model, options), daemon=True).start()
        return answering

    def _answer(self, answering: Answering, prompt: list[str], model: str, options: Any) -> None:
        last = len(prompt) - prompt[::-1].index("<user>")
        words = ["both" if self.is_same else model, *prompt[last:]]
        cap = options.max_new_tokens or self.cap
        for number, word in enumerate(words[:cap], 1):
            if answering.is_cancelled:
                return
            if number == 3 and "wait" in words:
                self.go.wait(20)
            if word == "break":
                answering.fail(EngineError("internal error"))
                return
            answering.put(word if number == 1 else f" {word}", number)
        if not answering.is_cancelled:
            answering.put("", min(len(words), cap), "stop" if len(words) < cap else "length")


@pytest.fixture
def echo():
    made = Echo()
    yield made
    made.go.set()


@pytest.fixture
def start_page(echo, tmp_path):
    """A function that serves the page of `echo`, with these questions and settings, and gives its address."""
    pytest.importorskip("gradio", reason="needs Gradio: pip install 'medtune[chat]'")
    import uvicorn

    from medtune.evaluation.human.blinding import ChatOrigin
    from medtune.inference.serving.address import bind, shown_address
    from medtune.inference.serving.chat.blind_sheet import BlindSheet
    from medtune.inference.serving.chat.page import Page
    from medtune.inference.serving.chat.page_server import page_app
    from medtune.inference.serving.chat.run_questions import RunQuestions
    from medtune.inference.serving.chat.settings import ChatSettings

    started = []

    def start(questions=None, **settings):
        chosen = ChatSettings(port=0, open_browser=False, **settings)
        sheet = BlindSheet(tmp_path, ChatOrigin("demo", echo.cap)) if "base" in echo.models else None
        page = Page(echo, questions or RunQuestions(missing="No rows here."), sheet, chosen)
        server = uvicorn.Server(uvicorn.Config(page_app(page, "demo", is_local=True), log_config=None, ws="none"))
        listener = bind(chosen.address)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        started.append((server, thread, listener))
        wait_until(lambda: server.started)
        return f"http://{shown_address(listener)}/"

    yield start
    for server, thread, listener in started:
        server.should_exit = server.force_exit = True
        thread.join(20)
        listener.close()

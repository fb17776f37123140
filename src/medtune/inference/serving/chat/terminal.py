"""A chat in a terminal, or with a pipe that brings one question a line."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, TextIO

from medtune.errors import MedtuneError
from medtune.inference.serving.answering import Options
from medtune.inference.serving.chat.conversation import Conversation, Exchange
from medtune.runtime.progress import say
from medtune.runtime.terminal import harmless

if TYPE_CHECKING:
    from medtune.inference.serving.engine import Engine, ServedModel

HELP = """\
/tuned, /base, /both   who answers from here on
/reset                 begin again, without what was said
/save FILE             write the conversation, one line of JSON a model, to a new file
/help                  this text
/quit, or Ctrl-D       leave; Ctrl-C stops an answer, and leaves where none is being written"""


class TerminalChat:
    """Reads questions and commands line by line, and writes answers as they come."""

    def __init__(self, engine: Engine, out: TextIO, options: Options | None = None) -> None:
        self.engine = engine
        self.out = out
        self.options = options or Options()
        self.models: tuple[ServedModel, ...] = ("tuned",)
        self.conversation = Conversation(engine)
        self._exchange: Exchange | None = None
        self._news = threading.Event()
        self._is_interrupted = False

    def run(self, lines: Iterator[str]) -> None:
        """Until the lines end, somebody leaves, or a second Ctrl-C comes."""
        say(self._greeting())
        with _on_interrupt(self._interrupt), suppress(KeyboardInterrupt):
            for line in lines:
                if not self._take(line.strip()):
                    return
        # Where Ctrl-C or Ctrl-D has left the cursor behind the sign that asks for a question.
        if self.out.isatty():
            self._write("\n")

    def _greeting(self) -> str:
        if "base" not in self.engine.models:
            return "a merged model has no base beside it; /help says what can be typed"
        return "the tuned model answers; /base or /both for the base too, /help for what else can be typed"

    def _take(self, line: str) -> bool:
        """Do what a line says; False where it says to leave."""
        if not line:
            return True
        if not line.startswith("/"):
            self._ask(line)
            return True
        command, _, rest = line.partition(" ")
        if command == "/quit":
            return False
        commands: dict[str, Callable[[], None]] = {
            "/tuned": lambda: self._choose("tuned"),
            "/base": lambda: self._choose("base"),
            "/both": lambda: self._choose("base", "tuned"),
            "/reset": self._reset,
            "/save": lambda: self._save(rest.strip()),
            "/help": lambda: self._write(f"{HELP}\n"),
        }
        if command in commands:
            commands[command]()
        else:
            say(f"{command}: no such command; /help lists them")
        return True

    def _choose(self, *models: ServedModel) -> None:
        if "base" in models and "base" not in self.engine.models:
            say("a merged model has no adapter to leave out: chat with the run that it is from")
            return
        self.models = models
        say(f"{' and '.join(models)} {'answer' if len(models) > 1 else 'answers'} from here on")

    def _reset(self) -> None:
        self.conversation = Conversation(self.engine)
        say("begun again")

    def _ask(self, question: str) -> None:
        try:
            exchange = self.conversation.ask(question, self.models, self.options, self._news.set)
        except MedtuneError as error:
            say(str(error))
            return
        self._exchange = exchange
        try:
            # Both are written at the same time, and shown one after the other.
            for model in self.models:
                self._show(exchange, model)
        finally:
            exchange.stop()
            self._exchange, self._is_interrupted = None, False

    def _show(self, exchange: Exchange, model: ServedModel) -> None:
        if len(self.models) > 1:
            self._write(f"{model}:\n")
        reply, shown = exchange.replies[model], 0
        while True:
            self._news.clear()
            exchange.advance()
            self._write(reply.text[shown:])
            shown = len(reply.text)
            if reply.state != "writing":
                break
            self._news.wait()
        self._write("\n")
        notes = {
            "length": f"cut by the cap of {exchange.cap} tokens",
            "stopped": "stopped",
            "failed": reply.problem,
        }
        if reply.forgotten:
            say(f"the first {reply.forgotten} questions and answers no longer fit, and were left out of the prompt")
        if reply.state in notes:
            say(notes[reply.state])

    def _save(self, name: str) -> None:
        if not name:
            say("/save needs a file, such as /save chat.jsonl")
            return
        if not self.conversation.exchanges:
            say("there is nothing to save yet")
            return
        try:
            with open(name, "x", encoding="utf-8") as file:
                for model in self.engine.models:
                    if turns := self.conversation.messages(model):
                        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
                        file.write(json.dumps({"model": model, "messages": messages}, ensure_ascii=False) + "\n")
        except FileExistsError:
            say(f"{name} is there already; name another file")
        except OSError as error:
            say(f"{name} cannot be written ({error.strerror}); name another file")
        else:
            say(f"saved to {Path(name)}")

    def _interrupt(self) -> None:
        """Stop the answer that is being written; raises KeyboardInterrupt where none is, or at the second time."""
        if self._exchange is None or self._is_interrupted:
            raise KeyboardInterrupt
        self._is_interrupted = True
        self._exchange.stop()
        self._news.set()

    def _write(self, text: str) -> None:
        self.out.write(harmless(text))
        self.out.flush()


def typed_lines(source: TextIO, out: TextIO) -> Iterator[str]:
    """Lines from a terminal, which asks for each and keeps them for the arrow keys; or from a pipe or a file."""
    if not (source.isatty() and out.isatty()):
        yield from source
        return
    with suppress(ImportError):  # Windows has none
        import readline  # noqa: F401
    while True:
        try:
            yield input("> ")
        except EOFError:
            return


@contextmanager
def _on_interrupt(handle: Callable[[], object]) -> Iterator[None]:
    """In this block Ctrl-C calls `handle`. Does nothing outside of the main thread, where Python allows no handlers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handler(number: int, frame: FrameType | None) -> None:
        handle()

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def chat_in_terminal(engine: Engine, options: Options | None = None) -> None:
    """Chat on this process's standard input and output."""
    TerminalChat(engine, sys.stdout, options).run(typed_lines(sys.stdin, sys.stdout))

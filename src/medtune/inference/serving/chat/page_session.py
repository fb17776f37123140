"""What one open page holds on the server: its conversation, its test question, and the item that it rates."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medtune.evaluation.human.blinding import Item
from medtune.inference.serving.answering import EngineError, Options
from medtune.inference.serving.chat.conversation import Conversation, Exchange, Reply
from medtune.inference.serving.chat.page_html import cut_note
from medtune.inference.serving.chat.run_questions import RunQuestions, plain, typed
from medtune.records import Prediction, QAPair

if TYPE_CHECKING:
    from medtune.inference.serving.chat.blind_sheet import BlindSheet
    from medtune.inference.serving.engine import Engine

# Pictures of an answer that grows, a second.
_SECONDS_A_PICTURE = 0.06
# Until a page that was closed is noticed, where no token comes.
_SECONDS_A_LOOK = 1.0


@dataclass(frozen=True, slots=True)
class BlindPair:
    """An item and what is noted of its answers, A's and B's."""

    item: Item
    notes: tuple[str, str]

    @property
    def is_identical(self) -> bool:
        """Whether both answers are one text."""
        return self.item.answer_a == self.item.answer_b


class PageSession:
    """One page; a second question waits for the first one's answers."""

    def __init__(self, engine: Engine, questions: RunQuestions, sheet: BlindSheet | None) -> None:
        self.engine = engine
        self.questions = questions
        self.sheet = sheet
        self.conversation = Conversation(engine)
        self.picked: QAPair | None = None
        self.pair: BlindPair | None = None
        self.rater = ""
        self.is_blind: bool | None = None  # until the first question decides it
        self._exchange: Exchange | None = None

    @property
    def is_busy(self) -> bool:
        """Whether answers are being written."""
        return self._exchange is not None

    def begin(self, row: QAPair | None = None) -> None:
        """A new conversation; with `row`, about that test question and after its turns."""
        self.stop()
        self.picked = row
        self.pair = None
        self.conversation = Conversation(self.engine, row.turns if row is not None else ())

    def row_of(self, question: str) -> QAPair:
        """The test row that is asked, or what somebody has typed."""
        if self.picked is not None and plain(self.picked.asked) == plain(question):
            return self.picked
        return self.questions.find(question) or typed(question)

    async def ask(self, question: str, options: Options) -> AsyncIterator[Exchange]:
        """Have all models answer, and give the exchange whenever there is more of it, at most some 16 times a second.

        Raises MedtuneError where it is not taken. Answers stop where nobody reads on.
        """
        loop, news = asyncio.get_running_loop(), asyncio.Event()

        def tell() -> None:
            with suppress(RuntimeError):  # the page's server has ended, and its loop with it
                loop.call_soon_threadsafe(news.set)

        exchange = self._exchange = self.conversation.ask(question, self.engine.models, options, tell)
        try:
            yield exchange
            while not exchange.is_done:
                news.clear()
                if exchange.advance():
                    yield exchange
                if not exchange.is_done:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(news.wait(), _SECONDS_A_LOOK)
                    await asyncio.sleep(_SECONDS_A_PICTURE)
        finally:
            exchange.stop()
            self._exchange = None

    def stop(self) -> None:
        """Stop what is being written."""
        if self._exchange is not None:
            self._exchange.stop()

    def blind(self, exchange: Exchange, rater: str) -> BlindPair:
        """Put two complete answers on the sheet of `rater`. Raises EngineError where one of them is not complete."""
        assert self.sheet is not None
        replies = exchange.replies
        for reply in replies.values():
            if reply.state not in ("stop", "length"):
                raise EngineError(reply.problem or "stopped: an answer that is not complete is not rated")
        row = self.row_of(exchange.question)
        item, tuned_side = self.sheet.add(rater, _prediction(row, replies["base"]), _prediction(row, replies["tuned"]))
        notes = {name: cut_note(exchange.cap) if reply.state == "length" else "" for name, reply in replies.items()}
        sides = (notes["tuned"], notes["base"])
        self.rater = rater
        self.pair = BlindPair(item, sides if tuned_side == "a" else sides[::-1])
        return self.pair


def _prediction(row: QAPair, reply: Reply) -> Prediction:
    # Questions of one's own that are the same, whoever asks them, are no two independent ones.
    group = row.group if row.id else f"own question: {plain(row.question)}"
    return Prediction(row.id, row.asked, row.answer, reply.text, reply.new_tokens, group=group, qtype=row.qtype)

"""Several turns with one model or two side by side; each sees its own answers and not those of the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from medtune.errors import DataError
from medtune.inference.serving.answering import Answering, EngineError, Options
from medtune.records import Turn

if TYPE_CHECKING:
    from medtune.inference.serving.engine import Engine, ServedModel

# "length" is an answer that the cap has cut, "stopped" one that the user has.
ReplyState = Literal["writing", "stop", "length", "stopped", "failed"]


@dataclass
class Reply:
    """One model's answer so far; `forgotten` counts the earliest questions that no longer fit into its prompt."""

    answering: Answering | None
    text: str = ""
    new_tokens: int = 0
    state: ReplyState = "writing"
    problem: str = ""
    forgotten: int = 0

    def advance(self) -> bool:
        """Take what has come since the last call; whether there was anything."""
        if self.state != "writing" or self.answering is None:
            return False
        try:
            piece = self.answering.take()
        except EngineError as error:
            self.state, self.problem = "failed", str(error)
            return True
        if piece is not None:
            self.text += piece.text
            self.new_tokens = piece.new_tokens
            self.state = piece.finish_reason or self.state
        if self.state == "writing" and self.answering.is_cancelled:
            self.state = "stopped"
            return True
        return piece is not None


@dataclass
class Exchange:
    """A question, with the cap on its answers, and what each model that was asked has answered."""

    question: str
    cap: int
    replies: dict[ServedModel, Reply] = field(default_factory=dict)

    @property
    def is_done(self) -> bool:
        """Whether no answer is being written any more."""
        return all(reply.state != "writing" for reply in self.replies.values())

    def advance(self) -> bool:
        """Take what has come of each answer; whether there was anything."""
        news = [reply.advance() for reply in self.replies.values()]
        return any(news)

    def stop(self) -> None:
        """End the answers where they are."""
        for reply in self.replies.values():
            if reply.answering is not None:
                reply.answering.cancel()


class Conversation:
    """What was asked and answered so far; `before` are the turns that a test question of a conversation brings."""

    def __init__(self, engine: Engine, before: Sequence[Turn] = ()) -> None:
        self.engine = engine
        self.before = tuple(before)
        self.exchanges: list[Exchange] = []

    def ask(
        self,
        question: str,
        models: Sequence[ServedModel],
        options: Options | None = None,
        on_news: Callable[[], object] = lambda: None,
    ) -> Exchange:
        """Have `models` answer; the `Exchange` fills as it is advanced, and `on_news` says when there is something.

        Where a conversation has outgrown the prompt its earliest exchanges are left out, which the `Reply` counts. The
        cap is lowered, which the `Exchange` says, where the model cannot read as much.
        Raises DataError for a question that is empty or too long by itself, and EngineError where none is taken.
        """
        if not question.strip():
            raise DataError("the question", "is empty", "write one")
        options = options or Options()
        exchange = Exchange(question, options.max_new_tokens or self.engine.chat.max_new_tokens)
        try:
            prompts = {model: self._prompt(question, model, exchange.cap) for model in models}
            exchange.cap = self._room_left(exchange.cap, [len(prompt) for prompt, _ in prompts.values()])
            options = replace(options, max_new_tokens=exchange.cap)
            for model, (prompt, forgotten) in prompts.items():
                answering = self.engine.submit(prompt, model=model, options=options, on_news=on_news)
                exchange.replies[model] = Reply(answering, forgotten=forgotten)
        except BaseException:
            exchange.stop()
            raise
        self.exchanges.append(exchange)
        return exchange

    def messages(self, model: ServedModel) -> list[Turn]:
        """The conversation as `model` saw it and spoke in it, answers without a word left out."""
        turns = list(self.before)
        for exchange in self.exchanges:
            reply = exchange.replies.get(model)
            if reply is not None and reply.text and reply.state != "failed":
                turns += [Turn("user", exchange.question), Turn("assistant", reply.text)]
        return turns

    def _room_left(self, cap: int, prompt_tokens: Sequence[int]) -> int:
        """`cap`, or what the model can read after the longest prompt."""
        positions = self.engine.chat.loaded.positions
        return min(cap, max(1, positions - max(prompt_tokens, default=0))) if positions else cap

    def _prompt(self, question: str, model: ServedModel, cap: int) -> tuple[list[int], int]:
        """Token ids, and how many of the earliest exchanges had to be left out of them."""
        turns = self.messages(model)
        system = turns[:1] if turns and turns[0].role == "system" else []
        spoken = turns[len(system) :]
        room = self.engine.limits.prompt_tokens
        positions = self.engine.chat.loaded.positions
        if positions:
            room = min(room, positions - min(cap, positions // 2))
        forgotten = 0
        while True:
            kept = spoken[2 * forgotten :]
            prompt = self.engine.chat_prompt([*system, *kept, Turn("user", question)])
            if len(prompt) <= room or not kept:
                return prompt, forgotten
            forgotten += 1

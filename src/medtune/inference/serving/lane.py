"""The requests to one of the models: those that wait, in the order in which they came, and those that are answered."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch

from medtune.inference.batch_size import PROMPT_TOKENS
from medtune.inference.serving.answer_text import AnswerText
from medtune.inference.serving.answering import Answering, EngineError, Options
from medtune.inference.serving.sampling import LOWEST_TEMPERATURE, Draws, chooser
from medtune.inference.serving.slots import Slots
from medtune.records import FinishReason
from medtune.runtime.hardware import release_memory
from medtune.runtime.progress import say

# A stream gets what has come since this many seconds, and not every token by itself: a client reads no faster, and
# hundreds of streams would take the processor from the model.
SECONDS_A_PIECE = 0.05
# A prompt that is read holds up every answer under way: where these are many, requests enter an eighth of the rows at a
# time, unless one has waited for so many seconds.
ENTERING_SHARE, LONGEST_PAUSE = 8, 0.2


class Request:
    """A prompt on its way to an answer: its tokens so far, and the client's end of it."""

    def __init__(
        self, prompt: list[int], options: Options, max_new_tokens: int, tokenizer: Any, answering: Answering
    ) -> None:
        self.prompt = prompt
        self.max_new_tokens = max_new_tokens
        self.answering = answering
        self.tokens: list[int] = []
        self.has_ended = False
        self.came_at = time.monotonic()
        self.draws: Draws | None = None
        if options.temperature >= LOWEST_TEMPERATURE:
            self.draws = Draws(options.temperature, options.top_p, random.Random(options.seed))
        self._text = AnswerText(tokenizer, options.stop, strip=options.strip)
        self._put_at = 0.0

    @property
    def context(self) -> list[int]:
        """What a row that begins now has to read: also what was answered before memory ran out."""
        return self.prompt + self.tokens

    def accept(self, tokens: Sequence[int], end_token_ids: Collection[int]) -> int:
        """The answer goes on with `tokens`, as far as it goes on at all; says how many it took."""
        before = len(self.tokens)
        for token in tokens:
            self.tokens.append(token)
            if token in end_token_ids:
                return self._end("stop", before)
            self._text.add(token)
            if self._text.is_stopped:
                return self._end("stop", before)
            if len(self.tokens) == self.max_new_tokens:
                return self._end("length", before)
        now = time.monotonic()
        if now - self._put_at >= SECONDS_A_PIECE and (text := self._text.take()):
            self._put_at = now
            self.answering.put(text, len(self.tokens))
        return len(self.tokens) - before

    def _end(self, reason: FinishReason, before: int) -> int:
        self.has_ended = True
        self.answering.put(self._text.finish(), len(self.tokens), reason)
        return len(self.tokens) - before


class Lane:
    """Decodes up to `rows` requests at once in `slots`; each that ends leaves its row to the first that waits.

    Only the engine's thread works here, but for `waiting`, which has a lock of the engine's.
    """

    def __init__(self, slots: Slots, rows: int, end_token_ids: Collection[int]) -> None:
        self.slots = slots
        self.rows = rows
        self.end_token_ids = end_token_ids
        self.waiting: deque[Request] = deque()
        self.live: list[Request] = []
        self.tokens_written = 0

    def turn(self, steps: int) -> None:
        """Let waiting requests in, and take up to `steps` steps with all rows."""
        fits = self._turn_if_it_fits(steps)
        if not fits:
            # The exception is gone by now, and with it what held the attempt's tensors.
            self._halve()

    def stop(self, error: EngineError) -> None:
        """No request gets more of its answer."""
        for request in [*self.live, *self.waiting]:
            request.answering.fail(error)
        self.live.clear()
        self.waiting.clear()
        self.slots.release()

    def _turn_if_it_fits(self, steps: int) -> bool:
        try:
            self._leave(lambda request: request.answering.is_cancelled)
            self._enter()
            if self.live:
                # A row that ends within these steps takes the rest for nothing, which costs less than fewer steps.
                left = max(request.max_new_tokens - len(request.tokens) for request in self.live)
                taken = self.slots.run(min(steps, left), chooser([request.draws for request in self.live]))
                self._accept(self.live, taken)
                self._leave(lambda request: request.has_ended)
        except torch.OutOfMemoryError:
            return False
        return True

    def _enter(self) -> None:
        if self.live and not (self.slots.can_join and self._is_time_to_enter()):
            return
        entering: list[Request] = []
        while self.waiting and len(self.live) + len(entering) < self.rows:
            if self.waiting[0].answering.is_cancelled:
                self.waiting.popleft()
                continue
            # Prompts are read padded to the longest; those who are answered must not wait for too many of them.
            longest = max(len(request.context) for request in [*entering, self.waiting[0]])
            if entering and longest * (len(entering) + 1) > PROMPT_TOKENS:
                break
            entering.append(self.waiting.popleft())
        if not entering:
            return
        self.live += entering
        first = self.slots.join([request.context for request in entering], chooser([one.draws for one in entering]))
        self._accept(entering, [[token] for token in first])
        self._leave(lambda request: request.has_ended)

    def _is_time_to_enter(self) -> bool:
        if 2 * len(self.live) < self.rows or ENTERING_SHARE * len(self.waiting) >= self.rows:
            return True
        return bool(self.waiting) and time.monotonic() - self.waiting[0].came_at >= LONGEST_PAUSE

    def _accept(self, requests: Sequence[Request], tokens: Sequence[Sequence[int]]) -> None:
        for request, new in zip(requests, tokens, strict=True):
            self.tokens_written += request.accept(new, self.end_token_ids)

    def _leave(self, leaves: Callable[[Request], bool]) -> None:
        places = [place for place, request in enumerate(self.live) if not leaves(request)]
        if len(places) < len(self.live):
            self.live = [self.live[place] for place in self.slots.keep(places)]

    def _halve(self) -> None:
        """Answer half as many at once from here on; those that were under way go on first."""
        self.slots.release()
        release_memory()
        going = [request for request in self.live if not request.has_ended]
        self.live = []
        if len(going) <= 1:
            for request in going:
                request.answering.fail(EngineError("out of memory with this request alone", fix="ask for less"))
            return
        self.rows = len(going) // 2
        say(f"out of memory with {len(going)} requests at once; continuing with {self.rows}")
        self.waiting.extendleft(reversed(going))

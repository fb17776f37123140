"""The text of an answer as its tokens come: whole characters, nothing that may still become a stop text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers.decoders import DecodeStream


class AnswerText:
    """Turns tokens into text that can be shown at once and never has to be taken back.

    All of it together is the text that the evaluation would store: special tokens left out, and with `strip` white
    space around it too. What may be the beginning of a text of `stop` is held back until that is known.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = (), *, strip: bool = True) -> None:
        self.tokenizer = tokenizer
        self.stop = stop
        self.strip = strip
        self.is_stopped = False
        self._stream = DecodeStream(skip_special_tokens=True)
        self._tokens: list[int] = []
        self._written = ""
        self._sent = 0

    def add(self, token: int) -> None:
        """One more token of the answer, an end token excepted. Sets `is_stopped` where it completes a stop text."""
        self._tokens.append(token)
        piece = self._stream.step(self.tokenizer.backend_tokenizer, token)
        if not piece:
            return
        # A stop text may have begun in what was held back.
        since = max(0, len(self._written) - max(map(len, self.stop), default=0))
        self._written += piece
        places = [place for text in self.stop if (place := self._written.find(text, since)) >= 0]
        if places:
            self._written = self._written[: min(places)]
            self.is_stopped = True

    def take(self) -> str:
        """What can be shown since the last call."""
        shown = self._written[: len(self._written) - self._held_back()]
        if self.strip:
            shown = shown.strip()
        return self._since(shown)

    def finish(self) -> str:
        """The rest, the answer having ended."""
        whole = self._written
        if not self.is_stopped:
            # With what a character of several tokens lacks, as decoding the answer in one piece gives it.
            whole = self.tokenizer.decode(self._tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return self._since(whole.strip() if self.strip else whole)

    def _since(self, shown: str) -> str:
        piece = shown[self._sent :]
        self._sent = max(self._sent, len(shown))
        return piece

    def _held_back(self) -> int:
        longest = max(map(len, self.stop), default=1) - 1
        for length in range(min(longest, len(self._written)), 0, -1):
            if any(text.startswith(self._written[-length:]) for text in self.stop):
                return length
        return 0

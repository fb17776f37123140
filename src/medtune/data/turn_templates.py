"""A chat template's text around the turns of a chat, for each number of exchanges before the question, read once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import Any

from medtune.data.chat_template import ChatTemplate, read_chat_template, read_example_template, strips_thoughts


@dataclass(frozen=True)
class TurnTemplates:
    """What the chat template of `tokenizer` writes; `encode`, `today` and `settings` are those of `read_chat_template`.

    Raises ModelError where the template cannot write what is asked for.
    """

    tokenizer: Any
    encode: Callable[[str], list[int]]
    today: date | None
    settings: Mapping[str, Any]
    _chats: dict[bool, ChatTemplate] = field(default_factory=dict, init=False, repr=False, compare=False)
    _pieces: dict[tuple[int, bool], list[str]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def chat(self, *, with_system: bool) -> ChatTemplate:
        """The text around one question and its answer."""
        if with_system not in self._chats:
            self._chats[with_system] = read_chat_template(
                self.tokenizer, with_system=with_system, encode=self.encode, today=self.today, settings=self.settings
            )
        return self._chats[with_system]

    def pieces(self, exchanges: int, *, with_system: bool, of_examples: bool = False) -> list[str]:
        """The text before, between and behind the texts of a prompt after so many exchanges: 2 * exchanges + 2."""
        if (exchanges, with_system) not in self._pieces:
            chat = self.chat(with_system=with_system)
            self._pieces[exchanges, with_system] = (
                read_example_template(
                    self.tokenizer,
                    exchanges,
                    with_system=with_system and not chat.system_in_question,
                    today=self.today,
                    settings=self.settings,
                    of_examples=of_examples,
                )
                if exchanges
                else [chat.before_question, chat.after_question]
            )
        return self._pieces[exchanges, with_system]

    def keeps_exchanges(self, exchanges: int, *, with_system: bool) -> bool:
        """Whether each of so many exchanges is written as it is asked for and answered, and ends as an answer does.

        Not every template does: Qwen3's writes an empty thought before the last answer alone.
        """
        chat = self.chat(with_system=with_system)
        end = chat.after_answer + str(self.tokenizer.convert_ids_to_tokens(chat.end_token_id))
        whole = self.pieces(exchanges, with_system=with_system)
        for before in range(exchanges):
            alone = self.pieces(before, with_system=with_system)
            place = 2 * before + 1
            asked_alike = whole[:place] == alone[:place] and whole[place] == alone[place] + chat.before_answer
            if not asked_alike or not whole[place + 1].startswith(end):
                return False
        return True

    @cached_property
    def strips_thoughts(self) -> bool:
        """Whether an answer loses its `<think>…</think>` once another question follows it."""
        return strips_thoughts(self.tokenizer, today=self.today, settings=self.settings)

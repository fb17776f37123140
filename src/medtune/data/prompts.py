"""The one renderer: question and answer → chat text → token ids and loss labels.

Training rows, generation prompts and reference losses all come from here, so a training row's prefix is the generation
prompt, token for token. The text around a row's own texts is the chat template's, parsed with special tokens; a row's
own text stays text, even where it spells a special token.

Rows are encoded many at a time, which the tokenizer spreads over the cores; one row is a batch of one.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from itertools import chain, groupby
from operator import itemgetter
from types import MappingProxyType
from typing import Any, TypeVar

from medtune.data.chat_template import SYSTEM_PLACE, ChatTemplate
from medtune.data.turn_templates import TurnTemplates
from medtune.data.turns import all_exchanges, earlier_exchanges, system_turn
from medtune.records import IGNORED, EncodedRow, QAPair

_T = TypeVar("_T")
# Text, and whether it is parsed with special tokens: a row's own text that spells one is not.
_Part = tuple[str, bool]

# Rows that are encoded together: enough to keep every core busy, few enough that the tokenizer's notes on each token
# stay small.
_BATCH = 1024


@dataclass(frozen=True)
class PromptRenderer:
    """Renders rows for one tokenizer and one system line.

    `tokenizer` is a fast transformers tokenizer with a chat template. `today` is the date in a template that prints
    one, None for that of the clock, `settings` what else it reads, `origin` where it is from if there was a choice.
    Raises ModelError, on first use, if the template is missing, fails, drops the question, or puts no special token
    behind the answer.
    """

    tokenizer: Any
    system_prompt: str = ""
    today: date | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    origin: str = ""

    def prompt_ids(self, question: str, examples: Sequence[QAPair] = ()) -> list[int]:
        """Token ids of the generation prompt, with exactly one BOS where the tokenizer has one.

        `examples` come before the question, as earlier turns of the chat.
        """
        return self._encode_chats([self._prompt(QAPair("", "", question, ""), examples)])[0]

    def pair_prompts(self, pairs: Sequence[QAPair]) -> list[list[int]]:
        """The generation prompt of each row: its turns and its question; a system turn replaces the system line."""
        batches = ([self._prompt(pair, ()) for pair in batch] for batch in batches_of(pairs))
        return [ids for batch in batches for ids in self._encode_chats(batch)]

    def encode_pairs(
        self, pairs: Sequence[QAPair], examples: Mapping[str, Sequence[QAPair]] = MappingProxyType({})
    ) -> list[EncodedRow]:
        """Whole rows; labels are -100 on the prompt, earlier turns included, and the token ids on answer and end token.

        `examples` maps a row's id to its worked examples.
        """
        return [row for batch in batches_of(pairs) for row in self._encode_batch(batch, examples)]

    def _encode_batch(self, pairs: Sequence[QAPair], examples: Mapping[str, Sequence[QAPair]]) -> list[EncodedRow]:
        end, before = self.end_token_id, (self._template.before_answer, True)
        after = (self._template.after_answer, True)
        starts = [self._prompt(pair, examples.get(pair.id, ())) for pair in pairs]
        tails = [[before, *self._guard(pair.answer.strip()), after] for pair in pairs]
        prompts = self._encode_chats(starts)
        wholes = self._encode_chats([start + tail for start, tail in zip(starts, tails, strict=True)])
        fits = [whole[: len(prompt)] == prompt for prompt, whole in zip(prompts, wholes, strict=True)]
        # Where a token would span the border, the answer is encoded separately: the prompt must equal generation's.
        alone = iter(self._encode([tail for tail, fit in zip(tails, fits, strict=True) if not fit]))
        rows = []
        for pair, prompt, whole, fit in zip(pairs, prompts, wholes, fits, strict=True):
            answer = whole[len(prompt) :] if fit else next(alone)
            answer.append(end)
            system = bool(system_turn(pair)) and bool(self.system_prompt.strip())
            labels = [IGNORED] * len(prompt) + answer
            rows.append(EncodedRow(pair.id, prompt + answer, labels, extra_turns=len(pair.turns) - system))
        return rows

    @property
    def end_token_id(self) -> int:
        """The token that ends an answer in this chat template."""
        return self._template.end_token_id

    @property
    def template_notes(self) -> tuple[str, ...]:
        """What was chosen in reading the chat template, and why; empty where there was nothing to choose."""
        return (*filter(None, [self.origin]), *self._template.notes)

    def cut_to(self, text: str, tokens: int) -> str:
        """`text` as a model would have written it under a cap: its first `tokens` tokens, all of it if it has fewer."""
        ids = self._encode([self._guard(text.strip())])[0]
        if len(ids) <= tokens:
            return text
        cut: str = self.tokenizer.decode(ids[:tokens], clean_up_tokenization_spaces=False)
        # The cap may fall inside a character of several bytes.
        return cut.rstrip("\ufffd").strip()

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text by itself, no special tokens added."""
        batches = ([self._guard(text.strip()) for text in batch] for batch in batches_of(texts))
        return [len(ids) for batch in batches for ids in self._encode(batch)]

    @cached_property
    def bos_count(self) -> int:
        """How often BOS occurs in a prompt: once, or at every turn where the chat template opens turns with it."""
        return self.prompt_ids("?").count(self.tokenizer.bos_token_id)

    @cached_property
    def exchange_tokens(self) -> int:
        """Tokens of an earlier exchange of two texts of one token each: these, and what the template writes."""
        word = QAPair("", "", "a", "a")
        return len(self.prompt_ids("a", [word])) - len(self.prompt_ids("a"))

    def keeps_turns(self, pair: QAPair) -> bool:
        """Whether a prompt with the row's turns holds each earlier answer as the model would be asked to write it."""
        exchanges = earlier_exchanges(pair)
        if any("</think>" in answer for _, answer in exchanges) and self._templates.strips_thoughts:
            return False
        return self._templates.keeps_exchanges(len(exchanges), with_system=bool(self._system_of(pair)))

    def _prompt(self, pair: QAPair, examples: Sequence[QAPair]) -> list[_Part]:
        exchanges = [*chain.from_iterable(map(all_exchanges, examples)), *earlier_exchanges(pair)]
        answers = map(self._as_history, (answer for _, answer in exchanges))
        texts = [
            text.strip() for (asked, _), answer in zip(exchanges, answers, strict=True) for text in (asked, answer)
        ]
        texts.append(pair.question.strip())
        system = self._system_of(pair)
        before = self._templates.chat(with_system=bool(system)).system_in_question
        texts[0] = before.replace(SYSTEM_PLACE, system) + texts[0]
        pieces = self._templates.pieces(len(exchanges), with_system=bool(system), of_examples=bool(examples))
        parts: list[_Part] = []
        for piece, text in zip(pieces, texts, strict=False):
            parts += [*self._with_system(piece, system), *self._guard(text)]
        return [*parts, *self._with_system(pieces[-1], system)]

    def _system_of(self, pair: QAPair) -> str:
        return system_turn(pair).strip() or self.system_prompt.strip()

    def _as_history(self, answer: str) -> str:
        """An earlier answer as the template writes it before a question: some leave its thought out."""
        return answer.rpartition("</think>")[2] if "</think>" in answer and self._templates.strips_thoughts else answer

    @property
    def _template(self) -> ChatTemplate:
        return self._templates.chat(with_system=bool(self.system_prompt.strip()))

    @cached_property
    def _templates(self) -> TurnTemplates:
        return TurnTemplates(self.tokenizer, lambda text: self._encode([[(text, True)]])[0], self.today, self.settings)

    def _with_system(self, template: str, system: str) -> list[_Part]:
        before, place, after = template.partition(SYSTEM_PLACE)
        return [(before, True), *(self._guard(system) if place else ()), (after, True)]

    def _guard(self, text: str) -> list[_Part]:
        """A row's own text, with the special tokens that it spells apart."""
        spelled = self._special_spellings
        pieces: list[_Part] = []
        position = 0
        for match in spelled.finditer(text) if spelled else ():
            pieces += [(text[position : match.start()], True), (match.group(), False)]
            position = match.end()
        return [*pieces, (text[position:], True)]

    @cached_property
    def _special_spellings(self) -> re.Pattern[str] | None:
        tokens = sorted((str(token) for token in self.tokenizer.added_tokens_decoder.values()), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, tokens))) if tokens else None

    def _encode_chats(self, chats: Sequence[Sequence[_Part]]) -> list[list[int]]:
        """As `_encode`, with one BOS before each row where the tokenizer puts one before a text."""
        encoded, bos = self._encode(chats), self.tokenizer.bos_token_id
        if bos is None or not self._tokenizer_adds_bos:
            return encoded
        return [_with_one(bos, ids) for ids in encoded]

    @cached_property
    def _tokenizer_adds_bos(self) -> bool:
        starts: list[int] = self.tokenizer("a").input_ids
        return bool(starts[:1] == [self.tokenizer.bos_token_id])

    def _encode(self, rows: Sequence[Sequence[_Part]]) -> list[list[int]]:
        """Token ids of each row of parts.

        A row is encoded in one piece, as the model's makers did it, except where its own text spells a special token:
        that spelling is encoded as plain text.
        """
        pieces = [_joined(parts) for parts in rows]
        ids = {
            special: iter(self._token_ids([text for row in pieces for text, kind in row if kind == special], special))
            for special in (True, False)
        }
        found = [[next(ids[special]) for _, special in row] for row in pieces]
        return [parts[0] if len(parts) == 1 else list(chain.from_iterable(parts)) for parts in found]

    def _token_ids(self, texts: list[str], special: bool) -> list[list[int]]:
        # As transformers does on a call, but without each token's place in the text, which takes a fifth of the time,
        # and without its warning of texts that are longer than the model reads: those are cut later, or intended.
        backend = self.tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = not special
        return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]


def batches_of(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """`items`, at most `_BATCH` at a time."""
    return (items[start : start + _BATCH] for start in range(0, len(items), _BATCH))


def _with_one(bos: int, ids: list[int]) -> list[int]:
    found = next((place for place, id in enumerate(ids) if id != bos), len(ids))
    return ids if found == 1 else [bos, *ids[found:]]


def _joined(parts: Sequence[_Part]) -> list[_Part]:
    """`parts` without empty ones, and neighbours that are parsed with special tokens in one piece."""
    joined: list[_Part] = []
    for special, run in groupby(filter(itemgetter(0), parts), key=itemgetter(1)):
        texts = [text for text, _ in run]
        joined += [("".join(texts), True)] if special else [(text, False) for text in texts]
    return joined

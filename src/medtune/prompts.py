"""The one renderer: question and answer → chat text → token ids and loss labels.

Training rows, generation prompts and reference losses all come from here, so a training row's prefix is the generation
prompt, token for token. What stands between a row's texts is the chat template's, parsed with special tokens, and what
a row puts in their place stays text, even where it spells one.

Rows are encoded many at a time, which the tokenizer spreads over the cores; one row is a batch of one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from types import MappingProxyType
from typing import Any, TypeVar

from medtune.chat_template import SYSTEM_PLACE, ChatTemplate, read_chat_template, read_example_template
from medtune.records import IGNORED, EncodedRow, QAPair

_T = TypeVar("_T")
# Text, and whether its special tokens count as such: they do in the template's own, and nowhere else.
_Part = tuple[str, bool]

# Rows that are encoded together: enough to keep every core busy, few enough that what the tokenizer notes about each
# token of theirs stays small.
_BATCH = 2048


@dataclass(frozen=True)
class PromptRenderer:
    """Renders rows for one tokenizer and one system line.

    `tokenizer` is a fast transformers tokenizer with a chat template. Raises ModelError, on first use, if the template
    is missing, fails, drops the question, or puts no special token behind the answer.
    """

    tokenizer: Any
    system_prompt: str = ""

    def prompt_ids(self, question: str, examples: Sequence[QAPair] = ()) -> list[int]:
        """Token ids of the generation prompt, with exactly one BOS where the tokenizer has one.

        `examples` stand before the question as earlier turns of the chat.
        """
        return self._encode_chats([self._prompt_parts(question, examples)])[0]

    def prompts(self, questions: Sequence[str]) -> list[list[int]]:
        """The `prompt_ids` of each question."""
        batches = ([self._prompt_parts(question, ()) for question in batch] for batch in _batches(questions))
        return [ids for batch in batches for ids in self._encode_chats(batch)]

    def encode_pair(self, pair: QAPair, examples: Sequence[QAPair] = ()) -> EncodedRow:
        """The whole row; labels are -100 on the prompt and the token ids on answer and end token."""
        return self._encode_batch([pair], {pair.id: examples})[0]

    def encode_pairs(
        self, pairs: Sequence[QAPair], examples: Mapping[str, Sequence[QAPair]] = MappingProxyType({})
    ) -> list[EncodedRow]:
        """Each row as `encode_pair` gives it; `examples` maps a row's id to its worked examples."""
        return [row for batch in _batches(pairs) for row in self._encode_batch(batch, examples)]

    def _encode_batch(self, pairs: Sequence[QAPair], examples: Mapping[str, Sequence[QAPair]]) -> list[EncodedRow]:
        starts = [self._prompt_parts(pair.question, examples.get(pair.id, ())) for pair in pairs]
        tails = [[(self._template.before_answer, True), (pair.answer.strip(), False)] for pair in pairs]
        prompts = self._encode_chats(starts)
        wholes = self._encode_chats([[*start, *tail] for start, tail in zip(starts, tails, strict=True)])
        fits = [whole[: len(prompt)] == prompt for prompt, whole in zip(prompts, wholes, strict=True)]
        # Where a token would span the border, the answer is encoded by itself: the prompt must be what generation sees.
        alone = iter(self._encode([tail for tail, fit in zip(tails, fits, strict=True) if not fit]))
        rows = []
        for pair, prompt, whole, fit in zip(pairs, prompts, wholes, fits, strict=True):
            answer = [*(whole[len(prompt) :] if fit else next(alone)), self.end_token_id]
            rows.append(EncodedRow(pair.id, prompt + answer, [IGNORED] * len(prompt) + answer))
        return rows

    @property
    def end_token_id(self) -> int:
        """The token that ends an answer in this chat template."""
        return self._template.end_token_id

    def cut_to(self, text: str, tokens: int) -> str:
        """`text` as a model would have written it under a cap: its first `tokens` tokens, all of it if it has fewer."""
        ids = self._encode([[(text.strip(), False)]])[0]
        if len(ids) <= tokens:
            return text
        cut: str = self.tokenizer.decode(ids[:tokens], clean_up_tokenization_spaces=False)
        # The cap may fall inside a character of several bytes.
        return cut.rstrip("\ufffd").strip()

    def count_tokens(self, text: str) -> int:
        """Tokens of `text` by itself, no special tokens added."""
        return self.count_tokens_of([text])[0]

    def count_tokens_of(self, texts: Sequence[str]) -> list[int]:
        """The `count_tokens` of each text."""
        batches = ([[(text.strip(), False)] for text in batch] for batch in _batches(texts))
        return [len(ids) for batch in batches for ids in self._encode(batch)]

    @cached_property
    def bos_count(self) -> int:
        """How often BOS stands in a prompt: once, or at every turn where the chat template opens turns with it."""
        return self.prompt_ids("?").count(self.tokenizer.bos_token_id)

    def _prompt_parts(self, question: str, examples: Sequence[QAPair]) -> list[_Part]:
        if not examples:
            template = self._template
            return [(template.before_question, True), (self._fill(question), False), (template.after_question, True)]
        texts = [text.strip() for example in examples for text in (example.question, example.answer)]
        texts = [self._fill(texts[0]), *texts[1:], question.strip()]
        first, *between = self._example_template(len(examples))
        parts = [(first, True)]
        for text, template_text in zip(texts, between, strict=True):
            parts += [(text, False), (template_text, True)]
        return parts

    def _fill(self, question: str) -> str:
        system_line = self._template.system_in_question.replace(SYSTEM_PLACE, self.system_prompt.strip())
        return system_line + question.strip()

    @cached_property
    def _template(self) -> ChatTemplate:
        return read_chat_template(
            self.tokenizer,
            with_system=bool(self.system_prompt.strip()),
            encode=lambda text: self._encode([[(text, True)]])[0],
        )

    def _example_template(self, count: int) -> list[str]:
        if count not in self._example_templates:
            knows_system = bool(self.system_prompt.strip()) and not self._template.system_in_question
            self._example_templates[count] = read_example_template(self.tokenizer, count, with_system=knows_system)
        return self._example_templates[count]

    @cached_property
    def _example_templates(self) -> dict[int, list[str]]:
        return {}

    def _encode_chats(self, chats: Sequence[Sequence[_Part]]) -> list[list[int]]:
        return [self._with_one_bos(ids) for ids in self._encode(chats)]

    def _with_one_bos(self, ids: list[int]) -> list[int]:
        bos = self.tokenizer.bos_token_id
        if bos is None or not self._tokenizer_adds_bos:
            return ids
        while ids[:2] == [bos, bos]:
            ids = ids[1:]
        return ids if ids[:1] == [bos] else [bos, *ids]

    @cached_property
    def _tokenizer_adds_bos(self) -> bool:
        starts: list[int] = self.tokenizer("a").input_ids
        return bool(starts[:1] == [self.tokenizer.bos_token_id])

    def _encode(self, rows: Sequence[Sequence[_Part]]) -> list[list[int]]:
        """Token ids of each row of parts.

        A row is encoded in one piece, as the model's makers did it, save where its own text spells a special token:
        there the spelling is cut out and encoded as plain text.
        """
        pieces = [self._pieces(parts) for parts in rows]
        ids = {
            special: iter(self._token_ids([text for row in pieces for text, is_ in row if is_ == special], special))
            for special in (True, False)
        }
        return [list(chain.from_iterable(next(ids[special]) for _, special in row)) for row in pieces]

    def _token_ids(self, texts: list[str], special: bool) -> list[list[int]]:
        # What transformers does on a call, without a fifth of its time, which goes into each token's place in the text,
        # and without its warning of texts that are longer than the model reads: those are cut later, or meant to be.
        backend = self.tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = not special
        return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]

    def _pieces(self, parts: Sequence[_Part]) -> list[_Part]:
        """The parts with the system line in its place, spelled special tokens apart, and all else in one piece."""
        pieces: list[_Part] = []
        for text, is_template in parts:
            if is_template and SYSTEM_PLACE in text:
                before, after = text.split(SYSTEM_PLACE, 1)
                pieces += [(before, True), *self._guard(self.system_prompt.strip()), (after, True)]
            else:
                pieces += [(text, True)] if is_template else self._guard(text)
        return _joined(pieces)

    def _guard(self, text: str) -> list[_Part]:
        spelled = self._special_spellings
        if spelled is None:
            return [(text, True)]
        pieces, position = [], 0
        for match in spelled.finditer(text):
            pieces += [(text[position : match.start()], True), (match.group(), False)]
            position = match.end()
        return [*pieces, (text[position:], True)]

    @cached_property
    def _special_spellings(self) -> re.Pattern[str] | None:
        tokens = sorted((str(token) for token in self.tokenizer.added_tokens_decoder.values()), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, tokens))) if tokens else None


def _batches(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    return (items[start : start + _BATCH] for start in range(0, len(items), _BATCH))


def _joined(pieces: Sequence[_Part]) -> list[_Part]:
    joined: list[_Part] = []
    for text, special in pieces:
        if not text:
            continue
        if joined and joined[-1][1] and special:
            joined[-1] = (joined[-1][0] + text, True)
        else:
            joined.append((text, special))
    return joined

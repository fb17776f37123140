"""The one renderer: question and answer → chat text → token ids and loss labels.

Training rows, generation prompts and reference losses all come from here, so a training row's prefix is the generation
prompt, token for token. The tokenizer's own chat template is rendered once with placeholders; what stands between them
is the template's, parsed with special tokens, and what a row puts in their place stays text, even where it spells one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

from medtune.errors import DataError, ModelError
from medtune.records import IGNORED, EncodedRow, QAPair

# Plain words, so that no template and no tokenizer treats them specially; long, so that no other text holds them.
_SYSTEM, _QUESTION, _ANSWER = "MEDTUNESYSTEMPLACE", "MEDTUNEQUESTIONPLACE", "MEDTUNEANSWERPLACE"
_SENTENCE_END = re.compile(r"[.!?][\"')\]]*(?=\s)|\n")


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
        return self._with_one_bos(self._encode(self._prompt_parts(question, examples)))

    def answer_ids(self, question: str, answer: str, examples: Sequence[QAPair] = ()) -> list[int]:
        """Token ids of the answer, as they follow the generation prompt, and of the end token."""
        return self._answer_behind(self.prompt_ids(question, examples), question, answer, examples)

    def _answer_behind(self, prompt: list[int], question: str, answer: str, examples: Sequence[QAPair]) -> list[int]:
        tail = [(self._template.before_answer, True), (answer.strip(), False)]
        whole = self._with_one_bos(self._encode([*self._prompt_parts(question, examples), *tail]))
        # Where a token would span the border, the answer is encoded by itself: the prompt must be what generation sees.
        fits = whole[: len(prompt)] == prompt
        return (whole[len(prompt) :] if fits else self._encode(tail)) + [self.end_token_id]

    def encode_pair(self, pair: QAPair, examples: Sequence[QAPair] = ()) -> EncodedRow:
        """The whole row; labels are -100 on the prompt and the token ids on answer and end token."""
        prompt = self.prompt_ids(pair.question, examples)
        answer = self._answer_behind(prompt, pair.question, pair.answer, examples)
        return EncodedRow(pair.id, prompt + answer, [IGNORED] * len(prompt) + answer)

    @property
    def end_token_id(self) -> int:
        """The token that ends an answer in this chat template."""
        return self._template.end_token_id

    def cut_to(self, text: str, tokens: int) -> str:
        """`text` as a model would have written it under a cap: its first `tokens` tokens, all of it if it has fewer."""
        ids = self._encode([(text.strip(), False)])
        if len(ids) <= tokens:
            return text
        cut: str = self.tokenizer.decode(ids[:tokens], clean_up_tokenization_spaces=False)
        # The cap may fall inside a character of several bytes.
        return cut.rstrip("\ufffd").strip()

    def count_tokens(self, text: str) -> int:
        """Tokens of `text` by itself, no special tokens added."""
        return len(self._encode([(text.strip(), False)]))

    def _prompt_parts(self, question: str, examples: Sequence[QAPair]) -> list[tuple[str, bool]]:
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

    def _example_template(self, count: int) -> list[str]:
        """What the chat template writes around `count` worked examples and the question: 2 * count + 2 pieces."""
        places = [f"MEDTUNEEXAMPLE{turn}PLACE" for turn in range(2 * count + 1)]
        roles = ("user", "assistant")
        turns = [{"role": roles[turn % 2], "content": place} for turn, place in enumerate(places)]
        knows_system = bool(self.system_prompt.strip()) and not self._template.system_in_question
        system = [{"role": "system", "content": _SYSTEM}] if knows_system else []
        text = _render(self.tokenizer, [*system, *turns], generation_prompt=True)
        pieces = [] if text is None else re.split("|".join(places), text)
        if len(pieces) != len(places) + 1:
            raise ModelError(
                f"{self.tokenizer.name_or_path}: its chat template cannot render worked examples; leave few_shot out "
                "of evaluation.controls"
            )
        return pieces

    @cached_property
    def bos_count(self) -> int:
        """How often BOS stands in a prompt: once, or at every turn where the chat template opens turns with it."""
        return self.prompt_ids("?").count(self.tokenizer.bos_token_id)

    @cached_property
    def _template(self) -> _Template:
        return _read_template(self.tokenizer, bool(self.system_prompt.strip()), self._encode)

    def _fill(self, question: str) -> str:
        system = self._template.system_in_question
        return system.replace(_SYSTEM, self.system_prompt.strip()) + question.strip() if system else question.strip()

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

    def _encode(self, parts: Sequence[tuple[str, bool]]) -> list[int]:
        """Encode text parts; True marks the template's text, whose special tokens count as such.

        Everything is encoded in one piece, as the model's makers did it, save for rows whose own text spells a special
        token: there the spelling is cut out and encoded as plain text.
        """
        system = self.system_prompt.strip()
        pieces: list[tuple[str, bool]] = []
        for text, is_template in parts:
            if is_template and _SYSTEM in text:
                before, after = text.split(_SYSTEM, 1)
                pieces += [(before, True), *self._guard(system), (after, True)]
            else:
                pieces += [(text, True)] if is_template else self._guard(text)
        ids: list[int] = []
        for text, special in _joined(pieces):
            ids += self.tokenizer(text, add_special_tokens=False, split_special_tokens=not special).input_ids
        return ids

    def _guard(self, text: str) -> list[tuple[str, bool]]:
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


@dataclass(frozen=True, slots=True)
class _Template:
    before_question: str
    after_question: str
    # What the template writes before an answer that is not in its generation prompt, such as Mistral's blank.
    before_answer: str
    end_token_id: int
    # Text, with the system placeholder, that goes before the question where the template knows no system role.
    system_in_question: str


def _joined(pieces: Sequence[tuple[str, bool]]) -> list[tuple[str, bool]]:
    joined: list[tuple[str, bool]] = []
    for text, special in pieces:
        if not text:
            continue
        if joined and joined[-1][1] and special:
            joined[-1] = (joined[-1][0] + text, True)
        else:
            joined.append((text, special))
    return joined


def _read_template(tokenizer: Any, with_system: bool, encode: Any) -> _Template:
    if not tokenizer.chat_template:
        raise ModelError(
            f"{tokenizer.name_or_path}: its tokenizer has no chat template; use the model's chat (instruct) variant"
        )
    question = {"role": "user", "content": _QUESTION}
    answer = {"role": "assistant", "content": _ANSWER}
    system = [{"role": "system", "content": _SYSTEM}] if with_system else []
    prompt = _render(tokenizer, [*system, question], generation_prompt=True)
    system_in_question = ""
    if prompt is None or (with_system and _SYSTEM not in prompt):
        # Gemma's and early Mistral's templates know no system role: the line goes before the question.
        prompt = _render(tokenizer, [question], generation_prompt=True)
        system, system_in_question = [], f"{_SYSTEM}\n\n" if with_system else ""
    whole = _render(tokenizer, [*system, question, answer], generation_prompt=False)
    if prompt is None or whole is None or prompt.count(_QUESTION) != 1 or whole.count(_ANSWER) != 1:
        raise ModelError(f"{tokenizer.name_or_path}: its chat template cannot render one question and one answer")
    before, after = prompt.split(_QUESTION)
    head, tail = whole.split(_ANSWER)
    before_answer = head.removeprefix(prompt) if head.startswith(prompt) else ""
    end_ids = encode([(tail, True)])
    if not end_ids or end_ids[0] not in tokenizer.added_tokens_decoder:
        raise ModelError(
            f"{tokenizer.name_or_path}: its chat template puts no end token behind an answer (it puts {tail!r}); "
            "the model would never learn to stop"
        )
    return _Template(before, after, before_answer, end_ids[0], system_in_question)


def _render(tokenizer: Any, messages: list[dict[str, str]], *, generation_prompt: bool) -> str | None:
    from jinja2 import TemplateError

    try:
        text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation_prompt)
    except TemplateError:
        return None
    return text


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """Rows ready for training, and what the length limit did to the others.

    `no_room` are rows whose prompt alone leaves no room for a token of the answer: whole, and not among `rows`.
    """

    rows: list[EncodedRow]
    cut: int
    dropped: int
    tokens_lost: int
    no_room: tuple[EncodedRow, ...] = ()


def encode_for_training(
    renderer: PromptRenderer, pairs: Sequence[QAPair], *, max_length: int, overlong: Literal["cut", "drop"]
) -> EncodedRows:
    """Encode rows of at most `max_length` tokens.

    An overlong answer is cut behind its last sentence or line that fits and keeps its end token, so that the model
    seldom learns to stop in mid-sentence; where that would cost more than half of what fits, it is cut at a token.
    Raises DataError, naming rows, if prompts alone leave no room for an answer, or if nothing is left.
    """
    encoded = fit_rows(renderer, pairs, max_length=max_length, overlong=overlong)
    if encoded.no_room:
        longest = max(row.prompt_length for row in encoded.no_room)
        raise DataError(
            f"training.max_length: {_named(encoded.no_room)}: a prompt of up to {longest} tokens leaves no room for an "
            f"answer; raise training.max_length above {longest + 1}"
        )
    if not encoded.rows:
        raise DataError(
            f"training.max_length: no row fits in {max_length} tokens; raise it or set training.overlong to cut"
        )
    return encoded


def fit_rows(
    renderer: PromptRenderer, pairs: Sequence[QAPair], *, max_length: int, overlong: Literal["cut", "drop"]
) -> EncodedRows:
    """As `encode_for_training`, with rows that leave no room handed back instead of refused."""
    rows: list[EncodedRow] = []
    no_room: list[EncodedRow] = []
    cut = dropped = lost = 0
    for pair in pairs:
        row = renderer.encode_pair(pair)
        if (excess := len(row.input_ids) - max_length) > 0:
            if overlong == "drop":
                dropped, lost = dropped + 1, lost + len(row.input_ids) - row.prompt_length
                continue
            shorter = _cut_row(renderer, pair, row, excess)
            if shorter is None:
                no_room.append(row)
                continue
            cut, lost = cut + 1, lost + len(row.input_ids) - len(shorter.input_ids)
            row = shorter
        rows.append(row)
    return EncodedRows(rows, cut, dropped, lost, tuple(no_room))


def _cut_row(renderer: PromptRenderer, pair: QAPair, row: EncodedRow, excess: int) -> EncodedRow | None:
    room = len(row.input_ids) - row.prompt_length - 1 - excess
    if room < 1:
        return None
    prompt = row.input_ids[: row.prompt_length]
    tokens = row.input_ids[row.prompt_length : row.prompt_length + room]
    text = renderer.tokenizer.decode(tokens, clean_up_tokenization_spaces=False)
    # A first sentence that is a small part of what fits is not worth losing the rest for.
    ends = [match.end() for match in _SENTENCE_END.finditer(text) if match.end() >= len(text) / 2]
    if ends:
        whole_sentences = renderer.answer_ids(pair.question, text[: ends[-1]].strip())
        if 1 < len(whole_sentences) <= room + 1:
            tokens = whole_sentences[:-1]
    answer = [*tokens, renderer.end_token_id]
    return EncodedRow(pair.id, prompt + answer, [IGNORED] * len(prompt) + answer)


def require_sound_rows(rows: Sequence[EncodedRow], renderer: PromptRenderer) -> None:
    """Check what the loss will look at, before any training.

    Raises DataError, a line for each fault that names rows and the fix: a row with two BOS (more than the chat template
    writes by design), with no label at all, or whose labels do not end with the end token.
    """
    bos, end, bos_count = renderer.tokenizer.bos_token_id, renderer.end_token_id, renderer.bos_count
    faults = {
        "BOS stands twice; take it out of the tokenizer's chat template, or out of what the tokenizer adds": [
            row for row in rows if _doubles_bos(row, bos, bos_count)
        ],
        "no token carries a label, so there is nothing to learn; raise training.max_length": [
            row for row in rows if row.prompt_length == len(row.labels)
        ],
        "no end token at the end of the labels, so the model would not learn to stop; use the tokenizer and the chat "
        "template of the model's chat variant": [
            row for row in rows if row.prompt_length < len(row.labels) and row.labels[-1] != end
        ],
    }
    problems = [f"training {_named(found)}: {fault}" for fault, found in faults.items() if found]
    if problems:
        raise DataError("\n".join(problems))


def _doubles_bos(row: EncodedRow, bos_token_id: int | None, bos_count: int) -> bool:
    if bos_token_id is None:
        return False
    # The last token is left out: in some models one token is both BOS and end token.
    ids = row.input_ids[:-1]
    # A template that opens every turn with BOS (SmolLM2's) writes several, but never two in a row.
    return (bos_token_id, bos_token_id) in pairwise(ids) or ids.count(bos_token_id) > bos_count


def _named(rows: Sequence[EncodedRow]) -> str:
    shown = ", ".join(row.id for row in rows[:5])
    if len(rows) == 1:
        return f"row {shown}"
    return f"rows {shown}" + (f" … ({len(rows)} in all)" if len(rows) > 5 else "")

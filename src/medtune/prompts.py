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
from typing import Any

from medtune.errors import ModelError
from medtune.records import IGNORED, EncodedRow, QAPair

# Plain words, so that no template and no tokenizer treats them specially; long, so that no other text holds them.
_SYSTEM, _QUESTION, _ANSWER = "MEDTUNESYSTEMPLACE", "MEDTUNEQUESTIONPLACE", "MEDTUNEANSWERPLACE"


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

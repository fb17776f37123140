"""What the answer is in a text, and what is not: reasoning, a repeated prompt, role markers, end tokens.

Models and tools differ in what they leave in a text. One template writes an empty thought before each answer, which a
tuned model learns and the baseline does not know; scores then compare thoughts. So the same is left out of every text
that is measured, answers and references alike, and counted. Files keep the whole text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from medtune.records import Prediction

Kind = Literal["reasoning", "prompt", "role marker", "end token"]

_THOUGHT = re.compile(r"<(/?)(?:think|thinking|thought|reasoning)>", re.I)
# As gpt-oss's channels look once its special tokens are left out.
_CHANNELS = ("analysis", "assistantfinal")

_ASSISTANT_TURN = re.compile(
    r"<\|start_header_id\|>\s*assistant\s*<\|end_header_id\|>|<\|im_start\|>\s*assistant\b|<start_of_turn>\s*model\b"
    r"|\[/INST\]|<\|assistant\|>",
    re.I,
)
_NAMED_ROLE = re.compile(r"[*#\s]*(?:assistant|answer|(?<=#)\s*response)[*\s]*:[*\s]*|assistant\s*\n", re.I)
_OTHER_TURN = (
    r"<\|start_header_id\|>|<\|im_start\|>|<start_of_turn>|<\|user\|>|<\|system\|>|\[INST\]|<<SYS>>"  # of any role
)
_START = r"<s>|<bos>|<\|begin_of_text\|>|<\|startoftext\|>|<pad>|\[PAD\]|<\|pad\|>|<\|finetune_right_pad_id\|>"
_END = (
    r"<\|eot_id\|>|<\|eom_id\|>|<\|end_of_text\|>|<\|endoftext\|>|<\|im_end\|>|<\|end\|>|<\|return\|>|<end_of_turn>"
    r"|<eos>|<\|eos\|>|</s>|<\uff5cend\u2581of\u2581sentence\uff5c>|<\|END_OF_TURN_TOKEN\|>"
)
_LEADING = re.compile(rf"(?:\s|{_START}|{_END})+")
_ENDING = re.compile(f"{_END}|{_START}|{_OTHER_TURN}")
_CHAT = re.compile(rf"(?:\s|{_START})*(?:{_OTHER_TURN})")
_BARE_TURN = re.compile(r"\s*(?:assistant|model)\s*\n", re.I)
# Those of Chinese and of Arabic too.
_SENTENCE_END = re.compile(r"[?:.!\uff1f\uff1a\u3002\uff01\u061f]+\s*|\s*\n\s*|\s*\Z")


def separate_answer(text: str, question: str = "") -> tuple[str, frozenset[Kind]]:
    """The answer in `text` to `question`, and the kinds of other text that were removed; `text` itself if none was.

    The answer is empty where nothing else is left, as of a thought that the cap cut.
    """
    rest, removed = text.strip(), set[Kind]()
    for _ in range(_MOST_STEPS):
        step = next(_shorter(rest, question.strip()), None)
        if step is None:
            break
        kind, rest = step
        removed.add(kind)
    return (rest if removed else text), frozenset(removed)


def _shorter(text: str, question: str) -> Iterator[tuple[Kind, str]]:
    for kind, remove in _STEPS:
        shorter = remove(text, question).strip()
        if len(shorter) < len(text):
            yield kind, shorter


def _without_prompt(text: str, question: str) -> str:
    """A chat from its beginning to the assistant's turn, or the question at the start of the answer."""
    leading = _LEADING.match(text)
    if _CHAT.match(text) and not _ASSISTANT_TURN.match(text, leading.end() if leading else 0):
        turn = _ASSISTANT_TURN.search(text, max(0, text.find(question)))
        return text[turn.end() :] if turn else text
    if not question or question not in text:
        return text
    # As a chat looks once its special tokens are left out.
    before, _, after = text.partition(question)
    turn = _BARE_TURN.match(after)
    if turn and before.startswith(("system\n", "user\n")) and before.rstrip().endswith("user"):
        return after[turn.end() :]
    start = re.match(rf"(?:[*#\s]*(?:question|q)[*\s]*:[*\s]*)?{re.escape(question)}", text, re.I)
    if start is None:
        return text
    # A question that is a mere term, such as a disease, may also begin a sentence of the answer.
    if _SENTENCE_END.fullmatch(question[-1]):
        return text[start.end() :]
    end = _SENTENCE_END.match(text, start.end())
    return text[end.end() :] if end else text


def _without_end(text: str, question: str) -> str:
    leading = _LEADING.match(text)
    text = text[leading.end() :] if leading else text
    end = next((match for match in _ENDING.finditer(text) if match.start()), None)
    return text[: end.start()] if end else text


def _without_reasoning(text: str, question: str) -> str:
    start, end = _CHANNELS
    if text.startswith(start) and end in text:
        return text.partition(end)[2]
    kept: list[str] = []
    place, is_thought = 0, False
    for tag in _THOUGHT.finditer(text):
        if not tag[1]:
            kept += [] if is_thought else [text[place : tag.start()]]
        elif not is_thought:  # the opening tag was in the prompt
            kept.clear()
        is_thought, place = not tag[1], tag.end()
    return "".join([*kept, "" if is_thought else text[place:]])


def _without_role(text: str, question: str) -> str:
    marker = _ASSISTANT_TURN.match(text) or _NAMED_ROLE.match(text)
    return text[marker.end() :] if marker else text


# A text that repeats its question for ever is no answer, and is not taken apart for ever.
_MOST_STEPS = 20
# In this order: a prompt holds turns, at whose tokens an answer ends.
_STEPS: tuple[tuple[Kind, Callable[[str, str], str]], ...] = (
    ("prompt", _without_prompt),
    ("role marker", _without_role),
    ("end token", _without_end),
    ("reasoning", _without_reasoning),
)


@dataclass(frozen=True, slots=True)
class Separated:
    """Rows whose texts are answers alone, and in how many texts each kind of other text was."""

    rows: Sequence[Prediction]
    answers: Counter[Kind] = field(default_factory=Counter)
    references: Counter[Kind] = field(default_factory=Counter)

    @property
    def details(self) -> dict[str, Any]:
        """What the details of a score say of it: nothing where no text held anything else."""
        if not self.answers and not self.references:
            return {}
        return {"not_answer": {"answers": dict(self.answers), "references": dict(self.references)}}


def separate_rows(rows: Sequence[Prediction]) -> Separated:
    """`rows` with the answers in their predictions and references. A reference is never left empty."""
    answers, references = Counter[Kind](), Counter[Kind]()

    def reference(text: str, question: str) -> str:
        answer, kinds = separate_answer(text, question)
        if not answer:
            return text
        references.update(kinds)
        return answer

    separated = []
    for row in rows:
        answer, kinds = separate_answer(row.prediction, row.question)
        answers.update(kinds)
        texts = tuple(reference(text, row.question) for text in row.all_references)
        separated.append(
            replace(row, prediction=answer, reference=texts[0], references=texts if row.references else ())
        )
    return Separated(separated, answers, references)

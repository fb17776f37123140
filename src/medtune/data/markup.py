"""What is not the text itself in a question or an answer: reasoning, a repeated prompt, role markers, end tokens.

Models, tools and data sets differ in what they leave in a text. The same definition serves rows, before anything is
learned of them, and texts that are measured.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Literal

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
_USER_TURN = re.compile(
    r"<\|start_header_id\|>\s*\w+\s*<\|end_header_id\|>|<\|im_start\|>\s*\w+|<start_of_turn>\s*\w+|\[/?INST\]"
    r"|<\|(?:user|system|assistant)\|>|<</?SYS>>",
    re.I,
)
_ALPACA = re.compile(r"below is an instruction that describes a task[^#]{0,200}", re.I)
_NAMED_USER = re.compile(r"[*#\s]*(?:user|human|question|(?<=#)\s*(?:instruction|input|prompt)s?)[*\s]*:[*\s]*", re.I)
# A line by itself.
_NAMED_END = re.compile(r"(?:#+\s*(?:response|answer|assistant)|[*\s]*(?:assistant|answer))[*\s]*:[*\s]*", re.I)
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
_TOKENS = re.compile(f"{_END}|{_START}")
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


def separate_question(text: str) -> tuple[str, frozenset[Kind]]:
    """`text` without the tokens and role markers of a chat that was written out; its words, a system line's too, stay.

    With the kinds that were removed; `text` itself if none was.
    """
    removed, rest = set[Kind](), text
    steps: tuple[tuple[Kind, re.Pattern[str]], ...] = (("role marker", _USER_TURN), ("end token", _TOKENS))
    for kind, pattern in steps:
        if (shorter := pattern.sub("\n", rest)) != rest:
            removed.add(kind)
            rest = shorter
    rest = rest.strip()
    before, _, last = rest.rpartition("\n")
    if _NAMED_END.fullmatch(last):
        removed.add("role marker")
        rest = before.strip()
    preamble = _ALPACA.match(rest)
    if name := _NAMED_USER.match(rest, preamble.end() if preamble else 0):
        removed.add("role marker")
        rest = rest[name.end() :].strip()
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
    if "<" not in text and "[" not in text:  # every mark begins with one of these
        return text
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

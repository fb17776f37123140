"""The topic of a question, read from the question itself where the source does not name it."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from medtune.data.turns import user_turns
from medtune.records import QAPair

FocusOrigin = Literal["given", "read from the questions", "absent"]

# MedQuAD's questions were made from templates: these sixteen, read off its rows, make over 99 % of them. Each is the
# text before the topic and the text behind it, without the question mark.
TEMPLATES = (
    ("What is (are)", ""),
    ("What are the symptoms of", ""),
    ("What are the treatments for", ""),
    ("What causes", ""),
    ("What are the genetic changes related to", ""),
    ("What are the stages of", ""),
    ("What are the complications of", ""),
    ("What is the outlook for", ""),
    ("what research (or clinical trials) is being done for", ""),
    ("What to do for", ""),
    ("How many people are affected by", ""),
    ("How to diagnose", ""),
    ("How to prevent", ""),
    ("Who is at risk for", ""),
    ("Is", "inherited"),
    ("Do you have information about", ""),
)
_TEMPLATES = tuple(
    re.compile(f"{re.escape(before)} (.+?){re.escape(f' {behind}' if behind else '')}", re.IGNORECASE)
    for before, behind in TEMPLATES
)


def focus_from_question(question: str) -> str:
    """The X of "What are the symptoms of X ?" and of its fifteen sisters; empty for any other question."""
    line = " ".join(question.split()).rstrip("? ")
    return next((found[1] for template in _TEMPLATES if (found := template.fullmatch(line))), "")


def _focus_of(pair: QAPair) -> str:
    """The focus of the first question of a conversation that names one: later ones may only point back to it."""
    return next(filter(None, map(focus_from_question, user_turns(pair))), "")


def fill_focus(pairs: Sequence[QAPair]) -> tuple[list[QAPair], FocusOrigin]:
    """The rows with a focus read from their questions, if none of them has one, and where it comes from now."""
    if any(pair.focus for pair in pairs):
        return list(pairs), "given"
    filled = [replace(pair, focus=_focus_of(pair)) for pair in pairs]
    return filled, "read from the questions" if any(pair.focus for pair in filled) else "absent"

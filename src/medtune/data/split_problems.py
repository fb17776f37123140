"""Why rows cannot be split: too few of them, or one group that holds them all, and what joined it."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from medtune.data.cleaning import normalize_answer, normalize_question
from medtune.data.splits import PARTS, focus_key
from medtune.errors import DataError, Option, Text, show_value, spell_out
from medtune.records import QAPair, Split

# What joins rows, with the key that names its column where it has one.
_JOINS: Mapping[str, tuple[Callable[[QAPair], str], str | None]] = {
    "document": (lambda pair: pair.document_id, "document_id"),
    "focus": (lambda pair: focus_key(pair.focus), "focus"),
    "question": (lambda pair: normalize_question(pair.question), None),
    "answer": (lambda pair: normalize_answer(pair.answer), None),
}
# A group with more than this share of the rows leaves too few for the other parts.
_MOST = 0.5


def require_rows(split: Split, rows: Sequence[QAPair], *, must_split: bool = True) -> str:
    """Why one of the three splits of `rows` is empty, in one line; nothing where none is.

    Raises DataError with it where they `must_split`.
    """
    for name in PARTS:
        if getattr(split, name):
            continue
        total = len(split.train) + len(split.validation) + len(split.test)
        reason, fix = _reason(rows)
        problem = f"the {name} split is empty ({total} rows in all){reason}"
        if must_split:
            raise DataError("data.split", problem, fix)
        return spell_out((problem, "; ", fix))
    return ""


def _reason(rows: Sequence[QAPair]) -> tuple[str, Text]:
    groups = Counter(pair.group for pair in rows)
    largest, size = groups.most_common(1)[0] if groups else ("", 0)
    if len(rows) < 2 or size <= _MOST * len(rows):
        return "", "give more rows or other shares"
    held = [pair for pair in rows if pair.group == largest]
    how, key = _joined_by(held)
    amount = "all of them" if size == len(rows) else f"{size:,} of them"
    dealt = ("deal single rows with ", Option("set", "data.split.method=random"), ", which leaks what they share")
    fix: Text = (*dealt, ", or give rows that differ")
    if key is not None:
        fix = ("leave that column out with ", Option("set", f"data.columns.{key}=null"), ", or ", *dealt)
    return f": one group holds {amount}, {how}", fix


def _joined_by(rows: Sequence[QAPair]) -> tuple[str, str | None]:
    """What most rows of a group have in common, in words, and the key of its column."""
    most: tuple[int, str, str, str | None] = (1, "", "", None)
    for kind, (value_of, key) in _JOINS.items():
        counts = Counter(filter(None, map(value_of, rows)))
        value, count = counts.most_common(1)[0] if counts else ("", 0)
        if count > most[0]:
            most = (count, kind, value, key)
    count, kind, value, key = most
    if count < _MOST * len(rows):
        return "joined by answers or questions that are alike", None
    who = "which share" if count == len(rows) else f"{count:,} of which share"
    return f"{who} the {kind} {show_value(value)}", key

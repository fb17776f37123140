"""Rows that are left out before any split: how many, why, and from which share on that is worth a warning or a stop."""

from collections.abc import Mapping

from medtune.data.cleaning import DROPS, MIN_ANSWER_WORDS
from medtune.data.pairs import LEFT_OUT
from medtune.errors import DataError, Option, Text

WARNED_SHARE = 0.02
# Answers of an exam are a word or two: where most of the rows would go, the rule does not suit them.
_MOST_SHORT = 0.5
_REASONS = {
    **LEFT_OUT,
    "dropped_empty": "without a question or an answer",
    "dropped_question_repeat": "with the question for an answer",
    "dropped_short": "with too short an answer",
    "dropped_duplicate": "that repeat an earlier row",
}


def reading_line(source: str, counts: Mapping[str, object]) -> str:
    """How many rows came, and how many were left out and why."""
    reasons = _left_out(counts)
    came = _number(counts, "rows_read") + sum(_number(counts, reason) for reason in LEFT_OUT)
    if not reasons:
        return f"{source}: {came:,} rows, all kept"
    told = ", ".join(f"{rows:,} {_REASONS[reason]}" for reason, rows in reasons.items())
    return f"{source}: {came:,} rows, {_number(counts, 'rows_kept'):,} kept; left out: {told}"


def reading_warning(source: str, counts: Mapping[str, object]) -> str | None:
    """A warning, in one sentence, if more than 2 % of the rows were left out."""
    left = sum(_left_out(counts).values())
    came = left + _number(counts, "rows_kept")
    if left <= WARNED_SHARE * came:
        return None
    return f"{left / came:.1%} of the rows were left out. {reading_line(source, counts)}."


def require_long_answers(source: str, rows: int, counts: Mapping[str, int], min_words: int | None) -> None:
    """Raises DataError if cleaning left no row, or without `min_words` dropped most of them for being short.

    `counts` are those of cleaning.
    """
    dropped = {rule: counts[rule] for rule in DROPS}
    keep = ("keep short answers with ", Option("set", "data.min_answer_words=1"))
    if not counts["rows_kept"]:
        rules = ", ".join(f"{rule.replace('_', ' ')}: {count:,}" for rule, count in dropped.items() if count)
        fix: Text = ("check its columns, or ", *keep) if dropped["dropped_short"] else "check its columns"
        raise DataError(source, f"cleaning left none of its {rows:,} rows ({rules})", fix)
    if min_words is None and dropped["dropped_short"] > _MOST_SHORT * rows:
        problem = f"{dropped['dropped_short']:,} of its {rows:,} answers have fewer than {MIN_ANSWER_WORDS} words"
        drop = Option("set", f"data.min_answer_words={MIN_ANSWER_WORDS}")
        raise DataError(source, problem, (*keep, ", or drop them with ", drop))


def _left_out(counts: Mapping[str, object]) -> dict[str, int]:
    return {reason: rows for reason in (*LEFT_OUT, *DROPS) if (rows := _number(counts, reason))}


def _number(counts: Mapping[str, object], name: str) -> int:
    value = counts.get(name, 0)
    return value if isinstance(value, int) else 0

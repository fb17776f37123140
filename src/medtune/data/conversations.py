"""Conversations as people have them, read as turns: messages, ShareGPT, lists of prompt and completion, JSON in a cell.

A row whose order is broken is put right where that is unambiguous, or left out; each is counted by rule and told.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from medtune.config.sources import ColumnsSection
from medtune.data.table_files import require_text_size, show_column
from medtune.data.turn_lists import LeftOutError, as_list, read_turns
from medtune.errors import DataError, Option
from medtune.records import Turn

# In this order, where a table has several.
COLUMN_NAMES = ("messages", "conversations", "conversation", "dialogue", "dialog", "chat")
_PROMPT, _COMPLETION = "prompt", "completion"
# Rows that are looked at to tell whether a column holds conversations.
_LOOKED_AT = 20

# Rules of `data/report.json` and what they say, of rows that are left out and of rows that are changed.
LEFT_OUT = {
    "left_out_no_turns": "no list of turns",
    "left_out_tools": "calls of tools",
    "left_out_parts": "a part that is no text",
    "left_out_roles": "a role that is none of system, user and assistant",
    "left_out_empty_turn": "an empty turn before the last",
    "left_out_late_system": "a system turn between others",
    "left_out_unanswered": "no question with an answer",
}
CHANGED = {
    "joined_neighbours": "neighbours of one role joined",
    "cut_unanswered_end": "an end without an answer to learn cut",
    "cut_opening_answer": "an answer before any question cut",
}
# What tables call each count.
COUNT_NAMES = {
    "conversations": "conversations",
    "answers_in_conversations": "answers in conversations",
    **{rule: f"left out: {says}" for rule, says in LEFT_OUT.items()},
    **{rule: f"changed: {says}" for rule, says in CHANGED.items()},
}


@dataclass(frozen=True, slots=True)
class Conversations:
    """Records with the last exchange of each conversation in the columns of question and answer.

    `turns` are what comes before it, one tuple a record. `counts` say by rule what was changed, and `lines` tell it.
    `left_out` are the other records, each with its rule.
    """

    records: list[Mapping[str, Any]]
    turns: list[tuple[Turn, ...]]
    counts: dict[str, int]
    lines: tuple[str, ...]
    left_out: list[tuple[str, Mapping[str, Any]]]


def read_conversations(
    records: Sequence[Mapping[str, Any]], columns: ColumnsSection, origin: str
) -> Conversations | None:
    """The conversations in `records`; None where they hold none, so that their columns are questions and answers.

    Raises DataError if `data.columns.messages` is not there, or not one conversation can be read.
    """
    names = _conversation_columns(records, columns, origin)
    if not names:
        return None
    counts: Counter[str] = Counter()
    details: Counter[str] = Counter()
    kept: list[Mapping[str, Any]] = []
    turns: list[tuple[Turn, ...]] = []
    others: list[tuple[str, Mapping[str, Any]]] = []
    for index, record in enumerate(records):
        try:
            whole, changed = _put_right([turn for name in names for turn in read_turns(record.get(name), name)])
        except LeftOutError as error:
            counts[error.rule] += 1
            details[error.detail] += bool(error.detail)
            others.append((error.rule, record))
            continue
        counts.update(changed)
        for turn in whole:
            require_text_size(turn.content, f"{origin}: row {index}: a turn")
        rest = {name: value for name, value in record.items() if name not in names}
        kept.append({**rest, columns.question: whole[-2].content, columns.answer: whole[-1].content})
        turns.append(tuple(whole[:-2]))
    left_out = _say(counts, LEFT_OUT, details)
    if not kept:
        fix = "medtune reads turns of system, user and assistant, each a text"
        raise DataError(origin, f"none of its {len(records):,} conversations can be read: {left_out}", fix)
    answers = sum(turn.role == "assistant" for row in turns for turn in row) + len(kept)
    own = sum(bool(row) and row[0].role == "system" for row in turns)
    system = f", {own:,} with a system turn of their own in place of data.system_prompt" if own else ""
    lines = [f"{len(kept):,} conversations in {' and '.join(map(show_column, names))}, {answers:,} answers{system}"]
    lines += [f"conversations left out: {left_out}"] if left_out else []
    lines += [f"conversations changed: {changed_text}"] if (changed_text := _say(counts, CHANGED)) else []
    found = {"conversations": len(kept), "answers_in_conversations": answers}
    return Conversations(
        kept, turns, found | {rule: counts[rule] for rule in CHANGED if counts[rule]}, (*lines,), others
    )


def _conversation_columns(
    records: Sequence[Mapping[str, Any]], columns: ColumnsSection, origin: str
) -> tuple[str, ...]:
    """Names of the columns that hold conversations: one, or prompt and completion."""
    present = {name.strip().lower(): name for record in records for name in record}
    if columns.messages is not None:
        if (name := present.get(columns.messages.strip().lower())) is None:
            shown = ", ".join(map(show_column, list(present.values())[:20]))
            fix = ("name yours with ", Option("set", "data.columns.messages=…"))
            raise DataError(origin, f"no column {columns.messages!r}; it has {shown}", fix)
        return (name,)
    plain = tuple(present.get(name.strip().lower()) for name in (columns.question, columns.answer))
    lists = plain if all(plain) else (present.get(_PROMPT), present.get(_COMPLETION))
    if lists[0] is not None and lists[1] is not None and _holds_turns(records, lists[1]):
        return (lists[0], lists[1])
    if all(plain):
        return ()
    found = (present[name] for name in COLUMN_NAMES if name in present and _holds_turns(records, present[name]))
    return next(((name,) for name in found), ())


def _holds_turns(records: Sequence[Mapping[str, Any]], name: str) -> bool:
    values = [value for record in records[:_LOOKED_AT] if (value := record.get(name)) not in (None, "")]
    return any(as_list(value) is not None for value in values)


def _put_right(turns: list[Turn]) -> tuple[list[Turn], set[str]]:
    """A system turn, if any, and exchanges, and the rules that changed something. Raises LeftOutError."""
    changed = set[str]()

    def cut(kept: list[Turn], rule: str, before: list[Turn]) -> list[Turn]:
        if len(kept) < len(before):
            changed.add(rule)
        return kept

    turns = [turn for turn in turns if turn.content.strip() or turn.role != "system"]
    turns = cut(_joined(turns), "joined_neighbours", turns)
    system, rest = (turns[:1], turns[1:]) if turns and turns[0].role == "system" else ([], turns)
    if any(turn.role == "system" for turn in rest):
        raise LeftOutError("left_out_late_system")
    rest = cut(rest[1:] if rest and rest[0].role == "assistant" else rest, "cut_opening_answer", rest)
    whole = rest
    while rest and (rest[-1].role == "user" or not rest[-1].content.strip() or not rest[-1].learned):
        rest = rest[:-1]
    rest = cut(rest, "cut_unanswered_end", whole)
    if len(rest) < 2:
        raise LeftOutError("left_out_unanswered")
    if any(not turn.content.strip() for turn in rest):
        raise LeftOutError("left_out_empty_turn")
    return [*system, *rest], changed


def _joined(turns: Sequence[Turn]) -> list[Turn]:
    """Neighbours of one role as one turn; a turn that only repeats the one before it is left out."""
    joined: list[Turn] = []
    for turn in turns:
        if joined and joined[-1].role == turn.role:
            last = joined.pop()
            texts = dict.fromkeys(text for text in (last.content.strip(), turn.content.strip()) if text)
            turn = replace(turn, content="\n\n".join(texts), learned=last.learned and turn.learned)
        joined.append(turn)
    return joined


def _say(counts: Counter[str], rules: Mapping[str, str], details: Counter[str] | None = None) -> str:
    told = ", ".join(f"{counts[rule]:,} with {says}" for rule, says in rules.items() if counts[rule])
    named = ", ".join(name for name, rows in (details or Counter()).most_common(5) if rows)
    return f"{told} ({named})" if told and named else told

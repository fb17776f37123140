"""Which column of a source holds what: the configured name, or one that such data sets usually have."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medtune.config.sources import ColumnsSection
from medtune.data.table_files import COLUMNS_SHOWN, show_column
from medtune.errors import DataError, Option, Problem

# What else a column is called, where a default's name is not there: Alpaca's and OpenAI's shapes, MedQuAD on Kaggle
# (question, answer, source, focus_area) and lavita's (document_source, question_focus, question_type).
USUAL_NAMES: Mapping[str, tuple[str, ...]] = {
    "question": ("instruction", "prompt"),
    "answer": ("output", "completion", "response"),
    "qtype": ("question_type",),
    "focus": ("focus_area", "question_focus", "topic", "disease", "condition"),
    "source": ("document_source",),
}
# Alpaca's and Dolly's rows have an instruction in one column, and in another what it is about.
_INSTRUCTION, _CONTEXT, _INPUT = "instruction", ("input", "context"), "input"
_ROLES = {"qtype": "question type", "id": "id", "document_id": "document"}
# Row labels that pandas wrote, which are no data.
_INDEX = re.compile(r"\s*|unnamed: \d+|__index_level_\d+__")


@dataclass(frozen=True, slots=True)
class Columns:
    """The column of each field, None where there is none, and in one line those that were not named as configured."""

    names: Mapping[str, str | None]
    note: str = ""


def column_names(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """The columns of all records, since in JSONL a first row without a focus must not hide the others'."""
    names = dict.fromkeys(name for record in records for name in record)
    return [name for name in names if not _INDEX.fullmatch(_folded(name))]


def find_columns(present: Sequence[str], columns: ColumnsSection, origin: str) -> Columns:
    """The column of each field among those `present`.

    Raises DataError, with a line for each field, if a column is missing that must be there, or if two could be one.
    """
    found: dict[str, str | None] = {}
    problems: list[Problem] = []
    for field, wanted in columns.model_dump(exclude={"messages"}).items():
        is_default = wanted == ColumnsSection.model_fields[field].default
        matches = _matching(present, wanted, is_default=is_default, field=field)
        if len(matches) > 1:
            problems.append(_several(matches, field, origin))
        # A default name may be absent; another must be there, or grouping would be lost silently.
        elif not matches and (field in ("question", "answer") or (not is_default and wanted is not None)):
            problems.append(_missing(present, str(wanted), field, origin))
        found[field] = matches[0] if len(matches) == 1 else None
    if problems:
        raise DataError.together(problems)
    if columns.context is None and _folded(found["question"] or "") == _INSTRUCTION != columns.question:
        found["context"] = next((name for name in present if _folded(name) in _CONTEXT), None)
    return Columns(found, _note(found, columns, present))


def _matching(present: Sequence[str], wanted: str | None, *, is_default: bool, field: str) -> list[str]:
    if wanted is None:
        return []
    exact = [name for name in present if name == wanted]
    if len(exact) == 1 and f"{wanted}.1" not in present:
        return exact
    alike = [name for name in present if _folded(name) in (_folded(wanted), f"{_folded(wanted)}.1")]
    if alike or not is_default:
        return alike
    usual = [name for name in present if _folded(name) in USUAL_NAMES.get(field, ())]
    # Rows of an input and an output, without an instruction.
    return usual or [name for name in present if field == "question" and _folded(name) == _INPUT]


def _folded(name: str) -> str:
    return name.strip().casefold()


def _several(matches: Sequence[str], field: str, origin: str) -> Problem:
    shown = " and ".join(map(show_column, matches))
    problem = f"its columns {shown} could each be the {_ROLES.get(field, field)}"
    return Problem(
        origin, problem, ("choose one with ", Option("set", f"data.columns.{field}={show_column(matches[0])}"))
    )


def _missing(present: Sequence[str], wanted: str, field: str, origin: str) -> Problem:
    shown = ", ".join(map(show_column, present[:COLUMNS_SHOWN])) + (" …" if present[COLUMNS_SHOWN:] else "")
    meant = [name for name in present if field in _folded(name)]
    meant += difflib.get_close_matches(wanted, present, n=1)
    name = show_column(meant[0]) if meant else "NAME"
    return Problem(origin, f"no column {wanted!r}; it has {shown}", _flag(field, name))


def _flag(field: str, name: str) -> tuple[object, ...]:
    return ("name yours with ", Option("set", f"data.columns.{field}={name}"))


def _note(found: Mapping[str, str | None], columns: ColumnsSection, present: Sequence[str]) -> str:
    """What was found under another name than the configured one, whatever its case, and what is not used."""
    configured = columns.model_dump()
    others = {
        field: show_column(name)
        for field, name in found.items()
        if name is not None and _folded(name) != _folded(configured[field] or "")
    }
    if below := others.pop("context", None):
        question = found["question"] or ""
        others["question"] = f"{show_column(question)} with {below} below it"
    notes = [f"{_ROLES.get(field, field)} from {name}" for field, name in others.items()]
    if unused := [name for name in present if name not in found.values()]:
        more = " …" if len(unused) > COLUMNS_SHOWN else ""
        notes.append(f"not used: {', '.join(map(show_column, unused[:COLUMNS_SHOWN]))}{more}")
    return ", ".join(notes)

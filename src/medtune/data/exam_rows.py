"""Exam questions with short answers, as PubMedQA and MedMCQA have them: what belongs below a question becomes text."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medtune.config.sources import ColumnsSection
from medtune.data.table_files import show_column

# MedMCQA's columns: four options and the number of the right one.
_OPTIONS, _RIGHT = ("opa", "opb", "opc", "opd"), "cop"
_LETTERS = "ABCD"
# PubMedQA's columns: an object that holds the abstract without its conclusion, as a list, and yes, no or maybe.
_ABSTRACT, _PARAGRAPHS, _DECISION = "context", "contexts", "final_decision"
# Columns that a record gets.
_BELOW, _TEXT = "options", "right option"
# Rows that are looked at to tell whether a column holds abstracts.
_LOOKED_AT = 20

LEFT_OUT = {"no_right_option": "without a right option"}


@dataclass(frozen=True, slots=True)
class ExamRows:
    """Records whose question, text below it and answer each have a column of text, and `columns` that name these.

    `lines` tell what was made of them. `left_out` are the other records, each with its rule of `LEFT_OUT`.
    """

    records: list[Mapping[str, Any]]
    columns: ColumnsSection
    lines: tuple[str, ...]
    left_out: list[tuple[str, Mapping[str, Any]]]


def read_exam_rows(records: Sequence[Mapping[str, Any]], columns: ColumnsSection) -> ExamRows | None:
    """The exam questions in `records`; None where their columns are others, or where `columns` names a context.

    An answer column that `columns` names, such as the explanation, is taken in place of the short answer.
    """
    present = {name.strip().casefold(): name for record in records for name in record}
    if columns.context is None and present.keys() >= {*_OPTIONS, _RIGHT}:
        return _with_options(records, columns, present)
    name = present.get(_ABSTRACT)
    if columns.context in (None, name) and name and _paragraphs(records[:_LOOKED_AT], name):
        return _with_abstracts(records, columns, present)
    return None


def _with_options(
    records: Sequence[Mapping[str, Any]], columns: ColumnsSection, present: Mapping[str, str]
) -> ExamRows:
    """MedMCQA: options below the question, and the text of the right one as answer.

    The text without its letter, since equal answers must stay equal wherever they are among the options: the split,
    the templates and the controls compare answers.
    """
    names = [present[option] for option in _OPTIONS]
    given = _named_answer(columns, present)
    places = [_place(record.get(present[_RIGHT])) for record in records]
    # The set on the Hub counts from 0 and has -1 where the answer is hidden; the files that its authors share, from 1.
    first = 1 if 4 in places and 0 not in places else 0
    kept: list[Mapping[str, Any]] = []
    left_out: list[tuple[str, Mapping[str, Any]]] = []
    for record, place in zip(records, places, strict=True):
        options = ["" if record.get(name) is None else str(record[name]) for name in names]
        right = None if place is None or not 0 <= place - first < len(options) else options[place - first]
        if right is None and given is None:
            left_out.append(("no_right_option", record))
            continue
        rest = {name: value for name, value in record.items() if name not in (*names, present[_RIGHT])}
        below = "\n".join(f"{letter}. {text}" for letter, text in zip(_LETTERS, options, strict=True) if text)
        kept.append({**rest, _BELOW: below} | ({_TEXT: right} if given is None else {}))
    answer = f"the right option ({present[_RIGHT]}, counted from {first})" if given is None else show_column(given)
    line = f"MedMCQA's rows: question with options A to D below it, {answer} as answer"
    return ExamRows(kept, _columns(columns, _BELOW, given or _TEXT), (line,), left_out)


def _with_abstracts(
    records: Sequence[Mapping[str, Any]], columns: ColumnsSection, present: Mapping[str, str]
) -> ExamRows:
    """PubMedQA: the paragraphs of the abstract below the question, and yes, no or maybe as answer."""
    name = present[_ABSTRACT]
    given = _named_answer(columns, present) or present.get(_DECISION)
    kept = [
        {**record, name: "\n".join(paragraphs)} if (paragraphs := _paragraphs([record], name)) else record
        for record in records
    ]
    answer = f", {show_column(given)} as answer" if given else ""
    line = f"PubMedQA's rows: question with its abstract below it{answer}"
    return ExamRows(kept, _columns(columns, name, given or columns.answer), (line,), [])


def _named_answer(columns: ColumnsSection, present: Mapping[str, str]) -> str | None:
    """The answer column that the configuration names, or that is there by the default's name."""
    if columns.answer != ColumnsSection().answer:
        return columns.answer
    return present.get(columns.answer.casefold())


def _columns(columns: ColumnsSection, context: str, answer: str) -> ColumnsSection:
    return columns.model_copy(update={"context": context, "answer": answer})


def _place(cell: object) -> int | None:
    """The number in a cell, also as text or as its letter, counted from 0; None where it has none."""
    text = str(cell).strip().upper()
    if len(text) == 1 and text in _LETTERS:
        return _LETTERS.index(text)
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if number.is_integer() else None


def _paragraphs(records: Iterable[Mapping[str, Any]], name: str) -> list[str]:
    """The paragraphs of the records' abstracts; none where a record has no object with a list of texts."""
    found: list[str] = []
    for record in records:
        value = record.get(name)
        texts = value.get(_PARAGRAPHS) if isinstance(value, Mapping) else None
        if isinstance(texts, list) and all(isinstance(text, str) for text in texts):
            found += texts
    return found

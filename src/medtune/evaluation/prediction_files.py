"""Any tool's predictions: a JSONL, CSV or Parquet file with id, reference and prediction, or what it calls these.

A row may have several references, as a list called `references` beside or instead of `reference`.
"""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from medtune.data.table_files import COLUMNS_SHOWN, read_table, require_characters, require_text_size, show_column
from medtune.errors import DataError, Option, show_value
from medtune.evaluation.formatting import format_count
from medtune.evaluation.prediction_formats import BY_ORDER, OWN_NAMES, ColumnNames, recognise
from medtune.records import FinishReason, Prediction
from medtune.runtime.progress import say

_TEXTS = ("id", "reference", "prediction")
_LABELS = ("question", "group", "qtype")


def read_predictions(path: Path, references: Path | None = None, columns: ColumnNames = OWN_NAMES) -> list[Prediction]:
    """Rows of `path` in file order; `references` holds id and reference where `path` has no references.

    Either may have several references a row. `question`, `group`, `qtype`, `new_tokens`, `finish_reason`,
    `reference_nll` and `reference_tokens` are read where they are there. Files of lm-eval and LLaMA-Factory are told by
    their keys, any other names are given as `columns`; what was recognised is said in a line. Raises DataError, in one
    line, naming file and row.
    """
    return predictions_of(_records(path), path, references, columns)


def predictions_of(
    records: Iterable[Mapping[str, Any]],
    origin: object,
    references: Path | None = None,
    columns: ColumnNames = OWN_NAMES,
) -> list[Prediction]:
    """As `read_predictions`, for records that messages call those of `origin`."""
    given = None if references is None else _read_references(references)
    if not (present := list(records)):
        raise DataError(origin, "holds no rows", "one object with id, reference and prediction a line is needed")
    recognised = recognise(present, origin, columns)
    if recognised.what:
        say(f"{origin}: {recognised.what}")
    rows: dict[str, Prediction] = {}
    for number, record in enumerate(recognised.records, start=1):
        where = f"{origin}: row {number}"
        if given is not None:
            found = given.get(str(record.get("id")))
            record = {**record, "reference": None, "references": found}
            if found is None:
                id = show_value(record.get("id"))
                raise DataError(where, f"id {id} is not in {references}", "give it a reference")
        row = _to_prediction(record, where)
        if row.id in rows:
            raise DataError(where, f"id {show_value(row.id)} is in two rows", "ids must be unique")
        rows[row.id] = row
    return list(rows.values())


def align(first: Sequence[Prediction], second: Sequence[Prediction], names: tuple[str, str]) -> list[Prediction]:
    """`second` in the order of `first`.

    Raises DataError if their ids, references or groups differ, or if their answers were cut at different caps.
    """
    by_id = {row.id: row for row in second}
    missing = [row.id for row in first if row.id not in by_id] or sorted(by_id.keys() - {row.id for row in first})
    if missing:
        problem = f"{format_count(len(missing), 'id')} in one of them alone, such as {missing[0]!r}"
        fix = "compare predictions of the same rows"
        raise DataError(f"{names[0]} and {names[1]} answer different rows", problem, fix)
    aligned = [by_id[row.id] for row in first]
    for before, after in zip(first, aligned, strict=True):
        if before.all_references != after.all_references:
            row, fix = f"row {before.id!r}", "give both the same"
            if before.id.startswith(BY_ORDER):
                row, fix = before.id, "give both the same order, or ids"
            raise DataError(f"{row} has one reference in {names[0]} and another in {names[1]}", fix=fix)
        if before.group and after.group and before.group != after.group:
            raise DataError(
                f"row {before.id!r} has group {before.group!r} in {names[0]} and {after.group!r} in {names[1]}",
                fix="give both files the same groups, or one of them none",
            )
        # Rows that only their order brings together must be of the same question.
        if before.id.startswith(BY_ORDER) and before.question and after.question and before.question != after.question:
            problem = f"{before.id} has another question in {names[0]} than in {names[1]}"
            raise DataError(problem, fix="give both the same order, or ids")
    _require_comparable_caps(first, aligned, names)
    _require_comparable_caps(aligned, first, names[::-1])
    return aligned


def _require_comparable_caps(first: Sequence[Prediction], second: Sequence[Prediction], names: tuple[str, ...]) -> None:
    """Raise DataError if `first` was cut at fewer tokens than `second` took, as far as their rows tell."""
    cap = max((row.new_tokens or 0 for row in first if row.finish_reason == "length"), default=None)
    longest = max((row.new_tokens or 0 for row in second), default=0)
    if cap is not None and longest > cap:
        problem = "different caps never compare"
        fix = "generate both again with the same cap"
        raise DataError(f"{names[0]} was cut at {cap} new tokens and {names[1]} has answers of {longest}", problem, fix)


def _read_references(path: Path) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for number, record in enumerate(_records(path), start=1):
        where = f"{path}: row {number}"
        text = record.get("reference", record.get("answer"))
        is_filled = isinstance(text, str) and bool(text.strip())
        if record.get("id") is None or not (is_filled or (text is None and _has_list(record))):
            raise DataError(where, "needs id and reference (or answer), both filled")
        if (id := str(record["id"])) in found:
            raise DataError(where, f"id {show_value(id)} is in two rows", "ids must be unique")
        found[id] = _references({**record, "reference": text}, where)
    return found


def _records(path: Path) -> Iterable[Mapping[str, Any]]:
    if not os.path.isfile(path):  # where Path.is_file raises: on a name that is too long
        raise DataError(path, "no such file", "give a JSONL, CSV or Parquet file with id, reference and prediction")
    table = read_table(path)
    if table.wide or table.narrow:
        line = min([*table.wide, *table.narrow.values()])
        raise DataError(path, f"line {line} has another number of cells than its header", "check its quotes")
    return table.rows


def _to_prediction(record: Mapping[str, Any], where: str) -> Prediction:
    values: dict[str, Any] = {}
    if _has_list(record):
        references = _references(record, where)
        record = {**record, "reference": references[0]}
        values["references"] = references if len(references) > 1 else ()
    for name in _TEXTS:
        value = record.get(name)
        # Numbered rows are common, and an id is only compared.
        if name == "id" and isinstance(value, int):
            value = str(value)
        if name not in record:
            present = ", ".join(map(show_column, [*record][:COLUMNS_SHOWN])) or "nothing"
            needed = "name the columns id, reference, prediction and, where rows share a topic, group, or give "
            fix = (needed, Option("_".join((name, "column")), "…"))
            raise DataError(where, f"no {name}; it has {present}", fix)
        values[name] = _text(value, name, where)
    for name in _LABELS:
        values[name] = require_characters(_label(record, name, where), f"{where}: {name}")
    values["new_tokens"] = _count(record, "new_tokens", where)
    values["reference_tokens"] = _count(record, "reference_tokens", where)
    values["reference_nll"] = _number(record, "reference_nll", where)
    reason = record.get("finish_reason")
    values["finish_reason"] = reason if reason in get_args(FinishReason) else None
    return Prediction(**values)


def _text(value: Any, name: str, where: str) -> str:
    fix = "fix the row or drop it"
    if name == "prediction" and not isinstance(value, str):
        raise DataError(where, f"prediction is {show_value(value)}, and must be text, which may be empty", fix)
    if not isinstance(value, str) or (name != "prediction" and not value.strip()):
        raise DataError(where, f"{name} is {show_value(value)}, and must be text that is not empty", fix)
    return require_characters(require_text_size(value, f"{where}: {name}"), f"{where}: {name}")


def _has_list(record: Mapping[str, Any]) -> bool:
    """Whether a row has a list of references; a table has the column in every row, and an empty one says nothing."""
    value = record.get("references")
    return isinstance(value, Iterable) and len(list(value)) > 0


def _references(record: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """All references of a row, each once; `reference` comes first where there is one."""
    given, first = record.get("references"), record.get("reference")
    if isinstance(given, str | Mapping):
        problem = f"references is {show_value(given)}, and must be a list of texts"
        raise DataError(where, problem, "JSONL and Parquet files can hold one")
    texts = [*([] if first is None else [first]), *(given if isinstance(given, Iterable) else ())]
    return tuple(dict.fromkeys(_text(text, "reference", where) for text in texts))


def _label(record: Mapping[str, Any], name: str, where: str) -> str:
    value = record.get(name)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    # An ignored group would silently make intervals too narrow.
    if not isinstance(value, str | int):
        fix = "fix it or leave it out"
        raise DataError(where, f"{name} is {show_value(value)}, neither text nor a whole number", fix)
    return str(value)


def _number(record: Mapping[str, Any], name: str, where: str) -> float | None:
    value = record.get(name)
    if value is None or value == "":
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise DataError(where, f"{name} is {show_value(value)}, not a number", "fix it or leave it out") from None


def _count(record: Mapping[str, Any], name: str, where: str) -> int | None:
    number = _number(record, name, where)
    if number is None or math.isnan(number):  # a gap in a column of floats
        return None
    if number < 0 or not number.is_integer():
        raise DataError(where, f"{name} is {show_value(record[name])}, not a count of tokens", "fix it or leave it out")
    return int(number)

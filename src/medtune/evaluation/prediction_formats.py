"""Records of predictions as other tools write them, brought to the names that medtune reads.

Told by their keys: lm-eval's samples, LLaMA-Factory's generated predictions, columns of any name that options give, and
rows without ids, which count in their order.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medtune.data.table_files import COLUMNS_SHOWN, show_column
from medtune.errors import DataError, Option, show_value

# As lm-eval's tasks call the question in a document, the usual ones.
_QUESTIONS = ("question", "query", "Question", "prompt", "input", "instruction")
# Ids of rows that have none begin so.
BY_ORDER = "row "

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ColumnNames:
    """Which columns of a table hold what, where it has names of its own; None for medtune's."""

    prediction_column: str | None = None
    reference_column: str | None = None
    id_column: str | None = None

    def by_field(self) -> dict[str, str | None]:
        """The names by what medtune calls these columns."""
        return {"prediction": self.prediction_column, "reference": self.reference_column, "id": self.id_column}


OWN_NAMES = ColumnNames()


@dataclass(frozen=True, slots=True)
class Recognised:
    """Records with medtune's names, and in words what was recognised; empty where nothing was."""

    records: Sequence[Record]
    what: str = ""


def recognise(records: Sequence[Record], origin: object, columns: ColumnNames) -> Recognised:
    """`records` with `id`, `prediction` and `reference` or `references`. Raises DataError, naming the row."""
    if columns != OWN_NAMES:
        found = Recognised([*_renamed(records, origin, columns)], _chosen(columns))
    elif all("doc" in record and ("resps" in record or "filtered_resps" in record) for record in records):
        found = _lm_eval(records, origin)
    elif all("predict" in record and "label" in record for record in records):
        kept = [{"prediction": row["predict"], "reference": row["label"], **_id_of(row)} for row in records]
        found = Recognised(kept, "LLaMA-Factory's predictions: label as reference, predict as prediction")
    else:
        found = Recognised(records)
    listed = [
        {**row, "references": row["reference"], "reference": None} if _is_list(row) else row for row in found.records
    ]
    several = "several references a row" if any(map(_is_list, found.records)) else ""
    ordered = ""
    if not any("id" in row for row in listed):
        listed = [{"id": f"{BY_ORDER}{number}", **row} for number, row in enumerate(listed, start=1)]
        ordered = "no ids, so rows count in their order"
    return Recognised(listed, "; ".join(filter(None, (found.what, several, ordered))))


def _is_list(record: Record) -> bool:
    given = record.get("reference")
    return isinstance(given, Iterable) and not isinstance(given, str | Mapping) and record.get("references") is None


def _id_of(record: Record) -> Record:
    return {"id": record["id"]} if "id" in record else {}


def _chosen(columns: ColumnNames) -> str:
    return ", ".join(f"{show_column(name)} as {key}" for key, name in columns.by_field().items() if name)


def _renamed(records: Sequence[Record], origin: object, columns: ColumnNames) -> Iterator[Record]:
    for number, record in enumerate(records, start=1):
        renamed = dict(record)
        for field, column in columns.by_field().items():
            if column is None:
                continue
            if column not in record:
                present = ", ".join(map(show_column, [*record][:COLUMNS_SHOWN])) or "nothing"
                problem = f"no {show_column(column)}; it has {present}"
                raise DataError(
                    f"{origin}: row {number}", problem, ("name another with ", Option("_".join((field, "column")), "…"))
                )
            renamed[field] = record[column]
            if field == "reference":
                renamed.pop("references", None)
        yield renamed


def _lm_eval(records: Sequence[Record], origin: object) -> Recognised:
    """Samples that lm-eval logs: a row a document, and as many times as the task has filters."""
    filters = {str(record.get("filter")) for record in records}
    answers = (
        "resps" if len(filters) > 1 or not all("filtered_resps" in record for record in records) else "filtered_resps"
    )
    rows: dict[str, Record] = {}
    for number, record in enumerate(records, start=1):
        where = f"{origin}: row {number}"
        doc, target = record["doc"], record.get("target")
        question = (
            next((doc[name] for name in _QUESTIONS if isinstance(doc.get(name), str)), "")
            if isinstance(doc, dict)
            else ""
        )
        row = {
            **({"id": record["doc_id"]} if "doc_id" in record else _id_of(record)),
            "question": question,
            "prediction": _answer(record.get(answers), where),
            "reference": str(target) if isinstance(target, int | float) else target,
        }
        key = str(row.get("id", number))
        if len(filters) > 1 and key in rows:
            continue
        # Without filters a document that comes twice is for the reader to refuse.
        rows[key if key not in rows else f"{key} {number}"] = row
    what = f"lm-eval's samples: target as reference, {answers} as prediction, doc_id as id"
    if len(filters) > 1:
        what += (
            f"; each document once, of its {len(filters)} filters ({', '.join(sorted(map(show_column, filters)))}) none"
        )
    return Recognised([*rows.values()], what)


def _answer(value: Any, where: str) -> Any:
    """The first answer in lm-eval's lists of answers."""
    while isinstance(value, list | tuple) and value:
        if len(value) > 1 and not isinstance(value[0], str):
            problem = "likelihoods of choices, and no answer in words"
            raise DataError(where, problem, "log samples of a task that generates (output_type: generate_until)")
        value = value[0]
    if value is None or isinstance(value, list | tuple):
        raise DataError(where, f"its answer is {show_value(value)}, and must be text", "log the samples again")
    return value

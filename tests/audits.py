"""Rows with something to find in them, and their audit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medtune.config.schema import Config, parse_config
from medtune.data.audit import RowLengths, audit_rows
from medtune.data.audit_record import Audit, Truncation
from medtune.data.cleaning import normalize_answer
from medtune.data.near_duplicates import SHINGLE_WORDS
from medtune.data.preparation import Prepared, prepare_data

TRUNCATION = Truncation(max_length=30, policy="cut", rows=32, cut=5, dropped=0, no_room=1, tokens=1000, tokens_lost=123)


def shingles(answer: str) -> set[tuple[str, ...]]:
    """Every run of five words of a normalised answer; all of it where it is shorter."""
    tokens = answer.split(" ")
    return {tuple(tokens[i : i + SHINGLE_WORDS]) for i in range(max(1, len(tokens) - SHINGLE_WORDS + 1))}


def jaccard(first: str, second: str) -> float:
    """Jaccard similarity of two answers: the share of their shingles that both have."""
    one, other = shingles(normalize_answer(first)), shingles(normalize_answer(second))
    return len(one & other) / len(one | other)


def configure(source: Path, **data: Any) -> Config:
    values = {
        "model": {"base": "owner/model"},
        "data": {"source": str(source), **data},
        "training": {"max_length": 30},
        "generation": {"max_new_tokens": 20},
    }
    return parse_config(values, origin="test")


def write(path: Path) -> Path:
    """Forty rows on twenty topics: three questions with two answers, four equal answers, and one row to drop."""
    rows: list[dict[str, str]] = []
    for number in range(20):
        for kind in ("causes", "symptoms"):
            rows.append(
                {
                    "qtype": kind, "Question": f"{kind} of {number} ?", "Answer": f"Nobody knows the {kind} {number}.",
                    "focus": f"Topic {number}", "document_id": f"d{number}", "source": "NIH" if number < 5 else "CDC",
                }
            )  # fmt: skip
    rows += [{**rows[n], "Answer": f"It has another answer {n}."} for n in (0, 4, 9)]
    rows += [{**rows[n], "Question": f"Else {n} ?", "Answer": "Rest and wait and see."} for n in (1, 2, 3, 4)]
    rows += [{**rows[0], "Answer": "Too short."}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def invented_lengths(prepared: Prepared) -> RowLengths:
    rows = range(len(prepared.rows))
    return RowLengths(
        tokenizer="owner/model",
        row_is="prompt, answer and end token",
        questions=[7 for _ in rows],
        answers=[n + 1 for n in rows],
        rows=[n + 8 for n in rows],
        truncation=TRUNCATION,
    )


def audit_of(path: Path, **data: Any) -> Audit:
    """The audit of the rows in `path`, with invented lengths."""
    config = configure(path, **data)
    prepared = prepare_data(config)
    return audit_rows(prepared, invented_lengths(prepared), config)

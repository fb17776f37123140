"""Rows of every kind that cleaning, groups and ids tell apart, as files, and what the stream makes of them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medtune.config.schema import Config, parse_config
from medtune.data.large.preparation import Streamed, prepare_streamed
from medtune.data.large.training_part import TrainingPart
from medtune.data.large.writing import Tables
from medtune.data.preparation import prepare_data
from medtune.errors import DataError
from medtune.records import QAPair, Split

WORDS = [f"word{number}" for number in range(250)]
TEMPLATE = "This condition is inherited in a pattern in which both copies of the gene have changes in every cell."


def varied_rows(count: int = 400, seed: int = 1, **more: str) -> list[dict[str, Any]]:
    """Rows that share questions, topics and answers, nearly share answers, repeat others, or are dropped."""
    draw = random.Random(seed)

    def text(words: int) -> str:
        return " ".join(draw.choices(WORDS, k=words))

    shared = [text(40) for _ in range(count // 8)]
    rows: list[dict[str, Any]] = []
    for number in range(count):
        answer = text(draw.randint(1, 60)) if draw.random() < 0.5 else draw.choice(shared)
        if draw.random() < 0.2:
            answer = answer.replace(draw.choice(answer.split()), "changed", 1)
        question = f"What causes disease {draw.randint(0, count)} ?" if draw.random() < 0.5 else f"{text(6)}? ?"
        rows.append({"Question": question, "Answer": "" if number % 50 == 7 else answer, "qtype": draw.choice("abc")})
    rows += [{"Question": f"Is topic {number} inherited?", "Answer": TEMPLATE, "qtype": "d"} for number in range(55)]
    rows += [
        {
            "Question": "<p>What is it?</p>",
            "Answer": "An <b>illness</b> of the nerves in the hand.<|eot_id|>",
            "qtype": "a",
        },
        {"Question": "Gout ?", "Answer": "Gout ?", "qtype": "a"},
        {"Question": "?", "Answer": "An answer to a question without any words.", "qtype": "a"},
    ]
    rows += draw.sample(rows, 25)
    draw.shuffle(rows)
    return [{**row, **more} for row in rows]


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]], group: int = 100) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=group)
    return path


def configure(source: Path, *, seed: int = 0, **data: Any) -> Config:
    values = {"seed": seed, "model": {"base": "owner/model"}, "data": {"source": str(source), "stream": True, **data}}
    return parse_config(values, origin="test")


@contextmanager
def streamed(config: Config, folder: Path, workers: int = 1) -> Iterator[Streamed]:
    source = Path(config.data.source)
    files = sorted(source.iterdir()) if source.is_dir() else [source]
    with prepare_streamed(config, files, folder / "work", workers) as found:
        yield found


def all_rows(found: Streamed) -> list[QAPair]:
    return Tables(found.found, found.groups).pairs(range(found.found.rows))


def split_of(found: Streamed, config: Config) -> Split:
    tables = Tables(found.found, found.groups)
    train = [row for table in TrainingPart(found, tables, config, None).tables() for row in table.to_pylist()]
    dealt = found.dealt
    return Split(
        tuple(QAPair(**{**row, "references": tuple(row.get("references") or ())}) for row in train),
        tuple(tables.pairs(dealt.validation)),
        tuple(tables.pairs(dealt.test)),
    )


def require_same(config: Config, folder: Path, workers: int = 1) -> Streamed:
    """The stream must give what memory gives: rows with their groups and templates, splits, and counts."""
    wanted = prepare_data(config)
    with streamed(config, folder, workers) as found:
        assert all_rows(found) == wanted.rows
        assert split_of(found, config) == wanted.split
        assert {key: found.report[key] for key in ("source", "split", "rows")} == {
            key: wanted.report[key] for key in ("source", "split", "rows")
        }
        assert found.report.get("warnings") == wanted.report.get("warnings")
    assert not any((folder / "work").iterdir())
    return found


def refused(path: Path, tmp_path: Path, workers: int = 1, **data: Any) -> str:
    with pytest.raises(DataError) as caught, streamed(configure(path, **data), tmp_path, workers):
        pass
    assert not list((tmp_path / "work").iterdir())
    (line,) = str(caught.value).splitlines()
    return line.removeprefix(f"{path}: ")

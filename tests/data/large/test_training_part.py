"""Training rows of a stream: in seeded order while they are few, sampled, and without those that are too long."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from large_rows import configure, streamed, write_jsonl
from medtune.config.schema import Config, parse_config
from medtune.data.large import training_part
from medtune.data.large.training_part import TrainingPart
from medtune.data.large.writing import Tables
from medtune.data.prompts import PromptRenderer
from medtune.data.splits import seeded_order
from tiny_model import build_tokenizer

ROWS = [
    {"key": f"k{number:02}", "Question": f"What is topic {number}?", "Answer": f"An answer about the topic {number}."}
    for number in range(40)
]


def ids_of(part: TrainingPart) -> list[str]:
    return [id for table in part.tables() for id in table["id"].to_pylist()]


def part_of(config: Config, folder: Path, renderer: PromptRenderer | None = None) -> tuple[TrainingPart, list[str]]:
    with streamed(config, folder) as found:
        part = TrainingPart(found, Tables(found.found, found.groups), config, renderer)
        return part, ids_of(part)


def source(folder: Path, rows: list[dict[str, str]] = ROWS, **data: Any) -> Config:
    return configure(write_jsonl(folder / "rows.jsonl", rows), columns={"id": "key"}, **data)


def test_few_rows_come_in_seeded_order_and_many_in_that_of_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = source(tmp_path)
    part, ids = part_of(config, tmp_path)
    assert part.count == len(ids) == 32
    assert ids == sorted(ids, key=lambda id: seeded_order(0, id)) != sorted(ids)
    monkeypatch.setattr(training_part, "ORDERED_ROWS", 31)
    assert part_of(config, tmp_path)[1] == sorted(ids)


def test_a_sample_is_the_first_rows_in_seeded_order_however_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, ids = part_of(source(tmp_path), tmp_path)
    part, sample = part_of(source(tmp_path, train_limit=10), tmp_path)
    assert part.count == 10
    assert sample == ids[:10]
    monkeypatch.setattr(training_part, "ORDERED_ROWS", 9)
    assert part_of(source(tmp_path, train_limit=10), tmp_path)[1] == sorted(sample)


def test_rows_whose_prompts_leave_no_room_are_left_out_and_kept_aside(tmp_path: Path) -> None:
    rows = [
        {**row, "Question": f"What is {'x ' * 80}{number}?"} if number % 5 == 0 else row
        for number, row in enumerate(ROWS)
    ]
    config = source(tmp_path, rows)
    config = parse_config({**config.model_dump(), "training": {"max_length": 64}}, origin="test")
    renderer = PromptRenderer(build_tokenizer(), "")
    _, everything = part_of(config, tmp_path)
    part, ids = part_of(config, tmp_path, renderer)
    long = {row["key"] for row in rows[::5]}
    assert ids == [id for id in everything if id not in long]
    assert {pair.id for pair in part.unfit} == long & set(everything)
    assert part.unfit

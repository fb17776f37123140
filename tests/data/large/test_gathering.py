"""What all pieces hold together: what was left out, and ids that two rows have."""

from __future__ import annotations

import json
from pathlib import Path

from large_rows import configure, refused, streamed, varied_rows, write_jsonl
from medtune.data.preparation import prepare_data


def test_dropped_rows_are_those_of_memory(tmp_path: Path) -> None:
    from medtune.data.large.gathering import write_dropped

    config = configure(write_jsonl(tmp_path / "rows.jsonl", varied_rows()))
    wanted = prepare_data(config).dropped
    with streamed(config, tmp_path) as found:
        write_dropped(found.found, tmp_path / "dropped")
    lines = [json.loads(line) for line in (tmp_path / "dropped").read_text(encoding="utf-8").splitlines()]
    assert sorted((line["rule"], line["id"], line["raw_question"], line["raw_answer"]) for line in lines) == sorted(
        (rule, pair.id, pair.raw_question, pair.raw_answer) for rule, pair in wanted
    )


def test_an_id_of_two_rows_is_refused(tmp_path: Path) -> None:
    rows = [{**row, "key": f"k{number % 150}"} for number, row in enumerate(varied_rows(100)) if row["Answer"]]
    line = refused(write_jsonl(tmp_path / "rows.jsonl", rows), tmp_path, columns={"id": "key"})
    assert line.endswith(" is in two rows; ids must be unique, or leave data.columns.id out")

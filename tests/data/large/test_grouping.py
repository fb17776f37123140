"""Rows that belong together, from hashes on disk."""

from __future__ import annotations

from pathlib import Path

from large_rows import all_rows, configure, streamed, varied_rows, write_jsonl
from medtune.data.splits import TEMPLATE_TOPICS


def test_answers_beyond_the_limit_are_joined_where_they_are_equal_alone(tmp_path: Path) -> None:
    config = configure(write_jsonl(tmp_path / "rows.jsonl", varied_rows()), near_duplicate_limit=100)
    with streamed(config, tmp_path) as found:
        searched = found.groups.searched
        assert (searched.answers, searched.pairs) == (0, 0)
        (line,) = found.report["notes"][-1:]
    assert line == (
        f"near-duplicates are not looked for among {searched.not_searched:,} different answers; equal ones alone join; "
        f"--set data.near_duplicate_limit={searched.not_searched} looks for them"
    )


def grouped(tmp_path: Path, *rows: dict[str, str]) -> list[set[int]]:
    """Places of the rows of each group, those of a row by itself left out."""
    config = configure(write_jsonl(tmp_path / "rows.jsonl", list(rows)))
    with streamed(config, tmp_path) as found:
        names = [row.group for row in all_rows(found)]
    groups = [{place for place, name in enumerate(names) if name == one} for one in dict.fromkeys(names)]
    return [group for group in groups if len(group) > 1]


def row(number: int, **given: str) -> dict[str, str]:
    words = " ".join(f"{word}{number}" for word in ("swelling", "of", "joints", "and", "fever", "at", "night"))
    return {"Question": f"What is number {number}?", "Answer": f"{words}.", "document_id": "", "focus": "", **given}


def test_rows_are_joined_through_others_by_whatever_they_share(tmp_path: Path) -> None:
    shared = "A text that two rows have as their answer, word for word."
    rows = [
        row(0, Question="Why me?"), row(1), row(2, Question="why  ME", document_id="d"), row(3, document_id="d"),
        row(4), row(5, focus="Gout"), row(6, Answer=shared, focus=" gout"), row(7, Answer=shared),
    ]  # fmt: skip
    assert grouped(tmp_path, *rows) == [{0, 2, 3}, {5, 6, 7}]


def test_a_wording_that_serves_many_topics_joins_no_rows(tmp_path: Path) -> None:
    few = "This illness is inherited from both of the parents.", TEMPLATE_TOPICS - 1
    many = "There is no cure yet, but doctors can ease most of its symptoms.", TEMPLATE_TOPICS
    texts = [(text, place) for text, topics in (few, many) for place in range(topics)]
    rows = [row(number, Answer=text, document_id=f"{text} {place}") for number, (text, place) in enumerate(texts)]
    assert grouped(tmp_path, *rows) == [set(range(TEMPLATE_TOPICS - 1))]

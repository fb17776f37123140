"""Near-duplicates in parts: the pairs that memory finds, and work that stays in bounds among very many alike."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from large_rows import configure, streamed, write_jsonl
from medtune.data.large import similar
from medtune.data.near_duplicates import find_similar_answers


def alike(count: int, changes: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows whose answers share a beginning of rare words, and change others at random: some are similar, some not."""
    draw = random.Random(seed)
    begin = [f"begin{number}" for number in range(12)]
    rows = []
    for number in range(count):
        words = [*begin, *(f"end{place}" for place in range(40))]
        for place in draw.sample(range(12, 52), draw.randint(0, changes)):
            words[place] = f"own{number}x{place}"
        rows.append({"Question": f"question {number} of its own", "Answer": " ".join(words), "qtype": "a"})
    return rows


def of_phrases(count: int) -> list[dict[str, Any]]:
    """Rows whose answers are each eight of twelve phrases, in one order."""
    draw = random.Random(0)
    phrases = [" ".join(f"phrase{number}word{place}" for place in range(12)) for number in range(12)]
    chosen = [sorted(draw.sample(range(12), 8)) for _ in range(count)]
    return [
        {"Question": f"question {row} of its own", "Answer": " ".join(phrases[number] for number in own), "qtype": "a"}
        for row, own in enumerate(chosen)
    ]


def clusters_of(found: Any) -> set[frozenset[int]]:
    names = found.groups.clusters.of(np.arange(found.found.rows))
    return {frozenset(np.flatnonzero(names == name).tolist()) for name in set(names.tolist())}


def wanted_clusters(rows: list[dict[str, Any]]) -> set[frozenset[int]]:
    edges = find_similar_answers([row["Answer"] for row in rows])
    label = list(range(len(rows)))
    of_answer: dict[int, int] = {}
    links = [(row, of_answer.setdefault(answer, row)) for row, answer in enumerate(edges.answer_of)]
    links += [(of_answer[first], of_answer[second]) for first, second in edges.edges]
    for first, second in links:
        old, new = label[first], label[second]
        label = [new if name == old else name for name in label]
    return {frozenset(row for row, name in enumerate(label) if name == own) for own in set(label)}


@pytest.mark.parametrize("seed", range(4))
def test_clusters_are_those_of_all_pairs(tmp_path: Path, seed: int) -> None:
    rows = alike(150, changes=9, seed=seed)
    with streamed(configure(write_jsonl(tmp_path / "rows.jsonl", rows)), tmp_path) as found:
        assert clusters_of(found) == wanted_clusters(rows)
        assert found.groups.searched.not_compared == 0


def test_very_many_alike_take_bounded_work_and_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similar, "MOST_ALIKE", 10)
    monkeypatch.setattr(similar, "ROUNDS", 3)
    # Few changes: all are similar to nearly all, and one round joins them.
    rows = alike(200, changes=1)
    with streamed(configure(write_jsonl(tmp_path / "rows.jsonl", rows)), tmp_path) as found:
        assert clusters_of(found) == wanted_clusters(rows)
        assert found.groups.searched.pairs < 2000
        assert found.groups.searched.not_compared == 0
    # Hardly any answer is similar to another, though each shares even its rarest phrases with many.
    rows = of_phrases(200)
    with streamed(configure(write_jsonl(tmp_path / "rows.jsonl", rows)), tmp_path) as found:
        searched = found.groups.searched
        assert 100 < searched.not_compared <= searched.answers
        assert searched.pairs < 200 * 40 * 3
        wanted = wanted_clusters(rows)
        for cluster in clusters_of(found):
            assert any(cluster <= whole for whole in wanted)
        line = found.report["notes"][-1]
    assert line == (
        f"{searched.not_compared:,} of {searched.answers:,} answers have a phrase in common with very many others and "
        "were not compared with all of these"
    )

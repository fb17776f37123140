"""Several sources: by weight in training, never in the test, each with its own columns, counts and fingerprint."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from medtune.config.recipes import load_recipe
from medtune.config.schema import Config, parse_config
from medtune.data.mixture import with_own_ids
from medtune.data.preparation import Prepared, prepare_data
from medtune.errors import ConfigError


def write(path: Path, name: str, count: int, question: str = "Question", answer: str = "Answer") -> Path:
    rows = [
        {question: f"{name} {n} ?", answer: f"{name} has answer {n} of many, {n * 7919}.", "id": n}
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return write(tmp_path / "a.jsonl", "Gout", 40), write(tmp_path / "b.jsonl", "Mumps", 60, "prompt", "completion")


def prepare(sources: list[dict[str, Any]], **data: Any) -> Prepared:
    return prepare_data(configure(sources, **data))


def configure(sources: list[dict[str, Any]], **data: Any) -> Config:
    return parse_config({"model": {"base": "owner/model"}, "data": {"sources": sources, **data}}, origin="test")


def share(prepared: Prepared, part: str) -> Counter[str]:
    return Counter(row.question.split()[0] for row in getattr(prepared.split, part))


def test_weights_are_those_of_training_rows_alone(files: tuple[Path, Path]) -> None:
    first, second = ({"source": str(path)} for path in files)
    plain = prepare([first, second])
    mixed = prepare([first | {"weight": 2.5}, second | {"weight": 0.5}])
    for part in ("validation", "test"):
        assert share(mixed, part) == share(plain, part)
    gout, mumps = share(plain, "train")["Gout"], share(plain, "train")["Mumps"]
    assert share(mixed, "train") == {"Gout": 2 * gout + round(gout / 2), "Mumps": round(mumps / 2)}
    assert mixed.split == prepare([first | {"weight": 2.5}, second | {"weight": 0.5}]).split


def test_each_source_has_its_counts_and_its_provenance(files: tuple[Path, Path]) -> None:
    prepared = prepare([{"source": str(files[0]), "weight": 2, "name": "gout"}, {"source": str(files[1])}])
    counts = prepared.report["sources"]
    assert list(counts) == ["gout", str(files[1])]
    assert (counts["gout"]["rows_kept"], counts["gout"]["weight"]) == (40, 2.0)
    assert sum(counts["gout"][part] for part in ("train", "validation", "test")) == 40
    assert counts["gout"]["trained_on"] == 2 * counts["gout"]["train"]
    assert prepared.provenance["source"] == f"gout + {files[1]}"
    assert [(one["name"], one["weight"]) for one in prepared.provenance["sources"]] == [
        ("gout", 2.0),
        (str(files[1]), 1.0),
    ]
    assert (
        len({one["fingerprint"] for one in prepared.provenance["sources"]} | {prepared.provenance["fingerprint"]}) == 3
    )


def test_ids_stay_apart_between_sources_and_between_copies(files: tuple[Path, Path]) -> None:
    columns = {"id": "id"}
    prepared = prepare(
        [{"source": str(files[0]), "weight": 2}, {"source": str(files[1])}], columns=columns
    )  # both files number their rows from 0
    assert len({row.id for row in prepared.rows}) == 100
    assert f"{files[1]}/0" in {row.id for row in prepared.rows}
    train = with_own_ids(prepared.split).train
    assert len({row.id for row in train}) == len(train) > 80
    assert any(row.id.endswith("+2") for row in train)


def test_a_source_has_columns_of_its_own(files: tuple[Path, Path]) -> None:
    other = {"question": "prompt", "answer": "completion", "id": "id"}
    prepared = prepare([{"source": str(files[0])}, {"source": str(files[1]), "columns": other}])
    assert {"0", "59"} <= {row.id for row in prepared.rows}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"source": "a.csv", "sources": [{"source": "b.csv"}]}, "data.source and data.sources are both set; give one"),
        ({"sources": [{"source": "a.csv"}], "revision": "v1"}, "with data.sources, revision, hub_config and hub_split"),
        ({"sources": [{"source": "a.csv"}, {"source": "a.csv"}]}, "two of data.sources are called a.csv"),
        ({"sources": [{"source": "a.csv", "weight": 0}]}, "data.sources.0.weight: input should be greater than 0"),
        ({"sources": [{"name": "a"}]}, "data.sources.0.source: missing"),
        ({"sources": []}, "data.source: missing"),
    ],
)
def test_sources_that_contradict_each_other(data: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({"model": {"base": "owner/model"}, "data": data}, origin="test")
    assert expected in str(caught.value)


def test_sources_take_the_place_of_an_inherited_source(tmp_path: Path) -> None:
    recipe = tmp_path / "mixed.yaml"
    recipe.write_text("extends: demo\ndata:\n  sources: [{source: a.csv}, {source: b.csv, weight: 0.5}]\n", "utf-8")
    config = load_recipe(recipe)
    assert [source.source for source in config.data.all_sources] == ["a.csv", "b.csv"]
    assert config.data.source == "a.csv"
    single = load_recipe(recipe, ["data.source=c.csv"])
    assert [source.source for source in single.data.all_sources] == ["c.csv"]

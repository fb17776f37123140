from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medtune.errors import DataError
from medtune.evaluation.prediction_files import align, read_predictions
from medtune.records import Prediction

MakePrediction = Callable[..., Prediction]

ROW: dict[str, Any] = {"id": "a", "reference": "Gout.", "prediction": "Flu."}


def write_jsonl(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "predictions.jsonl"


def refusal(path: Path, references: Path | None = None) -> str:
    with pytest.raises(DataError) as error:
        read_predictions(path, references)
    message = str(error.value)
    assert len(message.splitlines()) == 1
    assert message.startswith(str(path)) or (references is not None and message.startswith(str(references)))
    return message


# What is read -------------------------------------------------------------------------------------------------------


def test_three_fields_are_enough(file: Path) -> None:
    assert read_predictions(write_jsonl(file, ROW)) == [Prediction("a", "", "Gout.", "Flu.")]


def test_medtunes_own_predictions_come_back_whole(file: Path, make_prediction: MakePrediction) -> None:
    rows = [
        make_prediction(id="a", group="topic", qtype="causes", reference_nll=2.5),
        make_prediction("", id="b", finish_reason="length", reference_nll=math.inf),
        make_prediction("日本\u2028\n", id="c", new_tokens=None, finish_reason=None),
    ]
    assert read_predictions(write_jsonl(file, *map(asdict, rows))) == rows


def test_rows_keep_the_files_order_and_ids_may_be_numbers(file: Path) -> None:
    rows = read_predictions(write_jsonl(file, *(ROW | {"id": number} for number in (10, 9, 1))))
    assert [row.id for row in rows] == ["10", "9", "1"]


def test_groups_may_be_numbers_and_none(file: Path) -> None:
    """A group that went unheeded would make intervals too narrow."""
    labels = [{"group": 7, "qtype": 1}, {"group": None}, {"group": "x"}, {"group": math.nan}]
    rows = read_predictions(write_jsonl(file, *(ROW | {"id": i} | label for i, label in enumerate(labels))))
    assert [row.group for row in rows] == ["7", "", "x", ""]
    assert rows[0].qtype == "1"


def test_an_answer_may_be_empty(file: Path) -> None:
    assert read_predictions(write_jsonl(file, ROW | {"prediction": ""}))[0].prediction == ""


def test_an_unknown_finish_reason_is_none(file: Path) -> None:
    rows = read_predictions(write_jsonl(file, ROW | {"finish_reason": "eos"}))
    assert rows[0].finish_reason is None


@pytest.mark.parametrize(("value", "count"), [(7, 7), (7.0, 7), ("7", 7), ("7.0", 7), ("", None), (None, None)])
def test_counts_as_tables_write_them(file: Path, value: object, count: int | None) -> None:
    row = read_predictions(write_jsonl(file, ROW | {"new_tokens": value, "reference_tokens": value}))[0]
    assert (row.new_tokens, row.reference_tokens) == (count, count)
    assert isinstance(row.new_tokens, int | None)


def test_csv_and_its_gaps(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    path.write_text(
        'id,reference,prediction,group,new_tokens,reference_nll\n1,"Gout, acute.",NA,g,12,3.5\n2,Flu.,,,,\n',
        encoding="utf-8",
    )
    assert read_predictions(path) == [
        Prediction("1", "", "Gout, acute.", "NA", new_tokens=12, reference_nll=3.5, group="g"),
        Prediction("2", "", "Flu.", ""),
    ]


def test_parquet_and_its_gaps(tmp_path: Path) -> None:
    path = tmp_path / "predictions.parquet"
    columns = {"id": [1, 2], "reference": ["Gout.", "Flu."], "prediction": ["a", "b"], "new_tokens": [3.0, None]}
    pq.write_table(pa.table(columns), path)
    assert read_predictions(path) == [
        Prediction("1", "", "Gout.", "a", new_tokens=3),
        Prediction("2", "", "Flu.", "b"),
    ]


def test_gzip(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(ROW).encode()))
    assert len(read_predictions(path)) == 1


@pytest.mark.parametrize(
    ("fields", "references"),
    [
        ({"references": ["Gout.", "Podagra."]}, ("Gout.", "Podagra.")),
        ({"reference": "Ache.", "references": ["Gout.", "Podagra."]}, ("Ache.", "Gout.", "Podagra.")),
        ({"reference": "Podagra.", "references": ["Gout.", "Podagra."]}, ("Podagra.", "Gout.")),
        ({"references": ["Gout."]}, ()),
        ({"reference": "Gout.", "references": []}, ()),
        ({"reference": "Gout.", "references": None}, ()),
    ],
)
def test_several_references(file: Path, fields: dict[str, Any], references: tuple[str, ...]) -> None:
    (row,) = read_predictions(write_jsonl(file, {"id": "a", "prediction": "Flu.", **fields}))
    assert row.references == references
    assert row.all_references == (references or ("Gout.",))
    assert row.reference == row.all_references[0]
    assert read_predictions(write_jsonl(file, asdict(row))) == [row]


def test_several_references_in_a_file_of_their_own(file: Path, tmp_path: Path) -> None:
    rows = [{"id": 1, "prediction": "a", "references": ["what it had"]}, {"id": 2, "prediction": "b"}]
    given = tmp_path / "references.parquet"
    pq.write_table(pa.table({"id": [1, 2], "references": [["Gout.", "Podagra."], ["Flu."]]}), given)
    found = read_predictions(write_jsonl(file, *rows), given)
    assert [row.all_references for row in found] == [("Gout.", "Podagra."), ("Flu.",)]


# What is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["id", "reference", "prediction"])
def test_a_missing_field(file: Path, name: str) -> None:
    lacking = {key: value for key, value in (ROW | {"id": "b"}).items() if key != name}
    message = refusal(write_jsonl(file, ROW, lacking))
    assert f"row 2: no {name}; it has {', '.join(lacking)}; name the columns id, reference, prediction" in message


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"id": ""}, "row 1: id is ''"),
        ({"id": None}, "row 1: id is None"),
        ({"id": 1.5}, "row 1: id is 1.5"),
        ({"reference": " \n"}, "row 1: reference is ' \\n', and must be text that is not empty"),
        ({"reference": None}, "row 1: reference is None"),
        (
            {"prediction": None},
            "row 1: prediction is None, and must be text, which may be empty; fix ",
        ),
        ({"prediction": ["Flu."]}, "row 1: prediction is ['Flu.']"),
        ({"references": "Gout."}, "row 1: references is 'Gout.', and must be a list of texts"),
        ({"references": ["Gout.", " "]}, "row 1: reference is ' ', and must be text that is not empty"),
        ({"references": [None]}, "row 1: reference is None"),
        ({"references": {"a": "b"}}, "row 1: references is {'a': 'b'}, and must be a list of texts"),
        ({"reference": "\ud83d"}, "reference holds half of a surrogate pair ('\\ud83d'), which is no character"),
        ({"prediction": "a\udc00b"}, "prediction holds half of a surrogate pair ('\\udc00'), which is no character"),
        ({"group": "\ud83d"}, "group holds half of a surrogate pair"),
        ({"id": "\ud83d"}, "id holds half of a surrogate pair"),
        ({"group": ["x"]}, "row 1: group is ['x'], neither text nor a whole number"),
        ({"new_tokens": "many"}, "row 1: new_tokens is 'many', not a number; fix it or leave it out"),
        ({"new_tokens": [7]}, "row 1: new_tokens is [7], not a number"),
        ({"new_tokens": 7.5}, "row 1: new_tokens is 7.5, not a count of tokens"),
        ({"new_tokens": -1}, "row 1: new_tokens is -1, not a count of tokens"),
        ({"reference_tokens": math.inf}, "row 1: reference_tokens is inf, not a count of tokens"),
        ({"reference_nll": "low"}, "row 1: reference_nll is 'low', not a number"),
    ],
)
def test_values_of_the_wrong_kind(file: Path, changes: dict[str, Any], expected: str) -> None:
    assert expected in refusal(write_jsonl(file, ROW | changes))


def test_repeated_ids(file: Path) -> None:
    assert "row 3: id '1' is in two rows; ids must be unique" in refusal(
        write_jsonl(file, ROW | {"id": 1}, ROW, ROW | {"id": "1"})
    )


def test_files_that_hold_nothing_or_are_none(tmp_path: Path) -> None:
    assert "holds no rows" in refusal(write_jsonl(tmp_path / "empty.jsonl"))
    assert "no such file" in refusal(tmp_path / "absent.jsonl")
    assert "no such file" in refusal(tmp_path)
    assert "no such file" in refusal(tmp_path / f"{'x' * 300}.jsonl")
    odd = tmp_path / "predictions.txt"
    odd.write_text("x", encoding="utf-8")
    assert "unknown kind of file" in refusal(odd)
    damaged = tmp_path / "damaged.jsonl"
    damaged.write_text('{"id": ', encoding="utf-8")
    assert "line 1 is not JSON" in refusal(damaged)


# References of their own --------------------------------------------------------------------------------------------


def test_references_are_joined_by_id(file: Path, tmp_path: Path) -> None:
    answers = write_jsonl(file, {"id": 2, "prediction": "b"}, {"id": "1", "prediction": "a"})
    for name in ("reference", "answer"):
        rows = [{"id": number, name: f"Reference {number}."} for number in (1, 2, 3)]
        joined = read_predictions(answers, write_jsonl(tmp_path / f"{name}.jsonl", *rows))
        assert [(row.id, row.reference, row.prediction) for row in joined] == [
            ("2", "Reference 2.", "b"),
            ("1", "Reference 1.", "a"),
        ]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"id": "b", "reference": "Gout."}], "row 1: id 'a' is not in "),
        ([{"id": "a", "reference": " "}], "row 1: needs id and reference (or answer), both filled"),
        ([{"id": "a"}], "row 1: needs id and reference"),
        ([{"reference": "Gout."}], "row 1: needs id and reference"),
        (
            [{"id": "a", "reference": "Gout."}, {"id": "a", "reference": "Flu."}],
            "row 2: id 'a' is in two rows; ids must be unique",
        ),
    ],
)
def test_references_that_do_not_fit(file: Path, tmp_path: Path, rows: list[dict[str, Any]], expected: str) -> None:
    answers = write_jsonl(file, {"id": "a", "prediction": "b"})
    assert expected in refusal(answers, write_jsonl(tmp_path / "references.jsonl", *rows))


# Two files side by side ---------------------------------------------------------------------------------------------

NAMES = ("first.jsonl", "second.jsonl")


def refusal_of(first: list[Prediction], second: list[Prediction]) -> str:
    with pytest.raises(DataError) as error:
        align(first, second, NAMES)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def test_the_second_takes_the_firsts_order(make_prediction: MakePrediction) -> None:
    first = [make_prediction(id=id) for id in "abc"]
    second = [make_prediction("Another.", id=id) for id in "cab"]
    assert [row.id for row in align(first, second, NAMES)] == ["a", "b", "c"]
    assert {row.prediction for row in align(first, second, NAMES)} == {"Another."}


def test_different_ids(make_prediction: MakePrediction) -> None:
    two, three = ([make_prediction(id=id) for id in ids] for ids in ("ab", "abc"))
    for sides in ((two, three), (three, two)):
        message = refusal_of(*sides)
        assert "first.jsonl and second.jsonl answer different rows: 1 id in one of them alone, such as 'c'" in message


def test_different_references(make_prediction: MakePrediction) -> None:
    message = refusal_of([make_prediction(reference="Gout.")], [make_prediction(reference="Flu.")])
    assert "row 'row-0' has one reference in first.jsonl and another in second.jsonl; give both the same" in message


def test_different_further_references(make_prediction: MakePrediction) -> None:
    sides = [[make_prediction(reference="Gout.", references=("Gout.", other))] for other in ("Podagra.", "Flu.")]
    assert "has one reference in first.jsonl and another in second.jsonl" in refusal_of(*sides)


def test_different_groups_and_groups_that_one_file_lacks(make_prediction: MakePrediction) -> None:
    message = refusal_of([make_prediction(group="x")], [make_prediction(group="y")])
    assert "row 'row-0' has group 'x' in first.jsonl and 'y' in second.jsonl" in message
    assert len(align([make_prediction(group="x")], [make_prediction()], NAMES)) == 1
    assert len(align([make_prediction()], [make_prediction(group="x")], NAMES)) == 1


def test_different_caps(make_prediction: MakePrediction) -> None:
    def cut_at(cap: int) -> list[Prediction]:
        return [make_prediction(id="a", new_tokens=cap, finish_reason="length"), make_prediction(id="b", new_tokens=90)]

    def stopped_at(count: int | None) -> list[Prediction]:
        return [make_prediction(id=id, new_tokens=count) for id in "ab"]

    wrong = "was cut at 128 new tokens and {} has answers of 256: different caps never compare; generate both again"
    assert f"first.jsonl {wrong.format('second.jsonl')}" in refusal_of(cut_at(128), cut_at(256))
    assert f"second.jsonl {wrong.format('first.jsonl')}" in refusal_of(cut_at(256), cut_at(128))
    # An answer that stopped by itself beyond the other's cap was not under that cap.
    assert f"first.jsonl {wrong.format('second.jsonl')}" in refusal_of(cut_at(128), stopped_at(256))
    for like in (cut_at(128), stopped_at(128), stopped_at(None)):
        assert len(align(cut_at(128), like, NAMES)) == len(align(like, cut_at(128), NAMES)) == 2
    assert len(align(stopped_at(300), stopped_at(10), NAMES)) == 2

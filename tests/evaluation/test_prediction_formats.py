"""Predictions as other tools write them: told by their keys, said in a line, read to the same rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import medtune
from medtune.errors import DataError
from medtune.evaluation.prediction_files import align, predictions_of, read_predictions
from medtune.evaluation.prediction_formats import ColumnNames
from medtune.records import Prediction

ANSWERS = ["Gout hurts.", "Flu tires.", "Acne itches."]
REFERENCES = ["Gout is painful.", "Flu is tiring.", "Acne is itchy."]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def lm_eval_row(number: int, **changes: Any) -> dict[str, Any]:
    answer = ANSWERS[number]
    return {
        "doc_id": number,
        "doc": {"question": f"What is number {number} ?", "answer": REFERENCES[number]},
        "target": REFERENCES[number],
        "arguments": {"gen_args_0": {"arg_0": "…"}},
        "resps": [[answer]],
        "filtered_resps": [answer],
        "filter": "none",
        **changes,
    }


def texts(rows: list[Prediction]) -> list[tuple[str, str, str]]:
    return [(row.id, row.reference, row.prediction) for row in rows]


EXPECTED = [(str(i), reference, answer) for i, (reference, answer) in enumerate(zip(REFERENCES, ANSWERS, strict=True))]


def test_samples_of_lm_eval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "samples_medquad.jsonl", [lm_eval_row(number) for number in range(3)])
    rows = read_predictions(path)
    assert texts(rows) == EXPECTED
    assert rows[1].question == "What is number 1 ?"
    said = f"{path}: lm-eval's samples: target as reference, filtered_resps as prediction, doc_id as id"
    assert capsys.readouterr().err.strip() == said


def test_samples_of_several_filters_count_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A task with two filters logs every document twice.

    https://github.com/EleutherAI/lm-evaluation-harness/issues/1687
    """
    rows = [
        lm_eval_row(number, filter=name, filtered_resps=["[invalid]"])
        for name in ("strict-match", "flexible-extract")
        for number in range(3)
    ]
    assert texts(read_predictions(write(tmp_path / "samples.jsonl", rows))) == EXPECTED
    assert "resps as prediction, doc_id as id; each document once, of its 2 filters" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "reference"),
    [
        ({"filtered_resps": "Gout hurts.", "resps": ["Gout hurts."]}, ("Gout is painful.",)),
        ({"target": ["Gout is painful.", "Podagra."]}, ("Gout is painful.", "Podagra.")),
        ({"target": 3}, ("3",)),
    ],
)
def test_variants_of_lm_eval(tmp_path: Path, changes: dict[str, Any], reference: tuple[str, ...]) -> None:
    """Flat answers are lmms-eval's: https://github.com/EvolvingLMMs-Lab/lmms-eval/pull/1103"""
    (row,) = read_predictions(write(tmp_path / "samples.jsonl", [lm_eval_row(0, **changes)]))
    assert (row.prediction, row.all_references) == ("Gout hurts.", reference)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"filtered_resps": [[-1.5, False], [-0.2, True]]},
            "row 1: likelihoods of choices, and no answer in words; log",
        ),
        ({"filtered_resps": []}, "row 1: its answer is [], and must be text"),
        ({"target": None}, "row 1: reference is None"),
    ],
)
def test_samples_without_an_answer_in_words(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError) as caught:
        read_predictions(write(tmp_path / "samples.jsonl", [lm_eval_row(0, **changes)]))
    assert problem in str(caught.value)


def test_a_document_that_comes_twice_of_one_filter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="id '0' is in two rows"):
        read_predictions(write(tmp_path / "samples.jsonl", [lm_eval_row(0), lm_eval_row(0)]))


def test_predictions_of_llama_factory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Some templates begin both texts with a line break: https://github.com/hiyouga/LlamaFactory/issues/4385"""
    rows = [
        {"prompt": "<|user|>…", "predict": f"\n{answer}", "label": f"\n{reference}"}
        for answer, reference in zip(ANSWERS, REFERENCES, strict=True)
    ]
    path = write(tmp_path / "generated_predictions.jsonl", rows)
    found = read_predictions(path)
    assert [(row.id, row.reference.strip()) for row in found] == [(f"row {i}", REFERENCES[i - 1]) for i in (1, 2, 3)]
    said = (
        "LLaMA-Factory's predictions: label as reference, predict as prediction; no ids, so rows count in their order"
    )
    assert capsys.readouterr().err.strip() == f"{path}: {said}"
    assert [row.prediction for row in align(found, found, ("a", "b"))] == [f"\n{answer}" for answer in ANSWERS]


def test_columns_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "answers.csv"
    table = pd.DataFrame({"nr": ["0", "1", "2"], "gold": REFERENCES, "model output": ANSWERS})
    table.to_csv(path, index=False)
    columns = ColumnNames("model output", "gold", "nr")
    assert texts(read_predictions(path, columns=columns)) == EXPECTED
    assert capsys.readouterr().err.strip() == f"{path}: model output as prediction, gold as reference, nr as id"
    scores = medtune.score(
        path, prediction_column="model output", reference_column="gold", id_column="nr", metrics=["rougeL"]
    )
    assert scores["rougeL"].n == 3
    with pytest.raises(DataError) as caught:
        medtune.score(path, prediction_column="output")
    assert str(caught.value) == (
        f"{path}: row 1: no output; it has nr, gold, model output; name another with prediction_column …"
    )


def test_rows_without_ids_are_compared_in_their_order(tmp_path: Path) -> None:
    rows = [
        {"question": f"Why {i} ?", "reference": reference, "prediction": answer}
        for i, (reference, answer) in enumerate(zip(REFERENCES, ANSWERS, strict=True))
    ]
    before = read_predictions(write(tmp_path / "a.jsonl", rows))
    assert [row.prediction for row in align(before, before, ("a", "b"))] == ANSWERS
    swapped = read_predictions(write(tmp_path / "b.jsonl", [rows[1], rows[0], rows[2]]))
    with pytest.raises(
        DataError, match=r"^row 1 has one reference in a and another in b; give both the same order, or ids$"
    ):
        align(before, swapped, ("a", "b"))
    same = [{**row, "reference": "Yes."} for row in rows]
    asked, turned = (predictions_of(given, "x") for given in (same, same[::-1]))
    with pytest.raises(DataError, match="row 1 has another question in a than in b; give both the same order, or ids"):
        align(asked, turned, ("a", "b"))


def test_ids_in_some_rows_are_not_made_up(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="row 2: no id; it has reference, prediction"):
        predictions_of([{"id": 1, "reference": "a", "prediction": "b"}, {"reference": "a", "prediction": "b"}], "x")


@pytest.mark.parametrize("several", [["Gout.", "Podagra."], ("Gout.", "Podagra."), np.array(["Gout.", "Podagra."])])
def test_several_references_under_the_one_name(several: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = predictions_of([{"id": 1, "reference": several, "prediction": "Gout."}], "x")
    assert row.references == ("Gout.", "Podagra.")
    assert capsys.readouterr().err.strip() == "x: several references a row"

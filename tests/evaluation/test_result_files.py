from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medtune.config.recipes import load_recipe
from medtune.errors import RunDirError
from medtune.evaluation.measurement import measure_rows, score_rows
from medtune.evaluation.result_files import (
    read_comparison,
    read_measured,
    without_question,
    write_comparison,
    write_system,
)
from medtune.evaluation.significance import Subsamples
from medtune.records import (
    Comparison,
    ComparisonRow,
    Control,
    GroupSizes,
    Lengths,
    ModelName,
    Prediction,
    ReferenceLengths,
    Score,
    Stratum,
    StratumMetric,
)
from medtune.run_dir.directory import RunDir
from older_runs import forget_checksums

METRICS = ("bleu", "rougeL", "rougeLsum", "exact_match", "perplexity")
MODELS: tuple[ModelName, ...] = ("baseline", "tuned")

MakePredictions = Callable[..., list[Prediction]]


@pytest.fixture
def run(tmp_path: Path, make_predictions: MakePredictions) -> RunDir:
    """A run whose two models are evaluated."""
    run = RunDir.create(tmp_path / "run", load_recipe("demo", ["evaluation.controls=[few_shot]"]), resume=False)
    for model, nll in (("baseline", 8.0), ("tuned", math.inf)):
        predictions = make_predictions(reference_nll=nll) * 2
        measured = measure_rows(predictions, METRICS, encoder=None, caps="max_new_tokens:8")
        scores = score_rows(measured, Subsamples.draw([""] * 8, splits=200, seed=0))
        write_system(run, model, predictions, measured, scores)  # type: ignore[arg-type]
        run.complete(model, {})  # type: ignore[arg-type]
    return run


def compared(metric: str, difference: float, **changes: object) -> ComparisonRow:
    fields = {
        "metric": metric,
        "baseline": 0.5,
        "tuned": 0.5 + difference,
        "difference": difference,
        "ci95": (difference - 0.1, difference + 0.1),
        "p_value": 0.01,
        "p_adjusted": 0.02,
        "verdict": "better",
        "rows_needed": 12,
        "n": 4,
        "groups": 3,
        "signature": "one-way",
    }
    return ComparisonRow(**(fields | changes))  # type: ignore[arg-type]


def comparison_of(run: RunDir, **changes: object) -> Comparison:
    undefined = {"ci95": None, "p_value": None, "p_adjusted": None, "verdict": "undefined", "rows_needed": None}
    measured = StratumMetric(0.1, 0.2, 0.1, (0.05, 0.15))
    lone = StratumMetric(0.1, 0.2, 0.1, None)
    fields = {
        "rows": (compared("bleu", 0.25), compared("perplexity", -math.inf, **undefined)),
        "scores": {model: run.read_scores(model) for model in MODELS},
        "lengths": {
            "baseline": Lengths(10.0, 9.5, 1.25, 0.5, 0.5),
            "tuned": Lengths(None, None, 0.75, None, None),
            "few_shot": Lengths(8.0, 8.0, 1.0, 1.0, 0.0),
        },
        "references": ReferenceLengths(8, 6.5, 6.0, 0.25),
        "controls": (
            Control(
                "few_shot",
                "with three examples",
                {"bleu": Score(0.5, 4, "one-way", 3, (0.4, 0.6), details={"precisions": [0.5, 0.25]})},
                (compared("bleu", 0.125),),
            ),
            Control("random_answer", "at random", {}, ()),
        ),
        "strata": (
            Stratum("source", "CDC", 3, 2, {"bleu": measured, "rougeL": lone}),
            Stratum("leak", "leaks", 1, 1, {}),
        ),
        "leaking_rows": {"same_topic": 1},
    }
    return Comparison(**(fields | changes))  # type: ignore[arg-type]


def finish(run: RunDir, comparison: Comparison) -> None:
    write_comparison(run, comparison, "# Title\n")
    run.complete("compare", {})


def test_statistics_come_back_as_they_were(run: RunDir, make_predictions: MakePredictions) -> None:
    expected = measure_rows(make_predictions(reference_nll=8.0) * 2, METRICS, encoder=None, caps="max_new_tokens:8")
    found = read_measured(run, "baseline")
    assert [rows.metric for rows in found] == [rows.metric for rows in expected]
    for one, other in zip(found, expected, strict=True):
        assert (one.metric.columns, one.signature, one.metric.table) == (
            other.metric.columns,
            other.signature,
            other.metric.table,
        )
        assert (one.rows == other.rows).all()
        assert one.value() == run.read_scores("baseline")[one.name].value
        assert dict(one.details) == json.loads(json.dumps(dict(other.details)))
    infinite = {rows.name: rows for rows in read_measured(run, "tuned")}["perplexity"]
    assert np.isinf(infinite.rows[:, 0]).all()


def test_rouge_l_and_rouge_lsum_are_not_mistaken_for_each_other(run: RunDir) -> None:
    found = {rows.name: rows.rows.shape[1] for rows in read_measured(run, "baseline")}
    assert found["rougeL"] == found["rougeLsum"] == found["compat_rougeL"] == 2
    assert (found["bleu"], found["compat_bleu"]) == (10, 10)


def test_scores_come_back_as_they_were(run: RunDir) -> None:
    scores = run.read_scores("baseline")
    assert scores["bleu"].ci95 is not None
    assert isinstance(scores["bleu"].ci95, tuple)
    assert run.read_scores("tuned")["perplexity"].value == math.inf
    assert run.read_scores("tuned")["perplexity"].ci95 is None


@pytest.mark.parametrize(
    "changes", [{}, {"references": None, "controls": (), "strata": (), "leaking_rows": {}, "rows": ()}]
)
def test_a_comparison_comes_back_equal(run: RunDir, changes: dict[str, object]) -> None:
    comparison = comparison_of(run, **changes)
    finish(run, comparison)
    assert read_comparison(run) == comparison
    assert run.comparison_text_file.read_text(encoding="utf-8") == "# Title\n"


def test_a_controls_rows_name_it_in_the_baselines_place(run: RunDir) -> None:
    finish(run, comparison_of(run))
    written = json.loads(run.controls_file.read_text(encoding="utf-8"))
    assert list(written) == ["few_shot", "random_answer"]
    row = written["few_shot"]["against_tuned"][0]
    assert (row["metric"], row["control"], row["tuned"]) == ("bleu", 0.5, 0.625)
    assert "baseline" not in row
    assert written["few_shot"]["scores"]["bleu"]["ci95"] == [0.4, 0.6]


def test_rows_of_the_written_comparison(run: RunDir) -> None:
    finish(run, comparison_of(run))
    row = json.loads(run.comparison_file.read_text(encoding="utf-8"))[0]
    assert {"metric", "baseline", "tuned", "difference", "n", "signature"} <= set(row)
    assert (row["ci95"], row["p_value"], row["p_adjusted"], row["verdict"]) == ([0.15, 0.35], 0.01, 0.02, "better")
    assert list(json.loads(run.lengths_file.read_text(encoding="utf-8"))) == [
        "references",
        "baseline",
        "tuned",
        "few_shot",
    ]
    strata = json.loads(run.strata_file.read_text(encoding="utf-8"))
    assert strata["leaking_rows"] == {"same_topic": 1}
    assert [stratum["value"] for stratum in strata["strata"]] == ["CDC", "leaks"]


# Damage -------------------------------------------------------------------------------------------------------------


def refusal(read: Callable[[], object]) -> str:
    with pytest.raises(RunDirError) as error:
        read()
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def test_damaged_statistics(run: RunDir) -> None:
    forget_checksums(run)
    path = run.row_statistics_file("baseline")
    path.write_bytes(b"PAR1 and no more")
    message = refusal(lambda: read_measured(run, "baseline"))
    assert message.startswith(f"{path}: not readable (")
    assert message.endswith("evaluate that model again")


def test_statistics_of_other_rows(run: RunDir, make_predictions: MakePredictions) -> None:
    forget_checksums(run)
    other = measure_rows(make_predictions()[:3], METRICS, encoder=None, caps="")
    scores = run.read_scores("baseline")
    write_system(run, "baseline", make_predictions()[:3], other, scores)
    assert "does not fit the scores beside it (bleu)" in refusal(lambda: read_measured(run, "baseline"))
    write_system(run, "baseline", make_predictions(), [], scores)
    assert "does not fit the scores beside it (bleu)" in refusal(lambda: read_measured(run, "baseline"))


def test_what_is_not_there_yet(run: RunDir) -> None:
    go_on = f"run `medtune run {run.config_file} --run-dir {run.path} --resume`, which does all that is left"
    assert f"the compare stage is not complete; {go_on}" in refusal(lambda: read_comparison(run))
    run.row_statistics_file("baseline").unlink()
    assert "the baseline stage is not complete" in refusal(lambda: read_measured(run, "baseline"))


def test_a_damaged_comparison(run: RunDir) -> None:
    finish(run, comparison_of(run))
    forget_checksums(run)
    run.comparison_file.write_text("[{", encoding="utf-8")
    assert refusal(lambda: read_comparison(run)).startswith(f"{run.comparison_file}: damaged, not JSON")


@pytest.mark.parametrize("text", ['[{"metric": "bleu"}]', '[{"ci95": null, "extra": 1}]', "7", '["bleu"]'])
def test_a_comparison_of_another_version(run: RunDir, text: str) -> None:
    finish(run, comparison_of(run))
    for file in (run.comparison_file, run.lengths_file, run.strata_file, run.controls_file):
        finish(run, comparison_of(run))
        forget_checksums(run)
        file.write_text(text, encoding="utf-8")
        message = refusal(lambda: read_comparison(run))
        assert message.startswith(f"{run.comparison_file}: it or a file beside it is damaged, or from another version")
        assert message.endswith(f"delete it and run `medtune compare {run.path}`")


def test_the_largest_group_has_its_question_from_the_predictions_and_not_from_files_that_are_published(
    run: RunDir, make_predictions: MakePredictions
) -> None:
    rows = make_predictions(group="asthma")
    run.write_predictions("baseline", [replace(row, question=f"Which {number} ?") for number, row in enumerate(rows)])
    run.complete("baseline", {})
    finish(run, comparison_of(run, groups=GroupSizes(1, 1.0, "asthma", 1.0, "Which 0 ?")))
    assert "Which" not in run.strata_file.read_text(encoding="utf-8")
    found = read_comparison(run)
    assert found.groups == GroupSizes(1, 1.0, "asthma", 1.0, "Which 0 ?")
    assert without_question(found).groups == GroupSizes(1, 1.0, "asthma", 1.0)

"""The compare stage of a run whose answers are there: what it puts side by side, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from medtune.errors import DataError, RunDirError
from medtune.evaluation.comparison_sentences import reading_of
from medtune.evaluation.control_answers import DESCRIPTIONS
from medtune.evaluation.result_files import read_comparison
from medtune.pipeline.compare import compare_runs, run_names
from medtune.pipeline.run import perform
from medtune.run_dir.directory import RunDir
from report_runs import audit, compared_run


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return compared_run(tmp_path / "run", settings=["evaluation.resamples=500"])


def with_record(run: RunDir, **changes: object) -> RunDir:
    """The run with another record of its controls stage."""
    records = {**run.stage_records, "controls": {**run.stage_records["controls"], **changes}}
    run.update_provenance(stages=records)
    return RunDir(run.path)


def test_it_compares_what_was_measured(run: RunDir) -> None:
    before = read_comparison(run)
    perform("compare", with_record(run, questions_with_fewer_examples=0), again=True)
    after = read_comparison(RunDir(run.path))
    assert [row.metric for row in after.rows] == [row.metric for row in before.rows]
    assert [row.difference for row in after.rows] == [row.difference for row in before.rows]
    assert after.scores == before.scores
    assert list(after.lengths) == ["baseline", "tuned", "random_answer"]
    (control,) = after.controls
    assert control.name == "random_answer"
    assert "perplexity" not in {row.metric for row in control.against_tuned}, "no model wrote it"
    assert run.comparison_text_file.read_text(encoding="utf-8").startswith("# medtune:demo before and after tuning\n")


def test_a_control_is_told_with_its_worked_examples(run: RunDir) -> None:
    """Of few-shot the record is that of runs which knew no other control with examples."""
    config = run.config_file.read_text(encoding="utf-8").replace("- random_answer", "- few_shot\n  - tuned_retrieval")
    run.config_file.write_text(config.replace("retrieved: 3", "retrieved: 5"), encoding="utf-8")
    run = RunDir(run.path)
    for name in ("few_shot", "tuned_retrieval"):
        folder = run.predictions_file(name).parent
        shutil.copytree(run.predictions_file("random_answer").parent, folder)
    run.complete("tuned", {"tuned_retrieval": {"questions_with_fewer_examples": 2, "batch_size": 1}})
    run.complete("controls", {"questions_with_fewer_examples": 0})
    perform("compare", RunDir(run.path))
    told = [control.description for control in read_comparison(RunDir(run.path)).controls]
    assert told == [
        DESCRIPTIONS["few_shot"],
        f"{DESCRIPTIONS['tuned_retrieval']} (k = 5; 2 of 12 questions left room for fewer)",
    ]
    run = RunDir(run.path)
    run.complete("tuned", {"tuned_retrieval": {}})
    with pytest.raises(
        RunDirError, match=r"stages\.tuned\.tuned_retrieval: questions_with_fewer_examples: field required"
    ):
        perform("compare", RunDir(run.path), again=True)


def test_rows_that_leak_are_counted_and_a_stratum(run: RunDir) -> None:
    leaking = {"question_exact": ["row-0", "row-3", "not-tested"], "focus": []}
    run.write_json(run.audit_file, {**audit(12), "leaking_test_rows": leaking})
    run.complete("data", {})
    for stage in ("baseline", "train", "tuned", "controls"):
        run.complete(stage, {})
    perform("compare", RunDir(run.path))
    comparison = read_comparison(RunDir(run.path))
    assert comparison.leaking_rows == {"question_exact": 2}
    assert 2 in {stratum.n for stratum in comparison.strata if stratum.kind != "question type"}


def test_answers_to_other_rows_are_refused(run: RunDir) -> None:
    lines = run.predictions_file("tuned").read_text(encoding="utf-8").splitlines()
    run.predictions_file("tuned").write_text("\n".join(lines[1:]) + "\n", encoding="utf-8")
    run.complete("tuned", {})
    with pytest.raises(DataError, match="tuned"):
        perform("compare", RunDir(run.path))


def test_an_answer_to_no_test_row_is_named(run: RunDir) -> None:
    for system in ("baseline", "tuned", "random_answer"):
        file = run.predictions_file(system)
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        rows[0]["id"] = "elsewhere"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for stage in ("baseline", "tuned", "controls"):
        run.complete(stage, {})
    with pytest.raises(RunDirError, match="elsewhere is no row of the test split; evaluate that model again"):
        perform("compare", RunDir(run.path))


def test_two_runs_are_compared_by_their_tuned_answers(run: RunDir, tmp_path: Path) -> None:
    other = RunDir(Path(shutil.copytree(run.path, tmp_path / "again")))
    same = compare_runs(run, other)
    assert same.names == ("run", "again")
    assert {row.difference for row in same.rows} == {0.0}
    assert {row.baseline for row in same.rows} == {score.value for score in run.read_scores("tuned").values()}
    assert reading_of(same).sentences[1].startswith("On 12 questions in 6 groups again, against run, is ")


def test_two_runs_of_other_rows_are_refused_in_one_line(run: RunDir, tmp_path: Path) -> None:
    other = RunDir(Path(shutil.copytree(run.path, tmp_path / "again")))
    lines = other.predictions_file("tuned").read_text(encoding="utf-8").splitlines()
    other.predictions_file("tuned").write_text("\n".join([*lines[1:], lines[0]]) + "\n", encoding="utf-8")
    other.complete("tuned", {})
    with pytest.raises(DataError) as caught:
        compare_runs(run, other)
    assert str(caught.value).startswith("run row row-0 and again row row-1 are compared, but their id")
    assert "\n" not in str(caught.value)


def test_a_run_without_tuned_answers_is_compared_with_none(run: RunDir, tmp_path: Path) -> None:
    other = RunDir(Path(shutil.copytree(run.path, tmp_path / "again")))
    other.predictions_file("tuned").unlink()
    with pytest.raises(RunDirError, match="tuned"):
        compare_runs(run, RunDir(other.path))


@pytest.mark.parametrize(
    ("first", "second", "names"),
    [
        ("runs/a", "runs/b", ("a", "b")),
        ("one/demo", "two/demo", ("one/demo", "two/demo")),
        ("v1.5", "v1.6", ("v1.5", "v1.6")),
    ],
)
def test_runs_are_called_by_their_folders(first: str, second: str, names: tuple[str, str]) -> None:
    assert run_names(Path(first), Path(second)) == names

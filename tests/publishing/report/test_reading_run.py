"""What the page is made of is checked as it is read, and what is wrong is named."""

from __future__ import annotations

import re

import pytest

from medtune.errors import RunDirError
from medtune.publishing.report import read_report, write_report
from medtune.run_dir.directory import RunDir


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("human/scores.json", "{}", "damaged, reading: field required"),
        ("human/scores.json", "[", "damaged, not JSON"),
        ("training/history.jsonl", '{"step": "x"}\n', "damaged, step: input should be a valid integer"),
        ("data/audit.json", "{}", "damaged, cleaning: field required"),
    ],
)
def test_what_cannot_be_read_is_named(own_run: RunDir, name: str, content: str, problem: str) -> None:
    path = own_run.path / name
    own_run.write_text(path, content)
    with pytest.raises(RunDirError) as caught:
        write_report(own_run)
    assert str(caught.value).startswith(f"{path}: {problem}")
    assert not own_run.report_file.exists()


def test_a_run_that_is_not_compared_names_the_command(own_run: RunDir) -> None:
    own_run.comparison_file.unlink()
    with pytest.raises(RunDirError, match=re.escape(f"run `medtune compare {own_run.path}` first")):
        write_report(own_run)


def test_values_of_single_answers_are_in_the_order_of_the_predictions(own_run: RunDir) -> None:
    found = read_report(own_run)
    for model in ("baseline", "tuned"):
        assert list(found.row_scores[model]) == ["rougeL"]
        values = found.row_scores[model]["rougeL"]
        assert len(values) == len(found.predictions[model]) == 12
        assert sum(values) / 12 == pytest.approx(own_run.read_scores(model)["rougeL"].value)
    assert [step.validation_loss for step in found.history if step.validation_loss] == [0.5, 0.25]
    assert found.merge == ()
    assert found.human is None


def test_predictions_of_other_rows_are_refused(own_run: RunDir) -> None:
    for model in ("baseline", "tuned"):
        own_run.write_predictions(model, own_run.read_predictions(model)[:-1])
        own_run.complete(model, {})
    own_run.complete("compare", {})
    with pytest.raises(RunDirError, match="does not fit the predictions beside it; evaluate that model again"):
        read_report(own_run)

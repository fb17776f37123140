"""Runs, checkpoints and merged folders that an older version wrote are opened, resumed, reported, merged and asked.

`fixtures/runs_0.1.0.tar.xz` was written by version 0.1.0 as of commit 71d2ebe: a random LLaMA of 70 kB in `base`, a
`complete` run of 12 steps on the invented rows of `tiny_model.write_rows`, its merge in `merged`, and a run that was
`stopped` by SIGTERM at step 6. The recipe is beside them.
"""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from medtune.config.recipes import load_recipe
from medtune.errors import RunDirError
from medtune.evaluation.measurement import TextSettings, measure_rows, score_rows
from medtune.evaluation.result_files import read_comparison, write_system
from medtune.evaluation.significance import Subsamples
from medtune.inference.chat import Chat
from medtune.pipeline.compare import compare_runs
from medtune.pipeline.merge import merge_stage
from medtune.pipeline.run import perform, run
from medtune.records import SystemName
from medtune.run_dir.directory import RunDir
from medtune.run_dir.layout import STAGE_NAMES
from medtune.run_dir.lock import release_locks
from medtune.training.checkpoints.sealing import last_checkpoint

ARCHIVE = Path(__file__).resolve().parents[1] / "fixtures" / "runs_0.1.0.tar.xz"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("older")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def older(unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the older version's folder, which is the working directory: its recipe names `./base`."""
    folder = shutil.copytree(unpacked, tmp_path / "older")
    monkeypatch.chdir(folder)
    yield folder
    release_locks()


def test_a_complete_run_is_complete_still(older: Path, capfd: pytest.CaptureFixture[str]) -> None:
    finished = run(load_recipe("recipe.yaml"), Path("complete"), resume=True)
    assert capfd.readouterr().err.splitlines() == [f"── {name}: complete, skipped" for name in STAGE_NAMES]
    comparison = read_comparison(finished)
    assert [row.metric for row in comparison.rows if row.table == "standard"] == [
        "bleu", "rougeL", "perplexity", "bits_per_byte",
    ]  # fmt: skip
    assert len(finished.read_history()) == 12 + 3
    assert len(finished.read_predictions("tuned")) == comparison.rows[0].n


def test_its_comparison_is_made_again_with_the_same_values_under_the_test_of_today(older: Path) -> None:
    finished = RunDir.open(Path("complete"))
    before, lengths = read_comparison(finished), finished.lengths_file.read_bytes()
    finished.comparison_file.unlink()
    perform("compare", finished)
    assert finished.lengths_file.read_bytes() == lengths
    after = read_comparison(finished)
    for old, new in zip(before.rows, after.rows, strict=True):
        assert (old.metric, old.baseline, old.tuned, old.n, old.groups, old.signature) == (
            new.metric, new.baseline, new.tuned, new.n, new.groups, new.signature
        )  # fmt: skip
    assert [row.verdict == "descriptive" for row in after.rows] == [
        row.metric not in finished.config.evaluation.primary for row in after.rows
    ]
    assert [control.name for control in before.controls] == [control.name for control in after.controls]
    assert after.groups is not None
    assert before.groups is None
    perform("report", finished)
    assert b"<html" in finished.report_file.read_bytes()
    assert finished.is_complete("report")


def with_thoughts(run: RunDir, system: SystemName, texts: TextSettings, **record: object) -> None:
    """Predictions of `run` with an empty thought before each answer, scored as version 0.1.0 did or as this one does.

    The older version read whole texts, under the signatures that this one has for answers alone.
    """
    rows = [replace(row, prediction=f"<think></think>{row.reference}") for row in run.read_predictions(system)]
    caps = "max_new_tokens:12|decoding:greedy"
    measured = [
        replace(one, signature=one.signature.replace("|answers:raw", ""))
        for one in measure_rows(
            rows,
            run.config.evaluation.metrics,
            encoder=None,
            caps=caps,
            precision="model:none|dtype:float32",
            texts=texts,
        )
    ]
    drawn = Subsamples.draw([row.group for row in rows], splits=500, seed=run.config.seed)
    write_system(run, system, rows, measured, score_rows(measured, drawn))
    run.complete(system, {**run.stage_records[system], **record}, outdates=False)


def test_a_baseline_that_was_scored_with_thoughts_is_scored_again_before_it_is_compared(
    older: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Both models write the references after an empty thought: only the older scores would differ."""
    finished = RunDir.open(Path("complete"))
    with_thoughts(finished, "baseline", TextSettings(answers="raw"))
    with_thoughts(finished, "tuned", TextSettings(), answers="separated")
    whole, answers = finished.read_scores("baseline"), finished.read_scores("tuned")
    assert whole["bleu"].value < 99 < answers["bleu"].value
    assert whole["bleu"].signature == answers["bleu"].signature
    finished.comparison_file.unlink()
    capfd.readouterr()
    perform("compare", finished)
    said = capfd.readouterr().err
    assert "complete: an older version scored text that is not the answer; baseline is scored again without it" in said
    assert finished.read_scores("baseline")["bleu"].value == answers["bleu"].value
    again = {row.metric: row for row in read_comparison(finished).rows}
    assert (again["bleu"].difference, again["rougeL"].difference) == (0.0, 0.0)
    assert all(finished.is_complete(name) for name in STAGE_NAMES if name != "report")
    # Once is enough.
    perform("compare", finished, again=True)
    assert "scored again" not in capfd.readouterr().err


def test_runs_are_not_compared_while_one_of_them_was_scored_with_thoughts(older: Path) -> None:
    shutil.copytree("complete", "newer")
    with_thoughts(RunDir.open(Path("complete")), "tuned", TextSettings(answers="raw"))
    with_thoughts(RunDir.open(Path("newer")), "tuned", TextSettings(), answers="separated")
    first, second = RunDir.open(Path("complete")), RunDir.open(Path("newer"))
    for one, other in ((first, second), (second, first)):
        with pytest.raises(
            RunDirError, match=r"^complete: an older version scored its answers together with "
        ) as refused:
            compare_runs(one, other)
        assert str(refused.value).endswith("; delete comparison.json there and run `medtune compare complete`")
    first.comparison_file.unlink()
    perform("compare", first)
    assert {row.difference for row in compare_runs(first, second).rows} == {0.0}


def test_a_stopped_training_goes_on_and_ends_as_the_other_did(older: Path) -> None:
    stopped = RunDir.open(Path("stopped"))
    assert last_checkpoint(stopped).name == "checkpoint-6"
    finished = run(load_recipe("recipe.yaml"), Path("stopped"), resume=True)
    ours, theirs = (
        [entry["loss"] for entry in one.read_history() if "loss" in entry]
        for one in (finished, RunDir.open(Path("complete")))
    )
    # On the processor that wrote them they are equal; another rounds otherwise.
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert all(finished.is_complete(name) for name in STAGE_NAMES)


def test_one_made_with_the_default_of_then_goes_on_with_its_own_controls(
    older: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The recipe names none, and the default has gained some since."""
    then = ["few_shot", "random_answer", "nearest_question", "cut_reference"]
    recipe = Path("recipe.yaml").read_text(encoding="utf-8")
    Path("recipe.yaml").write_text(recipe.replace('"controls": ["random_answer"], ', ""), encoding="utf-8")
    pinned = Path("complete/config.yaml")
    listed = "".join(f"  - {name}\n" for name in then)
    pinned.write_text(pinned.read_text(encoding="utf-8").replace("  - random_answer\n", listed), encoding="utf-8")
    finished = run(load_recipe("recipe.yaml"), Path("complete"), resume=True)
    assert "complete: goes on with the controls that it was made with (few_shot, " in capfd.readouterr().err
    assert [control.name for control in read_comparison(finished).controls] == then
    assert all(finished.is_complete(name) for name in STAGE_NAMES)


def test_its_merge_is_known_and_made_again(older: Path, capfd: pytest.CaptureFixture[str]) -> None:
    finished = RunDir.open(Path("complete"))
    record = merge_stage(finished, Path("merged"), dtype="float32", measure=False)
    assert "merged: holds this merge already" in capfd.readouterr().err
    again = merge_stage(finished, Path("merged-again"), dtype="float32", measure=False)
    assert again.files["model.safetensors"] == record.files["model.safetensors"]


def test_both_answer_alike(older: Path) -> None:
    answers = []
    for target in ("complete", "merged"):
        said = io.StringIO()
        answers.append(Chat.open(target).answer("What causes gout ?", use_adapter=True, on_text=said.write))
        assert said.getvalue() == answers[-1]
    assert answers[0] == answers[1]

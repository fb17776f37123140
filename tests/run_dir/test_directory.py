from __future__ import annotations

from pathlib import Path
from typing import get_args

import pyarrow as pa
import pytest

from medtune.config.recipes import load_recipe
from medtune.config.recipes.yaml_text import dump_config
from medtune.config.schema import Config
from medtune.errors import RunDirError
from medtune.pipeline.run import perform
from medtune.records import ControlName, ModelName, Prediction, QAPair, Score, Split, SystemName
from medtune.run_dir.directory import RunDir
from medtune.run_dir.layout import STAGE_NAMES, StageName, controls_of
from medtune.storage.writing import replacing_folder
from older_runs import forget_checksums

ODD_TEXT = 'two\nlines, "quotes", naïve — \u2028 \x85 \x1f and a 😀'


def contents(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def pair(id: str, **changes: str) -> QAPair:
    return QAPair(**({"id": id, "qtype": "causes", "question": f"Q {id} ?", "answer": ODD_TEXT} | changes))


def prediction(id: str, text: str = "An answer.") -> Prediction:
    return Prediction(id, "What is it ?", "A reference.", text, 3, "stop", 4.25, 5)


def finish(run: RunDir, stage: StageName) -> None:
    """Write a stage's artefacts and record that it ended."""
    if stage == "data":
        run.write_split(Split((pair("a"),), (pair("b"),), (pair("c"),)))
    elif stage == "train":
        with replacing_folder(run.adapter_dir) as folder:
            for name in ("adapter_model.safetensors", "adapter_config.json"):
                (folder / name).write_text("{}", encoding="utf-8")
    elif stage == "compare":
        for path in (run.comparison_file, run.controls_file, run.strata_file, run.lengths_file):
            run.write_json(path, [])
        run.write_text(run.comparison_text_file, "")
    elif stage == "report":
        run.write_text(run.report_file, "")
        run.write_text(run.card_file, "")
    else:
        model: tuple[SystemName, ...] = () if stage == "controls" else (stage,)  # type: ignore[assignment]
        systems: tuple[SystemName, ...] = (*model, *controls_of(stage, get_args(ControlName)))
        for system in systems:
            run.write_predictions(system, [prediction("a")])
            run.write_table(run.row_statistics_file(system), pa.table({"id": ["a"]}))
            run.write_scores(system, {"bleu": Score(1.0, 1, "signature", 1, (0.5, 1.5))})
    run.complete(stage, {"seconds": 1.0})


# Making and opening -------------------------------------------------------------------------------------------------


def test_a_new_run_holds_its_config_and_nothing_else(tmp_path: Path, config: Config) -> None:
    run = RunDir.create(tmp_path / "deep" / "er" / "run", config, resume=False)
    assert contents(run.path) == [".lock", "config.yaml"]
    assert run.config == config
    assert RunDir.open(run.path).config == config


def test_an_empty_folder_will_do(tmp_path: Path, config: Config) -> None:
    assert RunDir.create(tmp_path, config, resume=False).config == config


def test_resume_makes_a_run_where_there_is_none(tmp_path: Path, config: Config) -> None:
    assert RunDir.create(tmp_path / "run", config, resume=True).config == config


def test_a_run_that_is_there_needs_resume(run: RunDir, config: Config) -> None:
    finish(run, "data")
    with pytest.raises(RunDirError, match="not empty; add --resume to continue that run"):
        RunDir.create(run.path, config, resume=False)
    assert RunDir.create(run.path, config, resume=True) == run


def test_resume_refuses_another_config_key_by_key(run: RunDir) -> None:
    finish(run, "data")
    other = load_recipe("demo", ["seed=1", "lora.rank=8"])
    with pytest.raises(RunDirError) as caught:
        RunDir.create(run.path, other, resume=True)
    assert str(caught.value).splitlines() == [
        f"{run.path}: made with another lora.rank: 16 → 8; choose another --run-dir",
        f"{run.path}: made with another seed: 0 → 1; choose another --run-dir",
    ]
    assert run.config.seed == 0


def test_resume_takes_a_change_that_has_no_part_in_what_comes_out(run: RunDir) -> None:
    finish(run, "data")
    changed = load_recipe("demo", ["training.max_gradient_spike=null", "training.keep_checkpoints=5"])
    assert RunDir.create(run.path, changed, resume=True).config == changed
    assert run.is_complete("data")


EARLIER = "evaluation.controls=[few_shot, random_answer, nearest_question, cut_reference]"


def test_a_run_made_before_the_default_gained_controls_goes_on_with_its_own(
    tmp_path: Path, config: Config, capfd: pytest.CaptureFixture[str]
) -> None:
    run = RunDir.create(tmp_path / "run", load_recipe("demo", [EARLIER]), resume=False)
    finish(run, "data")
    before = run.config_file.read_bytes()
    again = RunDir.create(run.path, config, resume=True)
    assert again.config.evaluation.controls == ("few_shot", "random_answer", "nearest_question", "cut_reference")
    assert run.config_file.read_bytes() == before
    assert capfd.readouterr().err.splitlines() == [
        f"{run.path}: goes on with the controls that it was made with (few_shot, random_answer, nearest_question, "
        "cut_reference); the default has more now"
    ]
    # What may change changes all the same.
    changed = load_recipe("demo", ["training.keep_checkpoints=5"])
    again = RunDir.create(run.path, changed, resume=True)
    assert again.config == load_recipe("demo", [EARLIER, "training.keep_checkpoints=5"])
    with pytest.raises(RunDirError, match=r"made with another evaluation\.retrieved: 3 → 2"):
        RunDir.create(run.path, load_recipe("demo", ["evaluation.retrieved=2"]), resume=True)


@pytest.mark.parametrize(
    ("made", "asked"),
    [
        (["evaluation.controls=[random_answer]"], []),
        ([], [EARLIER]),
        ([EARLIER], ["evaluation.controls=[retrieval]"]),
        ([EARLIER], ["evaluation.controls=[few_shot, random_answer, nearest_question, cut_reference, retrieval]"]),
    ],
)
def test_controls_that_somebody_chose_may_not_change(tmp_path: Path, made: list[str], asked: list[str]) -> None:
    run = RunDir.create(tmp_path / "run", load_recipe("demo", made), resume=False)
    finish(run, "data")
    with pytest.raises(RunDirError, match=r"made with another evaluation\.controls: "):
        RunDir.create(run.path, load_recipe("demo", asked), resume=True)


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_that_failed_before_its_first_artefact_starts_again(run: RunDir, resume: bool) -> None:
    run.update_provenance(versions={})
    other = load_recipe("demo", ["seed=1"])
    assert RunDir.create(run.path, other, resume=resume).config == other


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, config: Config, resume: bool) -> None:
    (tmp_path / "thesis.tex").write_text("all of it", encoding="utf-8")
    with pytest.raises(RunDirError, match="not empty"):
        RunDir.create(tmp_path, config, resume=resume)
    assert contents(tmp_path) == ["thesis.tex"]


@pytest.mark.parametrize("resume", [False, True])
def test_a_path_where_no_folder_can_be(tmp_path: Path, config: Config, resume: bool) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("x", encoding="utf-8")
    link.symlink_to(tmp_path / "nowhere")
    for path, reason in [
        (file, "is a file, not a directory"),
        (file / "run", "cannot be made"),
        (link, "cannot be made"),
        (tmp_path / ("x" * 300), "cannot be made"),
    ]:
        with pytest.raises(RunDirError, match=f"{reason}.*; choose another --run-dir"):
            RunDir.create(path, config, resume=resume)
    assert contents(tmp_path) == ["file", "link"]


def test_opening_what_is_no_run(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent", tmp_path / ("x" * 300)):
        with pytest.raises(RunDirError, match="not a medtune run"):
            RunDir.open(path)
    assert contents(tmp_path) == []


# Rows ---------------------------------------------------------------------------------------------------------------


def test_reading_a_split_before_the_data_stage(run: RunDir) -> None:
    with pytest.raises(RunDirError, match="the data stage is not complete; run `medtune data prepare` first"):
        run.read_split("train")


@pytest.mark.parametrize("model", ["baseline", "tuned"])
def test_scores_of_a_model_that_was_not_evaluated(run: RunDir, model: ModelName) -> None:
    problem = (
        f"the {model} stage is not complete; run `medtune run .*/config.yaml --run-dir .* --resume`, which does all"
    )
    with pytest.raises(RunDirError, match=problem):
        run.read_scores(model)


# Training -----------------------------------------------------------------------------------------------------------


# Writing ------------------------------------------------------------------------------------------------------------


# Stages -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGE_NAMES)
def test_a_stage_is_complete_once_it_is_recorded_and_while_its_files_stand(run: RunDir, stage: StageName) -> None:
    assert not run.is_complete(stage)
    with pytest.raises(RunDirError, match=f"the {stage} stage is not complete; run `do this` first"):
        run.require(stage, "`do this`")
    finish(run, stage)
    assert run.is_complete(stage)
    run.require(stage, "`do this`")
    artefacts = [path for path in run.path.rglob("*") if path.is_file() and path.parent != run.path] or [
        run.comparison_file if stage == "compare" else run.report_file
    ]
    artefacts[0].unlink()
    assert not run.is_complete(stage)


def test_files_without_a_record_are_not_a_complete_stage(run: RunDir) -> None:
    run.write_split(Split((pair("a"),), (), ()))
    assert not run.is_complete("data")


def test_provenance_gathers_and_replaces(run: RunDir) -> None:
    assert run.provenance == {}
    run.update_provenance(versions={"python": "3.11"}, data={"rows": 1})
    run.complete("data", {"seconds": 1.5})
    run.complete("data", {"seconds": 3})
    run.complete("train", {"seconds": 2})
    run.update_provenance(data={"rows": 2})
    assert run.provenance == {
        "versions": {"python": "3.11"},
        "data": {"rows": 2},
        "stages": {"data": {"seconds": 3}, "train": {"seconds": 2}},
    }


def test_a_stage_made_again_to_the_same_files_leaves_what_was_made_from_them(run: RunDir) -> None:
    for stage in STAGE_NAMES:
        finish(run, stage)
    finish(run, "data")
    assert set(run.stage_records) == set(STAGE_NAMES)
    run.write_json(run.audit_file, {"another": 1})
    run.complete("data", {"seconds": 2})
    assert set(run.stage_records) == {"data"}


@pytest.mark.parametrize("record", [[1], {}, {"bytes": "many", "sha256": "x"}])
def test_a_damaged_record_of_the_configuration_is_named(run: RunDir, record: object) -> None:
    run.update_provenance(config=record)
    with pytest.raises(RunDirError, match=r"provenance.json: damaged, config"):
        _ = RunDir(run.path).config


def test_a_damaged_record_is_named(run: RunDir) -> None:
    finish(run, "data")
    finish(run, "baseline")
    forget_checksums(run)
    run.append_history({"step": 1})
    for path, read in [
        (run.scores_file("baseline"), lambda: run.read_scores("baseline")),
        (run.predictions_file("baseline"), lambda: run.read_predictions("baseline")),
        (run.history_file, run.read_history),
        (run.provenance_file, lambda: RunDir(run.path).is_complete("data")),
    ]:
        path.write_text('{"half": \n', encoding="utf-8")
        with pytest.raises(RunDirError) as caught:
            read()
        assert str(caught.value).startswith(f"{path}: damaged, not JSON")


def test_a_damaged_adapter_is_not_replaced_by_the_one_that_training_began_with(run: RunDir, tmp_path: Path) -> None:
    run.write_text(run.config_file, dump_config(load_recipe("demo", [f"model.adapter={tmp_path / 'start'}"])))
    finish(run, "data")
    finish(run, "train")
    (run.adapter_dir / "adapter_model.safetensors").write_text("[]", encoding="utf-8")
    with pytest.raises(RunDirError, match=r"the train stage is not complete; .*safetensors is not as"):
        perform("tuned", run)

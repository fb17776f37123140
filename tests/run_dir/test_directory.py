from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtune.config.recipes import load_recipe
from medtune.config.recipes.yaml_text import dump_config
from medtune.config.schema import Config
from medtune.errors import RunDirError
from medtune.pipeline.run import perform
from medtune.records import ControlName, ModelName, Prediction, QAPair, Score, Split, SystemName
from medtune.run_dir.directory import RunDir
from medtune.run_dir.layout import STAGE_NAMES, StageName
from older_runs import forget_checksums

ODD_TEXT = 'two\nlines, "quotes", naïve — \u2028 \x85 \x1f and a 😀'


@pytest.fixture
def config() -> Config:
    return load_recipe("demo")


@pytest.fixture
def run(tmp_path: Path, config: Config) -> RunDir:
    return RunDir.create(tmp_path / "run", config, resume=False)


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
        with run.replacing_adapter() as folder:
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
        systems: tuple[SystemName, ...] = get_args(ControlName) if stage == "controls" else (stage,)  # type: ignore[assignment]
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


def test_splits_come_back_as_they_were_written(run: RunDir) -> None:
    split = Split(
        (pair("a", group="a", document_id="1/2", focus="gout", source="s"), pair("b")), (pair("c", qtype=""),), ()
    )
    run.write_split(split)
    run.complete("data", {})
    assert run.read_split("train") == list(split.train)
    assert run.read_split("validation") == list(split.validation)
    assert run.read_split("test") == []


def test_templates_and_raw_text_come_back_too(run: RunDir) -> None:
    marked = replace(pair("a", split="dev", raw_question="Q  ? ?", raw_answer=f" {ODD_TEXT} "), template=True)
    run.write_split(Split((marked, pair("b")), (), ()))
    run.complete("data", {})
    assert run.read_split("train") == [marked, pair("b")]
    assert pq.read_schema(run.split_file("train")).field("template").type == pa.bool_()


def test_a_split_of_an_older_version_is_read_without_the_newer_columns(run: RunDir) -> None:
    run.write_split(Split((pair("a"),), (), ()))
    run.complete("data", {})
    forget_checksums(run)
    table = pq.read_table(run.split_file("train"))
    pq.write_table(table.drop_columns(["template", "split", "raw_question"]), run.split_file("train"))
    assert run.read_split("train") == [pair("a")]


def test_dropped_rows_are_kept_aside(run: RunDir) -> None:
    run.write_dropped([("dropped_short", pair("a", raw_question="Q ?", raw_answer="é\u2028 no"))])
    (line,) = run.dropped_file.read_text(encoding="utf-8").rstrip("\n").split("\n")
    assert json.loads(line) == {
        "id": "a", "rule": "dropped_short", "raw_question": "Q ?", "raw_answer": "é\u2028 no",
    }  # fmt: skip
    run.write_dropped([])
    assert run.dropped_file.read_text(encoding="utf-8") == ""


def test_reading_a_split_before_the_data_stage(run: RunDir) -> None:
    with pytest.raises(RunDirError, match="the data stage is not complete; run `medtune data prepare` first"):
        run.read_split("train")


@given(text=st.text())
def test_predictions_come_back_as_they_were_written(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    run = RunDir(tmp_path_factory.getbasetemp() / "predictions")
    written = [prediction("a", text), prediction("b", ODD_TEXT)]
    run.write_predictions("tuned", written)
    assert run.read_predictions("tuned") == written
    assert run.predictions_file("tuned").read_bytes().count(b"\n") == 2


def test_predictions_are_readable_utf8(run: RunDir) -> None:
    run.write_predictions("baseline", [prediction("a", "naïve")])
    assert '"prediction": "naïve"' in run.predictions_file("baseline").read_text(encoding="utf-8")


def test_scores_keep_every_digit(run: RunDir) -> None:
    scores = {"bleu": Score(1 / 3, 7, "nrefs:1", 3, (0.1, 1 / 7)), "perplexity": Score(1e-300, 7, "base", 7, None)}
    run.write_predictions("baseline", [])
    run.write_table(run.row_statistics_file("baseline"), pa.table({"id": []}))
    run.write_scores("baseline", scores)
    run.complete("baseline", {})
    assert run.read_scores("baseline") == scores


@pytest.mark.parametrize("model", ["baseline", "tuned"])
def test_scores_of_a_model_that_was_not_evaluated(run: RunDir, model: ModelName) -> None:
    with pytest.raises(RunDirError, match=f"run `medtune evaluate .* --model {model}` first"):
        run.read_scores(model)


def test_controls_stand_in_a_folder_of_their_own(run: RunDir) -> None:
    assert run.scores_file("tuned") == run.path / "tuned" / "scores.json"
    assert run.predictions_file("few_shot") == run.path / "controls" / "few_shot" / "predictions.jsonl"


def test_json_that_is_missing_is_named(run: RunDir) -> None:
    with pytest.raises(RunDirError, match=r"lengths\.json: missing"):
        run.read_json(run.lengths_file)


# Training -----------------------------------------------------------------------------------------------------------


def test_the_history_grows_line_by_line_and_is_cut_back_for_a_resumed_training(run: RunDir) -> None:
    assert run.read_history() == []
    for step in (1, 2, 3, 4):
        run.append_history({"step": step, "loss": 1 / step})
    run.truncate_history(2)
    assert run.read_history() == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}]
    run.append_history({"step": 3})
    assert [entry["step"] for entry in run.read_history()] == [1, 2, 3]


def test_an_adapter_takes_its_place_whole(run: RunDir) -> None:
    weights = run.adapter_dir / "weights"
    with run.replacing_adapter() as folder:
        (folder / "weights").write_text("first", encoding="utf-8")
        assert not run.adapter_dir.exists()
    with run.replacing_adapter() as folder:
        (folder / "weights").write_text("second", encoding="utf-8")
        assert weights.read_text(encoding="utf-8") == "first"
    assert weights.read_text(encoding="utf-8") == "second"
    assert contents(run.path) == [".lock", "adapter", "adapter/weights", "config.yaml"]
    assert run.adapter_dir.stat().st_mode & 0o777 == 0o755


def test_a_failed_save_leaves_the_adapter_that_was_there(run: RunDir) -> None:
    finish(run, "train")
    before = contents(run.path)
    with pytest.raises(IsADirectoryError), run.replacing_adapter() as folder:
        folder.write_bytes(b"a folder takes no bytes")
    assert contents(run.path) == before


# Writing ------------------------------------------------------------------------------------------------------------


def test_text_is_utf8_with_plain_line_ends_and_leaves_no_temporary_file(run: RunDir) -> None:
    path = run.path / "a" / "note.txt"
    for text in ("first", "né\r\n\n"):
        run.write_text(path, text)
        assert path.read_bytes() == text.encode("utf-8")
    assert contents(run.path / "a") == ["note.txt"]


def test_who_reads_while_a_file_is_replaced_reads_the_old_one_whole(run: RunDir) -> None:
    path = run.path / "note.txt"
    run.write_text(path, "old")
    with path.open(encoding="utf-8") as reader:
        run.write_text(path, "new and longer")
        assert reader.read() == "old"
    assert path.read_text(encoding="utf-8") == "new and longer"


def test_a_write_that_fails_keeps_the_old_file(run: RunDir) -> None:
    path = run.path / "note.txt"
    run.write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        run.write_text(path, "half a pair: \ud800")
    with pytest.raises(TypeError):
        run.write_json(path, {"not": {"for", "json"}})
    assert path.read_text(encoding="utf-8") == "old"
    assert contents(run.path) == [".lock", "config.yaml", "note.txt"]


def test_a_split_that_cannot_be_written_leaves_no_half(run: RunDir) -> None:
    with pytest.raises(UnicodeEncodeError):
        run.write_split(Split((pair("\ud800"),), (), ()))
    assert not run.split_file("train").exists()
    assert not run.is_complete("data")


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


@pytest.mark.parametrize(
    ("again", "left"),
    [
        ("data", {"data"}),
        ("baseline", {"data", "baseline", "train", "tuned"}),  # controls share the baseline's precision
        ("controls", {"data", "baseline", "controls", "train", "tuned"}),
        ("train", {"data", "baseline", "controls", "train"}),
        ("tuned", {"data", "baseline", "controls", "train", "tuned"}),
        ("compare", set(STAGE_NAMES) - {"report"}),
        ("report", set(STAGE_NAMES)),
    ],
)
def test_what_was_made_from_earlier_artefacts_is_complete_no_longer(
    run: RunDir, again: StageName, left: set[str]
) -> None:
    for stage in STAGE_NAMES:
        run.complete(stage, {"seconds": 1})
    run.complete(again, {"seconds": 2})
    assert set(run.stage_records) == left


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


@pytest.mark.parametrize("key", ["loss", "grad_norm", "learning_rate", "tokens"])
def test_an_edited_history_is_named(run: RunDir, key: str) -> None:
    run.append_history({"step": 1, key: "abc"})
    with pytest.raises(RunDirError, match=rf"history\.jsonl: damaged, {key}: .* in line 1"):
        run.read_history()


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

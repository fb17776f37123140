"""Where the files of a run are, and what follows from the table of its stages."""

from __future__ import annotations

from pathlib import Path

import pytest

from medtune.config.recipes import load_recipe
from medtune.run_dir.directory import RunDir
from medtune.run_dir.layout import (
    STAGE_NAMES,
    WRITTEN_NAMES,
    RunFiles,
    StageName,
    continuing_command,
    controls_of,
    made_from,
    stage_named,
    stage_of,
)


def test_controls_stand_in_a_folder_of_their_own(run: RunDir) -> None:
    assert run.scores_file("tuned") == run.path / "tuned" / "scores.json"
    assert run.predictions_file("few_shot") == run.path / "controls" / "few_shot" / "predictions.jsonl"


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


def test_files_keep_their_names() -> None:
    """Runs of earlier versions are opened by these."""
    files = {name: getattr(RunFiles(Path()), name).as_posix() for name in vars(RunFiles) if name.endswith("_file")
             and not callable(vars(RunFiles)[name])}  # fmt: skip
    assert files == {
        "config_file": "config.yaml", "provenance_file": "provenance.json", "history_file": "training/history.jsonl",
        "trackers_file": "training/trackers.json",
        "trouble_file": "training/trouble.json", "adapter_weights_file": "adapter/adapter_model.safetensors",
        "adapter_config_file": "adapter/adapter_config.json", "comparison_file": "comparison.json",
        "comparison_text_file": "comparison.md", "report_file": "report.html", "card_file": "README.md",
        "merge_file": "merge.json", "data_report_file": "data/report.json", "controls_file": "controls.json",
        "strata_file": "strata.json", "lengths_file": "lengths.json", "audit_file": "data/audit.json",
        "dropped_file": "data/dropped.jsonl", "launch_file": "launch.json",
    }  # fmt: skip


def test_what_is_written_under_a_temporary_name_is_known_by_it() -> None:
    assert {"config.yaml", "scores.json", "train.parquet", "adapter", "plan.json", "partial.jsonl"} <= WRITTEN_NAMES
    assert not {"sheet.csv", "tensorboard", "checkpoint-7"} & WRITTEN_NAMES


def test_stages_that_were_made_from_another_follow_from_the_table() -> None:
    assert made_from("report") == frozenset()
    assert made_from("tuned") == {"compare", "report"}
    assert made_from("baseline") == {"controls", "compare", "report"}
    assert made_from("data") == set(STAGE_NAMES) - {"data"}
    assert [stage_of(system) for system in ("baseline", "tuned", "few_shot")] == ["baseline", "tuned", "controls"]


def test_each_control_is_of_the_stage_whose_model_writes_it() -> None:
    controls = ["tuned_retrieval", "few_shot", "retrieval"]
    assert controls_of("controls", controls) == ["few_shot", "retrieval"]
    assert controls_of("tuned", controls) == ["tuned_retrieval"]
    assert controls_of("baseline", controls) == []
    run = RunFiles(Path("r"))
    scores = {stage: [file.parts[1:-1] for file in stage_named(stage).files(run, controls) if file.stem == "scores"]
              for stage in ("baseline", "controls", "tuned")}  # fmt: skip
    assert scores == {
        "baseline": [("baseline",)],
        "controls": [("controls", "few_shot"), ("controls", "retrieval")],
        "tuned": [("tuned",), ("controls", "tuned_retrieval")],
    }
    assert [file.parts[1:-1] for file in stage_named("tuned").partial(run)] == [
        ("tuned",), ("controls", "tuned_retrieval"),
    ]  # fmt: skip
    # There is nothing to do without where the tuned model writes the only control.
    only = load_recipe("demo", ["evaluation.controls=[tuned_retrieval]"])
    assert stage_named("controls").is_optional(only)
    assert not stage_named("controls").is_optional(load_recipe("demo"))


def test_the_texts_that_peft_writes_are_no_artefacts(tmp_path: Path) -> None:
    run = RunFiles(tmp_path)
    run.adapter_dir.mkdir()
    for name in ("adapter_model.safetensors", "tokenizer.json", "README.md"):
        (run.adapter_dir / name).touch()
    found = {file.name for file in stage_named("train").artefacts(run, ())}
    assert found == {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json"}
    assert stage_named("controls").artefacts(run, ()) == []


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["run", "demo"], "medtune run demo --resume"),
        (["run", "demo", "--resume"], "medtune run demo --resume"),
        (["train", "runs/my run"], "medtune train 'runs/my run' --resume"),
        (["data", "prepare", "demo"], "medtune data prepare demo --resume"),
        (["evaluate", "r", "--model", "tuned"], "medtune evaluate r --model tuned"),
        (["publish", "r", "--repo", "a/b"], "medtune publish r --repo a/b"),
        (["data", "audit", "rows.csv"], None),
        (["plan", "demo"], None),
        ([], None),
    ],
)
def test_the_command_that_continues(arguments: list[str], command: str | None) -> None:
    assert continuing_command(arguments) == command


def test_a_stage_is_run_alone_by_its_command() -> None:
    assert str(stage_named("tuned").command_for(Path("r"))) == "`medtune evaluate r --model tuned`"
    assert str(stage_named("data").command_for(Path("r"))) == "`medtune data prepare`"

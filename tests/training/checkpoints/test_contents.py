"""What a checkpoint holds is checked as it is read, sealed or not; so is the plan beside the checkpoints."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from medtune.errors import RunDirError
from medtune.run_dir.directory import RunDir
from medtune.training.checkpoints.contents import (
    best_step,
    keep_plan,
    read_state,
    reading,
    require_fitting_moments,
    require_known_files,
    restore_plan,
)
from medtune.training.checkpoints.sealing import PLAN_NAME
from medtune.training.plan.peaks import TrainingPlan

STATE = {
    "global_step": 4, "max_steps": 9, "epoch": 0.5, "log_history": [], "logging_steps": 1, "eval_steps": 2,
    "save_steps": 2, "stateful_callbacks": {"TrainerControl": {}}, "best_global_step": 2,
}  # fmt: skip
PLAN = TrainingPlan(512, 4, 2, 1, "nf4", "device", "adamw_torch_fused", True)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "checkpoint-4"
    folder.mkdir()
    for name in ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"):
        (folder / name).touch()
    (folder / "trainer_state.json").write_text(json.dumps(STATE))
    return folder


def test_a_whole_state_is_read(folder):
    assert read_state(folder) == STATE
    assert best_step(folder) == 2


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"global_step": 5}, "global_step is 5"),
        ({"global_step": "4"}, "global_step"),
        ({"save_steps": 0}, "save_steps"),
        ({"surprise": 1}, "surprise is unknown"),
        ({"stateful_callbacks": {}}, "lacks TrainerControl"),
    ],
)
def test_a_state_that_was_edited_is_refused(folder, changes, problem):
    (folder / "trainer_state.json").write_text(json.dumps({**STATE, **changes}))
    with pytest.raises(RunDirError, match=rf"checkpoint-4: trainer_state.json: .*{problem}"):
        read_state(folder)
    assert best_step(folder) == 4, "a checkpoint whose state cannot be read counts as its own best"


def test_files_have_to_be_those_of_a_training(folder):
    require_known_files(folder)
    (folder / "training_args.bin").touch()
    require_known_files(folder)
    (folder / "pytorch_model.bin").touch()
    with pytest.raises(RunDirError, match=r"pytorch_model.bin is not of a training by medtune"):
        require_known_files(folder)
    (folder / "pytorch_model.bin").unlink()
    (folder / "rng_state.pth").unlink()
    with pytest.raises(RunDirError, match=r"rng_state\*.pth is missing"):
        require_known_files(folder)


def test_failures_to_read_are_one_line_and_lack_of_memory_stays_what_it_is(folder):
    with pytest.raises(RunDirError, match=r"checkpoint-4: cannot be read \(bad\); delete"), reading(folder):
        raise ValueError("bad\nmore")
    with pytest.raises(torch.OutOfMemoryError), reading(folder):
        raise torch.OutOfMemoryError


@pytest.mark.parametrize(
    ("moment", "problem"),
    [(torch.zeros(2, 2), None), (torch.zeros(4), "has shape"), (torch.full((2, 2), torch.nan), "NaN or infinite")],
)
def test_moments_have_to_fit_their_weights(folder, moment, problem):
    weight = torch.nn.Parameter(torch.zeros(2, 2))
    optimizer = SimpleNamespace(param_groups=[{"params": [weight]}], state={weight: {"exp_avg": moment, "step": 3}})
    if problem is None:
        require_fitting_moments(optimizer, folder)
    else:
        with pytest.raises(RunDirError, match=f"optimizer.pt: exp_avg {problem}|optimizer.pt: exp_avg holds {problem}"):
            require_fitting_moments(optimizer, folder)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "run")


def test_a_plan_is_read_as_it_was_written(run: RunDir) -> None:
    keep_plan(run, PLAN)
    assert restore_plan(run) == PLAN


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "missing"),
        ("{", "Invalid JSON"),
        ("[]", "damaged"),
        (json.dumps({"layers": 4}), "tokens_per_micro_batch"),
        ('{"tokens_per_micro_batch": "many"}', "tokens_per_micro_batch"),
        ('{"tokens_per_micro_batch": 5, "layers": 1, "checkpointed_layers": 2, "offloaded_layers": 0, '
         '"weights": "nf4", "embeddings": "host", "optimizer": "x", "fused": true}', "counts"),
    ],
)  # fmt: skip
def test_a_damaged_plan_is_one_line(run: RunDir, text: str | None, problem: str) -> None:
    run.checkpoints_dir.mkdir(parents=True)
    if text is not None:
        (run.checkpoints_dir / PLAN_NAME).write_text(text)
    with pytest.raises(RunDirError, match=problem) as caught:
        restore_plan(run)
    assert len(str(caught.value).splitlines()) == 1
    assert f"delete {run.checkpoints_dir} to start over" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, "offloaded_layers is 1, which takes a GPU, and this is cpu"),
        (
            {"offloaded_layers": 0, "embeddings": "host"},
            "embeddings are in host memory beside a GPU's, and this is cpu",
        ),
    ],
)
def test_a_plan_for_a_gpu_is_refused_without_one(run: RunDir, changes: dict[str, object], problem: str) -> None:
    plan = replace(PLAN, **changes)
    keep_plan(run, plan)
    assert restore_plan(run, "cuda:0") == plan
    with pytest.raises(RunDirError, match=problem):
        restore_plan(run, "cpu")


def test_an_optimiser_that_nobody_knows_is_refused(run: RunDir) -> None:
    keep_plan(run, replace(PLAN, optimizer="x"))
    with pytest.raises(RunDirError, match=r"damaged \(optimizer: x is unknown\)"):
        restore_plan(run)

"""The plan beside the checkpoints."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from medtune.errors import RunDirError
from medtune.run_dir.directory import RunDir
from medtune.training.checkpoints.sealing import PLAN_NAME
from medtune.training.plan.kept_plan import keep_plan, restore_plan
from medtune.training.plan.peaks import TrainingPlan

PLAN = TrainingPlan(512, 4, 2, 1, "nf4", "device", "adamw_torch_fused", True)


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

"""Checkpoints edited by hand: by someone who forgets the seal, and by someone who seals them again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from command_line import Medtune, Result
from hostile import inputs
from hostile.cases import MARK, Kept, Refused, parametrize, refused, require_kept, require_refused, snapshot
from hostile.inputs import CHECKPOINT, unfinished_training
from medtune.run_dir.directory import RunDir
from medtune.training.checkpoints.sealing import last_checkpoint

RESUME = "train run --resume"
PLAN, HISTORY, STATE = "run/checkpoints/plan.json", "run/training/history.jsonl", f"{CHECKPOINT}/trainer_state.json"
WEIGHTS = f"{CHECKPOINT}/adapter_model.safetensors"
FIRST = "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"


def _forged(what: str, problem: str, *edits: inputs.Maker) -> Refused:
    """A checkpoint that was sealed again after it was edited."""
    way_on = f"delete {CHECKPOINT} to go on from the checkpoint before it, or start over"
    return refused(what, unfinished_training(*edits), RESUME, f"{CHECKPOINT}: {problem}; {way_on}")


def _state(what: str, problem: str, **values: Any) -> Refused:
    edit = inputs.edit_json(STATE, lambda state: state.update(values))
    return _forged(what, f"trainer_state.json: {problem}", edit)


def _moments(change: Callable[[Any], Any]) -> inputs.Maker:
    """Edits the optimizer's first moments."""

    def make(workspace: Path) -> None:
        import torch

        path = workspace / CHECKPOINT / "optimizer.pt"
        saved = torch.load(path, weights_only=True)
        for state in saved["state"].values():
            state["exp_avg"] = change(state["exp_avg"])
        torch.save(saved, path)

    return make


def _weights(change: Callable[[dict[str, Any]], dict[str, Any]]) -> inputs.Maker:
    return inputs.edit_weights(WEIGHTS, change)


TENSOR_FILES = ("optimizer.pt", "scheduler.pt", "rng_state.pth")
PICKLED = [
    *[_forged(f"a pickle for {name}", "cannot be read (holds a pickle)", inputs.pickled(f"{CHECKPOINT}/{name}"))
      for name in TENSOR_FILES],
    *[_forged(f"a torch file with code in it for {name}", "cannot be read (holds a pickle)",
              inputs.torch_saved(f"{CHECKPOINT}/{name}")) for name in TENSOR_FILES],
    _forged("pickled weights in place of safetensors", "adapter_model.bin is not of a training by medtune",
            inputs.remove(WEIGHTS), inputs.torch_saved(f"{CHECKPOINT}/adapter_model.bin")),
    _forged("weights of a whole model", "model.safetensors is not of a training by medtune",
            lambda workspace: (workspace / CHECKPOINT / "model.safetensors").write_bytes(b"")),
    _forged("a second adapter in a folder", "second is not of a training by medtune",
            inputs.file(f"{CHECKPOINT}/second/adapter_config.json", "{}")),
]  # fmt: skip

FORGED = [
    *[_forged(f"junk for {name}", "cannot be read (…)", inputs.file(f"{CHECKPOINT}/{name}", "junk"))
      for name in TENSOR_FILES],
    _forged("no optimizer.pt", "optimizer.pt is missing", inputs.remove(f"{CHECKPOINT}/optimizer.pt")),
    _forged("no random numbers", "rng_state*.pth is missing", inputs.remove(f"{CHECKPOINT}/rng_state.pth")),
    _forged("a list for the optimizer", "cannot be read (list indices must be integers or slices, not str)",
            inputs.torch_saved(f"{CHECKPOINT}/optimizer.pt", lambda _: [1, 2])),
    _forged("other keys for the random numbers", "cannot be read ('python')",
            inputs.torch_saved(f"{CHECKPOINT}/rng_state.pth", lambda _: {"a": 1})),
    _forged("moments of another shape", "optimizer.pt: exp_avg has shape (5,)",
            _moments(lambda moment: moment.flatten()[:5].clone())),
    _forged("moments that are NaN", "optimizer.pt: exp_avg holds NaN or infinite numbers",
            _moments(lambda moment: moment * float("nan"))),
    _forged("weights of another shape", "adapter_model.safetensors base_model.model.model.layers.0.self_attn.q_proj."
            "lora_A.weight has shape (16, 5), and its place (16, 64)",
            _weights(lambda found: {name: weight[:, :5].contiguous() for name, weight in found.items()})),
    _forged("half of the weights", "adapter_model.safetensors lacks 14 of the adapter's 28 weights, such as "
            + FIRST.replace("_A", "_B"), _weights(lambda found: dict(list(found.items())[::2]))),
    _forged("weights that are NaN", f"adapter_model.safetensors {FIRST} holds NaN, infinite or whole numbers",
            _weights(lambda found: {name: weight * float("nan") for name, weight in found.items()})),
    _forged("junk for the weights", "adapter_model.safetensors is not a safetensors file",
            inputs.file(WEIGHTS, "junk")),
]  # fmt: skip

STATES = [
    _forged("a state that is no JSON", "trainer_state.json: not JSON (Expecting property name enclosed in double "
            "quotes)", inputs.file(STATE, "{")),
    _forged("a state that is a list", "trainer_state.json: a list, not an object", inputs.file(STATE, "[]")),
    _state("a step in words", "global_step: input should be a valid integer", global_step="2"),
    _state("a step of another checkpoint", "global_step is 1000000000", global_step=10**9),
    _state("a step below zero", "global_step: input should be greater than or equal to 1", global_step=-5),
    _state("a key that nobody knows", "planted is unknown", planted=1),
    _state("no steps between two logs", "logging_steps: input should be greater than or equal to 1", logging_steps=0),
    _state("a path for the best step", "best_global_step: input should be a valid integer, unable to parse string as "
           "an integer", best_global_step="../../x"),
    _state("a history that is no list of records", "log_history.0: input should be a valid dictionary",
           log_history=[1]),
    _state("callbacks that name code", "stateful_callbacks lacks TrainerControl",
           stateful_callbacks={"os.system": {"args": {}, "attributes": {}}}),
]  # fmt: skip
_DAMAGED = "restore it, or delete run/checkpoints to start over"


def _plan(what: str, problem: str, **values: Any) -> Refused:
    edit = inputs.edit_json(PLAN, lambda plan: plan.update(values))
    return refused(what, unfinished_training(edit), RESUME, f"{PLAN}: {problem}; {_DAMAGED}")


def _history(what: str, content: str | bytes, problem: str) -> Refused:
    return refused(what, unfinished_training(inputs.file(HISTORY, content)), RESUME,
                   f"{HISTORY}: damaged, {problem}; restore it, or start another --run-dir")  # fmt: skip


PLANS = [
    _plan("a plan with fewer than no tokens", "damaged (its counts do not fit each other)", tokens_per_micro_batch=-1),
    _plan("a plan with layers in words", "damaged (layers: Input should be a valid integer)", layers="2"),
    _plan("a plan with half a layer", "damaged (layers: Input should be a valid integer)", layers=1.5),
    _plan("a plan with weights of no kind", "damaged (weights: Input should be 'nf4' or 'dequantized')", weights="x"),
    _plan("a plan with an optimizer of no kind", "damaged (optimizer: x is unknown)", optimizer="x"),
    _plan("a plan for a GPU on a CPU", "offloaded_layers is 2, which takes a GPU, and this is cpu",
          offloaded_layers=2, checkpointed_layers=2),
    refused("a plan nested 100,000 deep", unfinished_training(inputs.file(PLAN, "[" * 100_000)), RESUME,
            f"{PLAN}: damaged (Invalid JSON: recursion limit exceeded at line 1 column …); {_DAMAGED}"),
    _history("a history of junk", "junk\n", "not JSON (Expecting value) in line 1"),
    _history("a history of lists", "[1]\n", "input should be a valid dictionary in line 1"),
    _history("a history without steps", "{}\n", "step and tokens: input should be a valid integer"),
    _history("a history that is not UTF-8", b"\xff\n", "not UTF-8 text, invalid start byte at byte 0"),
    refused("a seal of another training", unfinished_training(
            inputs.edit_json(f"{CHECKPOINT}/sealed.json", lambda seal: seal["origin"].update(rows="x"))), RESUME,
            f"{CHECKPOINT}: of a training with another rows; delete run/checkpoints to start over, or choose another "
            "--run-dir"),
]  # fmt: skip


@dataclass(frozen=True)
class Torn(Kept):
    """A checkpoint that was edited and not sealed again."""

    damage: str = ""


def _torn(what: str, damage: str, *edits: inputs.Maker) -> Torn:
    def check(result: Result, workspace: Path) -> None:
        assert f"{CHECKPOINT}: torn ({damage}), skipped" in result.err
        assert (workspace / "run/adapter/adapter_model.safetensors").is_file()

    then = f"`{CHECKPOINT}: torn ({damage}), skipped`; training resumes from the one before it, or starts over"
    return Torn(what, unfinished_training(*edits, sealed=False), RESUME, then, check, damage)


SEAL = f"{CHECKPOINT}/sealed.json"
TORN = [
    _torn("a file edited without the seal", "trainer_state.json is not as it was written",
          inputs.edit_json(STATE, lambda state: state.update(global_step=7))),
    _torn("a file added without the seal", "pytorch_model.bin was added later",
          inputs.torch_saved(f"{CHECKPOINT}/pytorch_model.bin")),
    _torn("a seal that is a list", "sealed.json is damaged", inputs.file(SEAL, "[]")),
    _torn("a seal nested 100,000 deep", "sealed.json is damaged", inputs.file(SEAL, "[" * 100_000)),
    _torn("a seal with an infinite size", "sealed.json is damaged",
          inputs.edit_json(SEAL, lambda seal: seal["files"]["README.md"].update(bytes=float("inf")))),
    _torn("a seal with a path out of the folder", "../../../../etc/passwd is missing", inputs.edit_json(
          SEAL, lambda seal: seal["files"].update({"../../../../etc/passwd": {"bytes": 1, "sha256": "x"}}))),
    _torn("a seal with an escape sequence in a name", r"\x1b[2Jx is missing", inputs.edit_json(
          SEAL, lambda seal: seal["files"].update({"\x1b[2Jx": {"bytes": 1, "sha256": "x"}}))),
    _torn("a seal without an origin", "sealed.json is damaged",
          inputs.edit_json(SEAL, lambda seal: seal.update(origin=[]))),
]  # fmt: skip

CASES: dict[str, list[Any]] = {
    "Checkpoints with pickles": PICKLED,
    "Checkpoints edited and sealed again": FORGED,
    "States of the trainer edited and sealed again": STATES,
    "Checkpoints edited and not sealed again": TORN,
    "Plans and histories edited": PLANS,
}


@parametrize([*PICKLED, *FORGED, *STATES, *PLANS])
def test_refused(case: Refused, medtune: Medtune, workspace) -> None:
    require_refused(case, medtune, workspace)


@parametrize(TORN)
def test_passed_over(case: Torn, workspace, capfd) -> None:
    case.make(workspace)
    before = snapshot(workspace)
    assert last_checkpoint(RunDir(workspace / "run")) is None
    assert f"{CHECKPOINT}: torn ({case.damage}), skipped" in capfd.readouterr().err
    assert snapshot(workspace) == before


@parametrize(TORN[:2])
def test_a_training_starts_over_where_all_are_torn(case: Torn, medtune: Medtune, workspace) -> None:
    require_kept(case, medtune, workspace)


def test_a_sealed_checkpoint_goes_on(medtune: Medtune, workspace) -> None:
    """What the cases above edit is sound before they do."""
    unfinished_training()(workspace)
    result = medtune(*RESUME.split())
    assert (result.status, result.out) == (0, "run/adapter\n")
    assert "torn" not in result.err


@pytest.mark.parametrize("name", ["checkpoint-\u00b2", "checkpoint-" + "9" * 200, "checkpoint-1-2", "checkpoint--1"])
def test_a_folder_that_only_looks_like_a_checkpoint(name: str, workspace, capfd) -> None:
    run = RunDir(workspace / "run")
    (run.checkpoints_dir / name).mkdir()
    assert last_checkpoint(run) == run.checkpoints_dir / "checkpoint-4"
    assert capfd.readouterr().err == ""


def test_the_trainers_own_arguments_are_never_read(medtune: Medtune, workspace) -> None:
    unfinished_training(inputs.pickled(f"{CHECKPOINT}/training_args.bin"))(workspace)
    assert medtune(*RESUME.split()).status == 0
    assert MARK not in snapshot(workspace)


def test_a_planted_pickle_would_run(workspace) -> None:
    """Otherwise the cases above prove nothing."""
    import torch

    inputs.torch_saved("planted.pt")(workspace)
    torch.load(workspace / "planted.pt", weights_only=False)
    assert MARK in snapshot(workspace)
    assert json.loads((workspace / PLAN).read_text())["layers"] == 2

"""Small runs on several processes, and what they leave."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from safetensors.torch import load_file

from launches import finish, start
from tiny_model import Tiny, write_rows


def recipe(tiny: Tiny, folder: Path, *, controls: Sequence[str] = (), **training: Any) -> Path:
    """Steps of nine rows leave a last step of one row an epoch, where all processes but one have nothing to do."""
    folder.mkdir(exist_ok=True)
    values = {
        "model": {"base": str(tiny.path)},
        "data": {"source": str(write_rows(folder / "rows.csv")), "split": {"validation": 0.2, "test": 0.2}},
        "training": {
            "max_length": 256, "effective_batch_rows": 9, "max_steps": 6, "tokens_per_micro_batch": 100, **training,
        },
        "generation": {"max_new_tokens": 8, "batch_size": 3},
        "evaluation": {"metrics": ["bleu", "rougeL", "perplexity"], "controls": list(controls)},
    }  # fmt: skip
    file = folder / "recipe.yaml"
    file.write_text(json.dumps(values))  # JSON is YAML
    return file


def medtune(processes: int, *arguments: object) -> list[CompletedProcess[str]]:
    done = finish(start(processes, "medtune", *arguments), 300)
    assert [one.returncode for one in done] == [0] * processes, "\n".join(one.stderr for one in done)
    return done


def history(run: Path) -> dict[str, list[float]]:
    entries = [json.loads(line) for line in (run / "training/history.jsonl").read_text().splitlines()]
    return {key: [entry[key] for entry in entries if key in entry] for key in ("loss", "validation_loss", "tokens")}


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def logged(run: Path) -> int:
    file = run / "training/history.jsonl"
    return file.read_text().count('"loss"') if file.is_file() else 0


def assert_trained_alike(run: Path, other: Path) -> None:
    """Two trainings on unlike numbers of processes: the same rows, and losses and adapters within rounding."""
    one, several = history(run), history(other)
    assert several["tokens"] == one["tokens"]
    for key in ("loss", "validation_loss"):
        assert several[key] == pytest.approx(one[key], rel=1e-5)
    weights = load_file(run / "adapter/adapter_model.safetensors")
    found = load_file(other / "adapter/adapter_model.safetensors")
    assert found.keys() == weights.keys()
    for name, tensor in found.items():
        assert (tensor - weights[name]).norm() <= 1e-5 * weights[name].norm(), name

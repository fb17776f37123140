"""Whole runs in processes of their own, to be stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from forked import Forked, fork
from tiny_model import Tiny, write_rows


def write_recipe(tiny: Tiny, folder: Path, *, steps: int = 30, controls: Sequence[str] = ("cut_reference",)) -> Path:
    """A run of seconds with a training long enough to be stopped in."""
    values = {
        "model": {"base": str(tiny.path), "dtype": "float32"},
        "data": {"source": str(write_rows(folder / "rows.csv")), "split": {"test": 0.2, "validation": 0.1}},
        "lora": {"dropout": 0.1},
        "training": {"max_steps": steps, "checkpoint_steps": 7, "effective_batch_rows": 4, "max_length": 256},
        "generation": {"max_new_tokens": 40, "batch_size": 2},
        "evaluation": {"metrics": ["bleu", "rougeL", "perplexity"], "controls": list(controls), "resamples": 500},
    }
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(values))  # JSON is YAML
    return path


def small_recipe(folder: Path, model: Path, **sections: Any) -> Path:
    """A recipe of one step that measures perplexity alone, with other values in `sections`."""
    values: dict[str, Any] = {
        "model": {"base": str(model)},
        "data": {"source": str(write_rows(folder / "rows.csv"))},
        "training": {"max_length": 256, "max_steps": 1},
        "evaluation": {"metrics": ["perplexity"]},
    }
    for name, section in sections.items():
        values[name] |= section
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


def start(*arguments: object, log: Path | None = None) -> Forked:
    """The command in a process of its own; what it says on stderr goes to `log`, or else to `finish`."""
    return fork("medtune", *arguments, err=log)


def finish(process: Forked, seconds: float = 300) -> tuple[int, str]:
    """The process's exit status and what it said on stderr."""
    done = process.finish(seconds)
    return done.returncode, done.stderr


def wait_for(process: Forked, condition: Callable[[], bool], seconds: float = 300) -> None:
    """Wait until something is so; fails if the process ends before."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, finish(process)
        assert time.monotonic() < deadline
        time.sleep(0.01)


def steps_logged(run: Path) -> int:
    """How many steps the history holds so far."""
    file = run / "training" / "history.jsonl"
    return file.read_text().count('"loss"') if file.is_file() else 0


def batches_answered(run: Path, system: str) -> int:
    """How many batches of answers are kept so far."""
    file = run / system / "partial.jsonl"
    return file.read_text().count('"of": "answers"') if file.is_file() else 0


def results(run: Path) -> dict[str, object]:
    """What must not depend on interruptions: all but timings."""
    lines = (run / "training" / "history.jsonl").read_text().splitlines()
    history = [{key: value for key, value in json.loads(line).items() if key != "tokens_per_second"} for line in lines]
    names = ["adapter/adapter_model.safetensors", "comparison.json", "controls.json"]
    names += [f"{model}/{file}" for model in ("baseline", "tuned") for file in ("predictions.jsonl", "scores.json")]
    assert not list(run.rglob("partial.jsonl"))
    return {"history": history, **{name: (run / name).read_bytes() for name in names}}

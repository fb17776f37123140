"""Runs of the `medtune` command for the benchmarks, and the figures that they leave in the run directory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from reporting import WARMUP_STEPS

LAUNCHER = Path(__file__).with_name("medtune_process.py")
# One validation and one checkpoint, at the very end: the other trainers make neither.
NO_CHECKPOINTS = 1_000_000


def write_recipe(folder: Path, values: Mapping[str, Any]) -> Path:
    """A recipe of `values`: JSON is YAML."""
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(values, indent=2))
    return path


def start_from_prepared(prepared: Path, path: Path, recipe: Path, overrides: Sequence[str]) -> None:
    """Make the run `path` with the data stage of another run, whose `data` section and seed it takes over."""
    from medtune.config.recipes import load_recipe
    from medtune.run_dir.directory import RunDir
    from medtune.run_dir.lock import release_locks

    source = RunDir.open(prepared)
    source.require("data")
    if taken := [override for override in overrides if override.startswith(("data.", "seed="))]:
        raise SystemExit(f"{', '.join(taken)}: the rows are those of {prepared}; give the table instead to change them")
    held = source.config
    config = load_recipe(str(recipe), overrides).model_copy(update={"data": held.data, "seed": held.seed})
    run = RunDir.create(path, config, resume=False)
    shutil.copytree(prepared / "data", path / "data")
    run.complete("data", source.stage_records["data"])
    release_locks()  # the next command is another process


def medtune(
    *command: object,
    cap: float = 0.0,
    figures: Path | None = None,
    environment: Mapping[str, str] | None = None,
    gpus: int = 1,
) -> None:
    """Run a command of medtune; what it prints goes to standard error. Exits where it fails.

    `environment` is added to this process's own. On several `gpus` there is a process for each.
    """
    options = [f"--cap={cap}", *([f"--figures={figures}"] if figures is not None else [])]
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(gpus)] if gpus > 1 else []
    line = [sys.executable, *several, str(LAUNCHER), *options, "--", *map(str, command)]
    done = subprocess.run(line, stdout=sys.stderr, check=False, env={**os.environ, **(environment or {})})
    if done.returncode:
        raise SystemExit(f"medtune {command[0]} ended with status {done.returncode}")


def set_options(overrides: Sequence[str]) -> list[str]:
    """`key=value` pairs as the command takes them."""
    return [word for override in overrides for word in ("--set", override)]


def training_figures(run: Path) -> dict[str, Any]:
    """Speed and losses of a training, from its history; the first `WARMUP_STEPS` are left out of the speed."""
    lines = (run / "training" / "history.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [entry for entry in map(json.loads, lines) if "tokens" in entry]
    if len(steps) <= WARMUP_STEPS:
        raise SystemExit(f"{len(steps)} steps are too few: {WARMUP_STEPS} are warm-up")
    counts = [after - before for before, after in pairwise([0, *(entry["tokens"] for entry in steps)])]
    seconds = [count / entry["tokens_per_second"] for count, entry in zip(counts, steps, strict=True)]
    tokens, time = sum(counts[WARMUP_STEPS:]), sum(seconds[WARMUP_STEPS:])
    timed = len(steps) - WARMUP_STEPS
    return {
        "tok_s": round(tokens / time),
        "ms_per_step": round(1000 * time / timed),
        "tokens_per_step": round(tokens / timed),
        "steps": len(steps),
        "slowest_tok_s": round(min(entry["tokens_per_second"] for entry in steps[WARMUP_STEPS:])),
        "fastest_tok_s": round(max(entry["tokens_per_second"] for entry in steps[WARMUP_STEPS:])),
        "first_loss": round(steps[0]["loss"], 4),
        "last_loss": round(steps[-1]["loss"], 4),
    }


def stage_records(run: Path) -> dict[str, dict[str, Any]]:
    """What each stage cost and chose."""
    stages: dict[str, dict[str, Any]] = json.loads((run / "provenance.json").read_text(encoding="utf-8"))["stages"]
    return stages


def planned(run: Path, *, cap: float) -> dict[str, Any]:
    """What `medtune plan` predicts for a finished training on the GPU that is here; nothing without one.

    From the model's config.json and the lengths of the rows; `cap` GiB of the GPU, or what is free.
    """
    from medtune.model.loaded import load_renderer
    from medtune.pipeline.plan import base_folder, forecast_or_reason, sizes_of
    from medtune.records import Split
    from medtune.run_dir.directory import RunDir
    from medtune.run_dir.layout import SPLITS
    from medtune.runtime.gpus import this_gpu

    if (gpu := this_gpu()) is None:
        return {}
    gpu = replace(gpu, memory_gib=min(gpu.memory_gib, cap or gpu.memory_gib))
    opened = RunDir.open(run)
    config = opened.config
    folder = base_folder(config)
    split = Split(*(opened.read_split(name) for name in SPLITS))
    found = forecast_or_reason(config, folder, gpu, sizes_of(config, load_renderer(config, folder), split))
    if isinstance(found, str):  # the training found a plan of its own
        return {"planned": {"reason": found}}
    return {"planned": {**asdict(found.step.plan), "peak_gib": round(found.step.plan.peak_bytes / 2**30, 2)}}


def chosen(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a stage chose for the hardware, without the reasons."""
    choices = {name: choice["value"] for name, choice in record.get("choices", {}).items()}
    return {**choices, **record.get("plan", {})}

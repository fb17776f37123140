"""The whole job, stage by stage: data, baseline, controls, training, tuned, comparison, report."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from medtune.config.schema import Config
from medtune.errors import RunDirError
from medtune.model.known import known_model
from medtune.model.loading import DEMO_MODEL
from medtune.pipeline.checks import check_inputs, check_rows, require_gpu
from medtune.pipeline.compare import compare_stage, report_stage
from medtune.pipeline.evaluate import controls_stage, evaluate_stage
from medtune.pipeline.prepare import prepare_stage
from medtune.pipeline.train import train_stage
from medtune.run_dir.copies import copy_to_other_machines
from medtune.run_dir.directory import RunDir
from medtune.run_dir.layout import STAGES, StageName, stage_named
from medtune.run_dir.partial_results import partial_files
from medtune.run_dir.provenance import environment
from medtune.runtime import interruption
from medtune.runtime.distributed import barrier, from_main
from medtune.runtime.hardware import PeakMemory, release_memory
from medtune.runtime.launch import is_main
from medtune.runtime.progress import say, stage_progress, tell_skipped
from medtune.training.checkpoints.remote import check_repository

# What a stage does. The dictionary takes what it wants to have recorded.
_WORK: dict[StageName, Callable[[RunDir, dict[str, Any]], None]] = {
    "data": prepare_stage,
    "baseline": partial(evaluate_stage, which="baseline"),
    "controls": controls_stage,
    "tuned": partial(evaluate_stage, which="tuned"),
    "compare": compare_stage,
    "report": report_stage,
}


def run(config: Config, path: Path, *, resume: bool = False, on_cpu: bool = False) -> RunDir:
    """Every stage in order, each skipped when it is complete. Raises MedtuneError before any long work.

    A model that takes a GPU is refused without one, unless `on_cpu` insists.
    """
    from_main(lambda: _begin(config, path, resume=resume, on_cpu=on_cpu))
    run_dir = RunDir(path)
    for stage in STAGES:
        perform(stage.name, run_dir, resume=resume)
        interruption.raise_if_requested()
        if stage.name == "data" and config.model.base != DEMO_MODEL:
            from_main(lambda: check_rows(config, run_dir))
    return run_dir


def _begin(config: Config, path: Path, *, resume: bool, on_cpu: bool) -> None:
    is_known = known_model(config.model) is not None
    if is_known and not on_cpu:  # before anything is downloaded
        require_gpu(config, RunDir(path))
    run_dir = start_run(config, path, resume=resume)
    if not (is_known or on_cpu):
        require_gpu(config, run_dir)


def start_run(config: Config, path: Path, *, resume: bool) -> RunDir:
    """Check what can be checked cheaply, then make or reopen the run directory."""
    RunDir(path).check(config, resume=resume)
    check_inputs(config)
    check_repository(RunDir(path), config, resume=resume)
    run_dir = RunDir.create(path, config, resume=resume)
    run_dir.record_start(**environment())
    return run_dir


def perform(name: StageName, run_dir: RunDir, *, resume: bool = False, again: bool = False) -> None:
    """Do one stage of a run and record it, unless it is complete; with `again` even then.

    `resume` lets it continue what an earlier process left unfinished. Raises MedtuneError, and RunDirError unless the
    stages that it needs are complete.
    """
    stage = stage_named(name)
    if from_main(lambda: _is_due(run_dir, name, again=again)):
        if stage.shared:
            copy_to_other_machines(run_dir, _read_by_all(run_dir, name))
        run_dir.read_again()
        if stage.shared or is_main():
            with _recorded(run_dir, name) as record:
                work = partial(train_stage, resume=resume) if name == "train" else _WORK[name]
                work(run_dir, record)
        barrier()
        run_dir.read_again()
    # Only once the stage is complete, and by the next process if this one has no time left for it.
    for file in chain.from_iterable(map(partial_files, stage.partial(run_dir))):
        file.unlink(missing_ok=True)


def _read_by_all(run_dir: RunDir, name: StageName) -> Iterator[Path]:
    """The files of a run that every process of a shared stage reads."""
    yield from (run_dir.config_file, run_dir.provenance_file)
    for earlier in stage_named(name).needs:
        yield from stage_named(earlier).artefacts(run_dir, run_dir.config.evaluation.controls)


def _is_due(run_dir: RunDir, name: StageName, *, again: bool) -> bool:
    """Whether a stage is to be done now. Raises RunDirError unless it can be."""
    run_dir.lock()
    if not stage_named(name).artefacts(run_dir, run_dir.config.evaluation.controls):
        return False  # a run without controls
    if not again and is_done(run_dir, name):
        return False
    run_dir.require_needs(name)
    return True


def is_done(run_dir: RunDir, name: StageName) -> bool:
    """Whether a stage is complete; says so, or which of its files it is made again for."""
    if run_dir.is_complete(name):
        say(f"── {name}: complete, skipped")
        tell_skipped(name)
        for text in run_dir.edited_texts(name):
            say(f"{run_dir.path / text}: edited since it was written, kept; delete it to have it made again")
        return True
    if damage := run_dir.damage(name):
        say(f"{run_dir.path}: {damage}; the {name} stage is made again")
    return False


@contextmanager
def _recorded(run_dir: RunDir, name: StageName) -> Iterator[dict[str, Any]]:
    """A stage's work; if it ends well, its seconds and peak memory are recorded, with whatever the block adds."""
    say(f"── {name}")
    release_memory()
    memory = PeakMemory()
    began = time.monotonic()
    record: dict[str, Any] = {}
    with stage_progress(name):
        yield record
        if not is_main():
            return
        cost = {
            "ended": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - began, 3),
            "peak_rss_bytes": memory.rss_bytes(),
            "peak_gpu_bytes": memory.gpu_bytes(),
        }
        run_dir.complete(name, cost | record)


def refresh_report(run_dir: RunDir, *, again: bool) -> None:
    """Report and card of a run that has been compared, where they are missing or outdated; with `again` in any case.

    Whatever somebody has edited is kept.
    """
    if run_dir.is_complete("compare") and (again or not run_dir.is_complete("report")):
        perform("report", run_dir, again=again and not run_dir.edited_texts("report"))


def refresh_after_merge(run_dir: RunDir) -> None:
    """Report and card with the merge in them. Where a run lacks what they are made from, the merge still is whole."""
    try:
        refresh_report(run_dir, again=True)
    except RunDirError as error:
        say(f"report and card are as they were, without this merge: {error}")

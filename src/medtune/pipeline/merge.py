"""`medtune merge`: the run's adapter in its 16-bit base, as a folder for everybody, and what merging changed."""

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from medtune.config.schema import Config
from medtune.errors import Command, ConfigError, ModelError, Option
from medtune.model.adapters import adapter_fingerprint, resolve_adapter
from medtune.model.loading import base_identity, model_without_weights, resolve_base
from medtune.model.merging.folder import existing_merge, write_companions, write_record
from medtune.model.merging.planning import plan_merge
from medtune.model.merging.record import MergeMeasurement, MergeRecord
from medtune.model.merging.weights import write_merge
from medtune.model.quantization import PLAIN
from medtune.model.stored_weights import stored_quantization
from medtune.model.tensor_files import stored_tensors
from medtune.run_dir.directory import RunDir
from medtune.run_dir.layout import stage_named
from medtune.runtime.hardware import PeakMemory, release_memory
from medtune.runtime.progress import progress_bar, say
from medtune.storage.disk_errors import writing
from medtune.storage.reading import FileRecord, describe_file
from medtune.storage.writing import clear_abandoned, replacing_folder, require_room
from medtune.training.checkpoints.sealing import last_checkpoint

MergedDtype = Literal["bfloat16", "float16", "float32"]
# Beside the weights: tokenizer, configuration, licence.
_COMPANION_BYTES = 40 * 10**6


@dataclass(frozen=True)
class _Merge:
    """What is merged, and where to; `record` holds what is known before."""

    run_dir: RunDir
    base: Path
    adapter: Path
    to: Path
    record: MergeRecord


def merge_stage(
    run_dir: RunDir, to: Path, *, dtype: MergedDtype = "bfloat16", measure: bool | None = None
) -> MergeRecord:
    """Merge the adapter of a run into the folder `to`, measure what that changed, and write `merge.json`.

    Where `to` holds that merge already, it is only measured, if it has not been or `measure` is true; with None it is
    measured where that takes minutes. Raises MedtuneError and merges nothing, or if measuring fails, leaves the merge.
    """
    if dtype not in get_args(MergedDtype):
        raise ConfigError(Option("dtype", dtype), f"must be one of {', '.join(get_args(MergedDtype))}")
    run_dir.lock()
    merge = _plan(run_dir, to, dtype)
    record = existing_merge(merge.to, merge.record)
    if record is None:
        record = _write(merge)
    else:
        say(f"{merge.to}: holds this merge already")
    run_dir.write_json(run_dir.merge_file, asdict(record))
    if measure or (record.measured is None and measure is None):
        record = _measured(merge, record, asked=bool(measure))
        write_record(merge.to, record)
        run_dir.write_json(run_dir.merge_file, asdict(record))
    return record


def _plan(run_dir: RunDir, to: Path, dtype: MergedDtype) -> _Merge:
    config = run_dir.pinned_config
    adapter = adapter_in_use(run_dir, config)
    if config.lora.init == "loftq" and adapter == run_dir.adapter_dir:
        say("adapter: LoftQ made up for NF4's errors, which the 16-bit base does not have: merging adds them there")
    base = resolve_base(config.model.base, config.model.revision)
    run_dir.require_same_base(base_identity(config.model.base, base))
    if to.is_symlink() or to.name in ("", ".."):
        to = to.resolve()
    # What is published tells nobody of this machine's folders.
    name = base.path.resolve().name if os.path.isdir(config.model.base) else config.model.base
    record = MergeRecord(
        destination=to.name,
        base=name,
        revision=base.revision,
        adapter=adapter_fingerprint(adapter),
        dtype=dtype,
        shards=0,
        bytes=0,
        changed_tensors=0,
        seconds=0.0,
        peak_rss_bytes=0,
        not_measured=f"{Command('merge')} with the same RUN and {Option('to')} measures it",
        identity=base_identity(name, base),
    )
    return _Merge(run_dir, base.path, adapter, to, record)


def adapter_in_use(run_dir: RunDir, config: Config) -> Path:
    """The trained adapter, or the stored one that the run evaluated in its place. Raises MedtuneError."""
    stored, command = config.model.adapter, Command("train", run_dir.path)
    if stored is None or run_dir.damage("train") or run_dir.is_complete("train") or last_checkpoint(run_dir):
        run_dir.require("train", command)
        return run_dir.adapter_dir
    # What a training starts from is not what it makes.
    if not run_dir.is_complete("tuned"):
        run_dir.require(
            "train", (command, f" or, to evaluate {stored} as it is, ", stage_named("tuned").command_for(run_dir.path))
        )
    adapter = resolve_adapter(stored)
    evaluated = run_dir.stage_records["tuned"].get("adapter")
    if evaluated not in (None, adapter_fingerprint(adapter)):
        raise ModelError(stored, "not the adapter that was evaluated", "put that back, or start a new run")
    return adapter


def _write(merge: _Merge) -> MergeRecord:
    release_memory()
    memory = PeakMemory()
    began = time.monotonic()
    name, dtype = merge.run_dir.pinned_config.model.base, merge.record.dtype
    plan = plan_merge(merge.base, merge.adapter, name=name, dtype=dtype)
    clear_abandoned(merge.to)
    require_room(merge.to, plan.bytes + _COMPANION_BYTES, Option("to"))
    with writing(merge.to):
        merge.to.parent.mkdir(parents=True, exist_ok=True)
    with replacing_folder(merge.to) as folder:
        with progress_bar("Merging", round(plan.bytes / 1e6), unit="MB") as advance:
            files = write_merge(plan, folder, on_bytes=in_megabytes(advance))
        write_companions(merge.base, merge.adapter, folder, dtype=dtype, untied=plan.untied, vocabulary=plan.vocabulary)
        files |= {file.name: FileRecord(**describe_file(file)) for file in folder.iterdir() if file.name not in files}
        record = replace(
            merge.record,
            files=dict(sorted(files.items())),
            shards=len(plan.files),
            bytes=plan.bytes,
            changed_tensors=plan.changed,
            seconds=round(time.monotonic() - began, 3),
            peak_rss_bytes=memory.rss_bytes(),
        )
        write_record(folder, record)
        # The folder that is there is replaced, and what came into it meanwhile is somebody's.
        if existing_merge(merge.to, merge.record) is not None:
            raise ModelError(merge.to, "another process has merged into it meanwhile", "the same command measures it")
    return record


def _measured(merge: _Merge, record: MergeRecord, *, asked: bool) -> MergeRecord:
    from medtune.inference.merge_measurement import NotMeasuredError, choose_prompts, measure_merge, plan_measuring

    weights = sum(tensor.rows * tensor.row_elements for tensor in stored_tensors(merge.to).values())
    plan = plan_measuring(merge.run_dir.pinned_config, weights, asked=asked)
    release_memory()
    try:
        if plan.obstacle is not None:
            raise NotMeasuredError(plan.obstacle)
        if not merge.run_dir.is_complete("data"):
            damage = merge.run_dir.damage("data") or "the data stage has not ended"
            raise NotMeasuredError(f"the run's test questions are not there ({damage})")
        pairs = choose_prompts(merge.run_dir.read_split("test"))
        found = measure_merge(merge.run_dir.pinned_config, merge.adapter, merge.to, pairs, plan)
        return replace(record, measured=found, not_measured=None)
    except NotMeasuredError as error:
        say(f"not measured: {error}")
        return record if record.measured is not None else replace(record, not_measured=str(error))


def measure_folder(run_dir: RunDir, folder: Path) -> MergeMeasurement:
    """How far the model in `folder`, a merge that was quantised, is from the one that was evaluated.

    Its weights are dequantised, or in compressed-tensors' format, which are dequantised as they are loaded. It is held
    to the bound of a quantised base, since more than merging's rounding is to be expected. Nothing is written. Raises
    MedtuneError if the folder's weights are packed in another way, or memory runs out.
    """
    from medtune.inference.merge_measurement import (
        BOUND,
        NotMeasuredError,
        choose_prompts,
        measure_merge,
        plan_measuring,
    )

    if (stored := stored_quantization(folder)) is not None and not PLAIN.reads(stored):
        fix = "dequantise it with the library that wrote it, and save it in bfloat16"
        raise ModelError(folder, "its weights are packed, and only plain and compressed-tensors' are measured", fix)
    run_dir.lock()
    config = run_dir.pinned_config
    adapter = adapter_in_use(run_dir, config)
    shape = model_without_weights(folder, "float32", str(folder))
    weights = sum(parameter.numel() for parameter in shape.parameters())
    plan = plan_measuring(config, weights, asked=True)
    release_memory()
    if plan.obstacle is not None:
        raise NotMeasuredError(plan.obstacle)
    found = measure_merge(config, adapter, folder, choose_prompts(run_dir.read_split("test")), plan)
    return replace(found, rounding=None, bound=BOUND, within_bound=found.kl.mean <= BOUND)


def in_megabytes(advance: Callable[[int], None]) -> Callable[[int], None]:
    """A function that is told bytes, for a progress bar that counts megabytes."""
    written = shown = 0

    def count(size: int) -> None:
        nonlocal written, shown
        written += size
        advance(round(written / 1e6) - shown)
        shown = round(written / 1e6)

    return count

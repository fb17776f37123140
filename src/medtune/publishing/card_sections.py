"""What a model card says besides its scores, each section made from what the run recorded."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from medtune.config.evaluation import GenerationSection
from medtune.config.schema import Config
from medtune.config.training import LoraSection
from medtune.data.audit_record import Audit
from medtune.data.leakage import KIND_NAMES
from medtune.evaluation.formatting import format_count, format_value, metric_label
from medtune.evaluation.headline import best_control
from medtune.evaluation.human.results import SCORES_FILE
from medtune.model.merging.record import MergeRecord
from medtune.model.quantization import FORMATS
from medtune.publishing.merge_record import merge_sentences, read_merge
from medtune.publishing.public_names import PublicNames, public_name
from medtune.records import Comparison
from medtune.run_dir.directory import RunDir
from medtune.run_dir.layout import STAGE_NAMES
from medtune.runtime.terminal import one_line
from medtune.storage.reading import DamagedError, check_type, read_mapping

# Name and value, a row of a table.
Pairs = list[tuple[str, str]]
_GIB = 2**30


@dataclass(frozen=True)
class _Training:
    steps: int | None = None
    best_step: int | None = None
    validation_loss: float | None = None
    trainable_parameters: int | None = None
    tokens: int | None = None


@dataclass(frozen=True)
class _Stage:
    seconds: float | None = None
    peak_rss_bytes: int | None = None
    peak_gpu_bytes: int | None = None
    choices: dict[str, dict[str, str]] = field(default_factory=dict)
    training: _Training = _Training()
    plan: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Gpu:
    name: str
    memory_bytes: int


@dataclass(frozen=True)
class _Hardware:
    processor: str = "unknown"
    cpu_count: int | None = None
    memory_bytes: int | None = None
    gpus: list[_Gpu] = field(default_factory=list)


@dataclass(frozen=True)
class _Recorded:
    """The part of `provenance.json` that people are told."""

    stages: dict[str, _Stage] = field(default_factory=dict)
    hardware: _Hardware = _Hardware()
    versions: dict[str, str] = field(default_factory=dict)
    commit: str | None = None


def read_recorded(run: RunDir) -> _Recorded:
    """What the run recorded of itself. Raises RunDirError if it is damaged."""
    return run.read_as(_Recorded, run.provenance_file) if run.provenance_file.is_file() else _Recorded()


def compute_dtype(recorded: _Recorded) -> str:
    """The dtype that the tuned model was computed in, or else the trained one."""
    for stage in ("tuned", "train"):
        if choice := recorded.stages.get(stage, _Stage()).choices.get("dtype"):
            return one_line(choice.get("value", "bfloat16"))
    return "bfloat16"


def primary_rows(comparison: Comparison) -> list[tuple[str, str, str, str, str]]:
    """Name, baseline, tuned, best control and verdict of each metric on which the verdict rests."""
    rows: list[tuple[str, str, str, str, str]] = []
    for row in comparison.rows:
        if row.table == "standard" and row.is_primary:
            best = best_control(comparison, row.metric)
            control = f"{format_value(row.metric, best[1])} ({best[0].replace('_', ' ')})" if best else "-"
            values = format_value(row.metric, row.baseline), format_value(row.metric, row.tuned)
            rows.append((metric_label(row.metric), *values, control, row.verdict))
    return rows


def _kinds(lora: LoraSection) -> list[str]:
    """What makes this adapter other than plain LoRA from the default first weights."""
    kinds = [label for label, is_so in (("rsLoRA", lora.rslora), ("DoRA", lora.dora)) if is_so]
    kinds += [] if lora.init == "default" else [f"first weights {lora.init}"]
    kinds += [] if lora.layers is None else [f"layers {', '.join(map(str, lora.layers))}"]
    kinds += [f"rank {rank} for {name}" for name, rank in lora.rank_pattern.items()]
    kinds += [f"alpha {alpha:g} for {name}" for name, alpha in lora.alpha_pattern.items()]
    return kinds + [f"{name} trained whole" for name in lora.modules_to_save]


def _answers(generation: GenerationSection) -> str:
    writer = ", written by vLLM" if generation.engine == "vllm" else ""
    return f"{generation.decoding}, at most {generation.max_new_tokens:,} new tokens{writer}"


def recipe_rows(config: Config, recorded: _Recorded) -> Pairs:
    """Hyper-parameters as they were set, and what the training came to."""
    lora, training, stage = config.lora, config.training, recorded.stages.get("train", _Stage())
    result = stage.training
    rows: list[tuple[str, Any]] = [
        ("base weights", FORMATS[config.model.quantization].description),
        ("compute dtype", compute_dtype(recorded)),
        ("LoRA rank, alpha, dropout", f"{lora.rank}, {lora.alpha:g}, {lora.dropout:g}"),
        ("LoRA targets", lora.targets if isinstance(lora.targets, str) else ", ".join(lora.targets)),
        *([("LoRA kind", ", ".join(kinds))] if (kinds := _kinds(lora)) else []),
        ("trainable parameters", _number(result.trainable_parameters)),
        ("epochs", f"{training.epochs:g}"),
        ("optimiser steps", _number(result.steps)),
        ("rows a step", f"{training.effective_batch_rows:,}"),
        ("longest row", f"{training.max_length:,} tokens; longer ones are {_OVERLONG[training.overlong]}"),
        ("tokens trained on", _number(result.tokens)),
        ("learning rate", f"{training.learning_rate:g}, {training.schedule}, warm-up {training.warmup_ratio:g}"),
        ("optimiser", stage.plan.get("optimizer", training.optimizer)),
        ("weight decay, gradient norm", f"{training.weight_decay:g}, {training.max_grad_norm:g}"),
        ("weights kept", f"{training.keep}, of step {_number(result.best_step)}"),
        ("validation loss there", "-" if result.validation_loss is None else f"{result.validation_loss:.4f}"),
        ("seed", config.seed),
        ("answers", _answers(config.generation)),
    ]
    if config.model.adapter:
        rows.insert(1, ("started from adapter", public_name(config.model.adapter)))
    return [(name, one_line(str(value))) for name, value in rows]


def hardware_lines(recorded: _Recorded) -> list[str]:
    """The machine, in a sentence."""
    hardware = recorded.hardware
    gpus = [f"{one_line(gpu.name)} ({gpu.memory_bytes / _GIB:.0f} GiB)" for gpu in hardware.gpus]
    processor = one_line(hardware.processor)
    cores = format_count(hardware.cpu_count, "core") if hardware.cpu_count else "an unknown number of cores"
    memory = f", {hardware.memory_bytes / _GIB:.0f} GiB of memory" if hardware.memory_bytes else ""
    return [*gpus, f"{'no GPU; ' if not gpus else ''}{processor}, {cores}{memory}"]


def time_rows(recorded: _Recorded) -> list[tuple[str, str, str]]:
    """Stage, hours, and peak memory, a row a stage that ended; the last is all of them."""
    stages = [(name, recorded.stages[name]) for name in STAGE_NAMES if name in recorded.stages]
    timed = [(name, stage, stage.seconds) for name, stage in stages if stage.seconds is not None]
    rows = [(name, _hours(seconds), _peak(stage)) for name, stage, seconds in timed]
    return [*rows, ("all", _hours(sum(seconds for _, _, seconds in timed)), "")]


def version_line(recorded: _Recorded) -> str:
    """Every package's version, and medtune's commit where it is known."""
    versions = [f"{one_line(name)} {one_line(version)}" for name, version in recorded.versions.items()]
    commit = [f"medtune's commit {one_line(recorded.commit)}"] if recorded.commit else []
    return ", ".join([*versions, *commit]) or "not recorded"


def count_rows(run: RunDir) -> Pairs:
    """How many rows were read, kept and dealt to each split."""
    if not run.data_report_file.is_file():
        return []
    report = run.read_as(dict[str, Any], run.data_report_file)
    try:
        source = check_type(dict[str, Any], report.get("source", {}))
        splits = check_type(dict[str, int], report.get("rows", {}))
    except DamagedError:
        return []
    counts = {"read": source.get("rows_read"), "kept by cleaning": source.get("rows_kept"), **splits}
    return [(one_line(name), f"{count:,}") for name, count in counts.items() if isinstance(count, int)]


def leakage_rows(run: RunDir) -> list[tuple[str, str, str]]:
    """What test rows share with training rows: kind, how many in this split, and the share in a random one."""
    if not run.audit_file.is_file():
        return []
    found = run.read_as(Audit, run.audit_file).leakage
    return [
        (KIND_NAMES[kind], f"{own.rows:,} ({own.share:.1%})", f"{leak.random.in_train.share:.1%}")
        for kind, leak in found.items()
        if leak and leak.random and kind in KIND_NAMES and (own := leak.split.in_train)
    ]


def human_lines(run: RunDir) -> list[str]:
    """What people's ratings say, in sentences; none where nobody rated, or where what they come to cannot be read."""
    try:
        lines = check_type(list[str], read_mapping(run.human_dir / SCORES_FILE).get("reading"))
    except (FileNotFoundError, DamagedError):
        return []
    return [one_line(line) for line in lines]


def merge_lines(run: RunDir, record: MergeRecord | None = None) -> list[str]:
    """What merging changed by `record` or else by the run's own, in sentences; none where it was not merged."""
    record = record or read_merge(run)
    return merge_sentences(record, evaluated=run.is_complete("compare"), public=True) if record else []


def data_sentence(config: Config, names: PublicNames) -> str:
    """Where the rows came from and how they were shared out."""
    commit = f" at commit {names.source_revision}" if names.source_revision else ""
    test = f"; the test rows are those of {public_name(config.data.test_source)}" if config.data.test_source else ""
    return f"{names.source}{commit}, split by the {config.data.split.method} method with seed {config.seed}{test}."


_OVERLONG: Mapping[str, str] = {"cut": "cut at a sentence's end", "drop": "left out"}


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.2f} h" if seconds >= 360 else f"{seconds:.0f} s"


def _peak(stage: _Stage) -> str:
    if stage.peak_gpu_bytes:
        return f"{stage.peak_gpu_bytes / _GIB:.2f} GiB on the GPU"
    return f"{stage.peak_rss_bytes / _GIB:.2f} GiB in RAM" if stage.peak_rss_bytes else "-"


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"

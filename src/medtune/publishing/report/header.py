"""The page's head: when, with what and on what a run was made, and what it cost."""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from medtune.config.changes import changed_keys
from medtune.config.recipes import shipped_configs
from medtune.config.schema import Config
from medtune.evaluation.formatting import format_count
from medtune.publishing.public_names import public_name, public_source
from medtune.publishing.report.reading_run import ReportData
from medtune.publishing.report.run_tables import as_mapping, as_text, duration, seconds_of
from medtune.publishing.report.training_charts import GIB, stage_peaks, stage_records

_UNKNOWN = "not recorded"
# Filled in from what was found on the Hub.
_REVISIONS = ("model.revision:", "data.revision:")


def header_facts(data: ReportData) -> list[tuple[str, str]]:
    """Name and value of each fact, in the order shown; what a run did not record says so."""
    provenance, config = data.provenance, data.config
    return [
        ("Date", _date(provenance)),
        ("medtune", _version(provenance)),
        ("Recipe", describe_recipe(config)),
        ("Model", f"{public_name(config.model.base)}, {config.model.quantization}"),
        ("Data", _data(data)),
        ("Hardware", _hardware(as_mapping(provenance.get("hardware")))),
        ("Cost", _cost(provenance)),
    ]


def describe_recipe(config: Config) -> str:
    """The shipped recipe for the same base model that differs in the fewest settings, and in how many."""
    changes = {
        name: [key for key in changed_keys(recipe, config) if not key.startswith(_REVISIONS)]
        for name, recipe in shipped_configs().items()
        if recipe.model.base == config.model.base
    }
    if not changes:
        return "of its own"
    nearest = min(changes, key=lambda name: len(changes[name]))
    number = len(changes[nearest])
    return f"{nearest}, {format_count(number, 'setting')} changed" if number else nearest


def _date(provenance: Mapping[str, Any]) -> str:
    ended = stage_records(provenance).get("compare", {}).get("ended")
    try:
        day = datetime.fromisoformat(str(ended))
    except ValueError:
        return _UNKNOWN
    return f"{day.day} {day:%B} {day.year}"


def _version(provenance: Mapping[str, Any]) -> str:
    version = as_mapping(provenance.get("versions")).get("medtune")
    commit = provenance.get("commit")
    parts = [as_text(version)] if version else []
    parts += [f"commit {as_text(commit)[:9]}"] if commit else []
    return ", ".join(parts) or _UNKNOWN


def _data(data: ReportData) -> str:
    rows = data.comparison.rows
    size = (
        f"{format_count(rows[0].n, 'question')} in {format_count(rows[0].groups, 'group')}" if rows else "no questions"
    )
    return f"{public_source(data.config)}, tested on {size}"


def _hardware(hardware: Mapping[str, Any]) -> str:
    gpus = hardware.get("gpus")
    named = [as_text(as_mapping(gpu).get("name")) for gpu in gpus] if isinstance(gpus, list) else []
    if named:
        return ", ".join(f"{count} x {name}" if count > 1 else name for name, count in Counter(named).items())
    cores, memory = hardware.get("cpu_count"), hardware.get("memory_bytes")
    parts = [format_count(cores, "CPU core")] if isinstance(cores, int) else []
    parts += [f"{memory / GIB:.0f} GiB"] if isinstance(memory, int) else []
    return ", ".join(["no GPU", *parts]) if parts else _UNKNOWN


def _cost(provenance: Mapping[str, Any]) -> str:
    """Time of the training and of all stages, the training's peak, and on GPUs their hours. Prices are not recorded."""
    stages, (peaks, on_gpu) = stage_records(provenance), stage_peaks(provenance)
    if not stages:
        return _UNKNOWN
    parts = []
    if "train" in stages:
        parts.append(f"training {duration(seconds_of(stages['train']))}")
    if "train" in peaks:
        parts.append(f"peak {peaks['train'] / GIB:.1f} GiB" + (" on the GPU" if on_gpu else ""))
    total = sum(map(seconds_of, stages.values()))
    parts.append(f"whole run {duration(total)}")
    gpus = as_mapping(provenance.get("hardware")).get("gpus")
    if on_gpu and isinstance(gpus, list):
        parts.append(f"{len(gpus) * total / 3600:.2f} GPU-hours")
    return ", ".join(parts)

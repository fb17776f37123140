"""The report's tables of how a run went: training, cost, data, choices, versions."""

from collections.abc import Mapping, Sequence
from typing import Any

from medtune.data import conversations, row_markup
from medtune.data.audit_record import Audit
from medtune.data.leakage import KIND_NAMES, KINDS
from medtune.publishing.public_names import public_name, public_source, without_paths
from medtune.publishing.report.reading_run import ReportData, Step
from medtune.publishing.report.score_tables import Table, make_table
from medtune.publishing.report.training_charts import GIB, planned_peak, stage_peaks, stage_records, validation_losses

# As many lines as tell a curve's course.
_CURVE_ROWS = 12
_LONGEST = 200  # characters of a cell


def curve_table(history: Sequence[Step]) -> Table | None:
    """The curves of the training in numbers, at regular distances, and every validation."""
    steps = [entry for entry in history if entry.loss is not None]
    if not steps:
        return None
    last = len(steps) - 1
    picked = sorted({round(place * last / (_CURVE_ROWS - 1)) for place in range(_CURVE_ROWS)})
    validated = dict(validation_losses(history))
    shown = {steps[place].step: steps[place] for place in picked}
    shown |= {entry.step: entry for entry in steps if entry.step in validated and len(validated) <= 2 * _CURVE_ROWS}
    rows = [
        (
            f"{entry.step:,}",
            _number(entry.tokens, ",.0f"),
            _number(entry.loss, ".4f"),
            _number(validated.get(entry.step), ".4f"),
            _number(entry.learning_rate, ".3g"),
            _number(entry.tokens_per_second, ",.0f"),
        )
        for _, entry in sorted(shown.items())
    ]
    head = ("Step", "Tokens so far", "Loss", "Validation loss", "Learning rate", "Tokens a second")
    return make_table("The training's course", head, rows)


def cost_table(provenance: Mapping[str, Any]) -> Table:
    """Seconds and peak memory of every stage."""
    peaks, on_gpu = stage_peaks(provenance)
    rows = []
    for name, cost in stage_records(provenance).items():
        host = cost.get("peak_rss_bytes")
        peak = f"{peaks[name] / GIB:.2f}" if on_gpu and name in peaks else "-"
        rows.append((name, duration(seconds_of(cost)), peak, f"{host / GIB:.2f}" if isinstance(host, int) else "-"))
    return make_table(
        "What each stage took", ("Stage", "Time", "Peak GPU memory, GiB", "Peak process memory, GiB"), rows
    )


def cost_sentences(provenance: Mapping[str, Any]) -> list[str]:
    """Hours in all, and what the plan of the training step predicted beside what was measured."""
    total = sum(seconds_of(cost) for cost in stage_records(provenance).values())
    sentences = [f"The stages took {duration(total)} together ({total / 3600:.2f} hours)."]
    planned, (peaks, on_gpu) = planned_peak(provenance), stage_peaks(provenance)
    if planned and on_gpu and "train" in peaks:
        measured = peaks["train"]
        sentences.append(
            f"Training was planned to peak at {planned / GIB:.2f} GiB of GPU memory and peaked at "
            f"{measured / GIB:.2f} GiB ({measured / planned - 1:+.1%})."
        )
    elif planned:
        sentences.append(
            f"Training was planned to take {planned / GIB:.2f} GiB for weights, activations and optimiser; without a "
            "GPU only the whole process is measured, libraries included."
        )
    train = stage_records(provenance).get("train", {})
    if tokens := _whole(as_mapping(train.get("training")).get("tokens")):
        seconds = seconds_of(train)
        rate = f", {tokens / seconds:,.0f} tokens a second with loading and validation" if seconds else ""
        sentences.append(f"Training took in {tokens:,} tokens in {duration(seconds)}{rate}.")
    return sentences


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


# Counts that most sources have none of.
_FOUND = {**conversations.COUNT_NAMES, **row_markup.COUNT_NAMES}


def audit_tables(audit: Audit) -> list[Table]:
    """Rows and topics, leakage beside a random split, lengths."""
    rows, counts = audit.split.rows, audit.counts
    read = sum(_whole(part.get("rows_read")) for part in audit.cleaning.values())
    found = {rule: sum(_whole(part.get(rule)) for part in audit.cleaning.values()) for rule in _FOUND}
    figures = [
        ("rows read", f"{read:,}"),
        *((name, f"{number:,}") for rule, name in _FOUND.items() if (number := found[rule])),
        ("rows kept", f"{counts.rows:,}"),
        *((f"{name} rows", f"{number:,}") for name, number in rows.items()),
        ("different questions", f"{counts.questions:,}"),
        ("different answers", f"{counts.answers:,}"),
        ("topics", f"{counts.focuses:,}"),
        ("documents", f"{counts.documents:,}"),
        ("groups that a split keeps whole", f"{counts.groups:,}"),
        ("rows of the largest group", f"{counts.largest_group:,}"),
    ]
    lengths = [
        (name, f"{spread.mean:,.1f}", f"{spread.median:,g}", f"{spread.p90:,g}", f"{spread.max:,g}")
        for name in ("question", "answer", "row")
        if (spread := getattr(audit.lengths, name))
    ]
    return [
        make_table("Rows", ("What", "How many"), figures),
        _leak_table(audit),
        make_table(
            "Lengths of all rows kept, in tokens", ("Text", "Mean", "Median", "90 % within", "Longest"), lengths
        ),
    ]


def _leak_table(audit: Audit) -> Table:
    method = audit.split.method
    rows = []
    for kind in KINDS:
        leak = audit.leakage.get(kind)
        shares = (leak.split, leak.random) if leak else (None, None)
        rows.append((KIND_NAMES[kind], *(f"{found.in_train.share:.1%}" if found else "not given" for found in shares)))
    head = ("Shared with a training row", f"This split ({method})", "A random split")
    return make_table("Share of the test rows with a match in train", head, rows)


def audit_sentences(audit: Audit) -> list[str]:
    """Duplicates and truncation."""
    copies, cut = audit.duplicates, audit.truncation
    lost = cut.tokens_lost / cut.tokens if cut.tokens else 0.0
    oldest = f", and {cut.shortened:,} conversations lose their oldest turns" if cut.shortened else ""
    return [
        f"{copies.rows_with_near_duplicate_answer:,} rows ({copies.share_with_near_duplicate_answer:.1%}) have an "
        f"equal or nearly equal answer elsewhere; {copies.template_rows:,} rows hold a template for many topics.",
        f"Rows are trained on up to {cut.max_length:,} tokens ({cut.policy}): of {cut.rows:,} training rows "
        f"{cut.cut:,} are cut and {cut.dropped:,} dropped{oldest}; {lost:.1%} of their tokens are lost.",
    ]


def identity_table(data: ReportData) -> Table:
    """Model, data, machine and versions of what the run was made of."""
    provenance, config = data.provenance, data.config
    model, source, hardware = (as_mapping(provenance.get(name)) for name in ("model", "data", "hardware"))
    gpus = hardware.get("gpus")
    rows = [
        ("base model", public_name(config.model.base)),
        ("its revision", as_text(model.get("revision"))),
        ("weights", config.model.quantization),
        ("data", public_source(config)),
        ("its revision", as_text(source.get("revision"))),
        ("fingerprint of its rows", as_text(source.get("fingerprint"))),
        ("GPUs", "; ".join(map(_gpu, gpus)) if isinstance(gpus, list) and gpus else "none"),
        ("CPU cores", as_text(hardware.get("cpu_count"))),
        ("memory, GiB", f"{_whole(hardware.get('memory_bytes')) / GIB:.1f}"),
        ("platform", as_text(hardware.get("platform"))),
        ("medtune's commit", as_text(provenance.get("commit"))),
        ("seed", str(config.seed)),
    ]
    return make_table("What the run was made of", ("What", "Value"), rows, 1)


def version_table(provenance: Mapping[str, Any]) -> Table:
    """Versions of the libraries."""
    versions = as_mapping(provenance.get("versions"))
    return make_table(
        "Versions", ("Package", "Version"), [(name, as_text(value)) for name, value in versions.items()], 1
    )


def choice_table(provenance: Mapping[str, Any]) -> Table | None:
    """What was chosen by the hardware, and why."""
    rows = []
    for stage, cost in stage_records(provenance).items():
        for name, choice in as_mapping(cost.get("choices")).items():
            chosen = as_mapping(choice)
            rows.append((stage, name, as_text(chosen.get("value")), as_text(chosen.get("reason"))))
    plan = as_mapping(stage_records(provenance).get("train", {}).get("plan"))
    rows += [("train", name.replace("_", " "), as_text(value), "the plan of the step") for name, value in plan.items()]
    if not rows:
        return None
    return make_table("Choices made for the hardware", ("Stage", "Choice", "Value", "Why"), rows, 1, 2, 3)


def as_mapping(value: Any) -> Mapping[str, Any]:
    """A mapping of the provenance; an empty one where something else is in its place."""
    return value if isinstance(value, Mapping) else {}


def as_text(value: Any) -> str:
    """A plain value of the provenance in a cell."""
    return without_paths(str(value))[:_LONGEST] if isinstance(value, str | int | float) else "-"


def _gpu(value: Any) -> str:
    gpu = as_mapping(value)
    size = f"{_whole(gpu.get('memory_bytes')) / GIB:.1f} GiB"
    return f"{as_text(gpu.get('name'))}, {size}, compute capability {as_text(gpu.get('compute_capability'))}"


def seconds_of(cost: Mapping[str, Any]) -> float:
    """Seconds that a stage took; none where they are not recorded."""
    seconds = cost.get("seconds")
    return float(seconds) if isinstance(seconds, int | float) else 0.0


def _whole(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)

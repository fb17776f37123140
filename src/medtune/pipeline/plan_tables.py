"""Plans as tables: the peak part by part for one GPU, or a line for each of several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.table import Table

from medtune.errors import Option
from medtune.model.quantization import DEQUANTIZED
from medtune.pipeline.plan import Forecast, RowSizes
from medtune.pipeline.plan_power import Power, no_verdict
from medtune.runtime.terminal import print_text
from medtune.training.plan.forecast import REACHED_BY_STEPS
from medtune.training.plan.peaks import GIB

if TYPE_CHECKING:
    from rich.console import Console

# What a rate is told for where the rows were not read: an epoch of MedQuAD's training rows, cut at 1,024 tokens.
EXAMPLE_TOKENS, EXAMPLE = 4_078_356, "4.08 million tokens, such as an epoch of MedQuAD"


def print_plan(
    forecasts: Mapping[str, Forecast | str], rows: RowSizes, console: Console, power: Power | None = None
) -> None:
    """One GPU in detail, or a line for each of several; then what the test set can show."""
    match list(forecasts.values()):
        case [Forecast() as only]:
            _print_forecast(only, rows, console)
        case _:
            _print_comparison(forecasts, rows, console)
    if power is not None:
        print_text(power.sentence, console)
    if (expected := no_verdict(rows, power)) is not None:
        print_text(expected, console)


def _print_forecast(found: Forecast, rows: RowSizes, console: Console) -> None:
    """One GPU: the plan, the peak of training and of answers part by part, and the time."""
    plan, answers = found.step.plan, found.answers
    each = f"each of {rows.processes} GPUs: " if rows.processes > 1 else ""
    gpu = f"{each}{found.gpu.name}, {found.gpu.memory_gib:.2f} GiB usable, {found.model.dtype}; {rows.origin}"
    for line in (gpu, *_sharing_lines(found), f"training step: {plan.describe()}"):
        print_text(line, console)
    console.print()
    console.print(_waterfall("Training, GiB at the peak", training_parts(found)))
    console.print()
    if found.engine == "medtune":
        title = f"Answers, {answers.batch} at once with prompts of up to {answers.longest_prompt} tokens, GiB"
        console.print(_waterfall(title, answer_parts(found)))
        console.print()
        if sum(answer_parts(found).values()) > found.gpu.memory_gib * GIB:
            print_text("answers may not fit: a single question takes more than the GPU has", console)
    for line in (_training_time(found), _answer_time(found, rows)):
        print_text(line, console)


def _sharing_lines(found: Forecast) -> list[str]:
    """How several processes hold the model, and the host memory that loading it takes."""
    if found.sharing is None:
        return []
    lines, size = [f"weights: {found.sharing.value} ({found.sharing.reason})"], found.model.size
    if found.model.processes > 1:
        head = " and the head" if found.model.shape.head_slices else ""
        whole = "" if head else "the head, "
        table = "embeddings wait in host memory" if found.model.shape.embeddings_wait else "embeddings"
        lines += [
            f"shared out are the packed weights of the layers{head}: a GPU holds 1/{found.model.processes} of each, "
            f"and two layers that are put together; {whole}norms, adapters are on every GPU, {table}",
            f"host memory while the model is loaded: {size.largest_weight / GIB:.2f} GiB a process at most, one weight "
            "at a time",
        ]
    return lines


def training_parts(found: Forecast) -> dict[str, float]:
    """Bytes at the peak of training by what takes them, in the order in which they come."""
    parts, size = found.step.parts, found.model.size
    on_device = size.embeddings - (size.total - parts.model)
    head = ", input embeddings in host memory" if found.step.plan.embeddings == "host" else ""
    part = "part of the " if found.model.shape.head_slices else ""
    packed = f" ({found.model.storage.label})" if size.packed else ""
    return {
        f"{_held(found)}{packed}": size.layers,
        f"{part}embeddings and head{head}": on_device,
        "adapters": size.adapters,
        "weights dequantised once, and room for adapters": parts.dequantized,
        "gradients": parts.gradients,
        f"optimiser state ({found.step.plan.optimizer})": parts.optimizer,
        "inputs of layers that are computed again": parts.inputs,
        "kept activations of other layers": parts.kept,
        f"the widest moment: {parts.widest}": parts.moment,
    }


def _held(found: Forecast) -> str:
    return "weights of the layers" if found.model.processes == 1 else "parts of all layers, and two layers"


def answer_parts(found: Forecast) -> dict[str, float]:
    """Bytes at the peak of generation by what takes them."""
    answers, size = found.answers, found.model.size
    reading = answers.prompts >= answers.logits
    return {
        _held(found): size.layers,
        "embeddings and head": size.embeddings,
        "adapters": size.adapters,
        "weights dequantised once": answers.dequantized,
        "key-value cache" + (", static" if answers.static else ""): answers.cache,
        "the widest moment: " + ("reading prompts" if reading else "logits"): max(answers.prompts, answers.logits),
    }


def _print_comparison(found: Mapping[str, Forecast | str], rows: RowSizes, console: Console) -> None:
    """A line for each GPU, by the names that the command takes."""
    table = Table(title="What each GPU would do", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    gpu = str(Option("gpu"))
    for name in (gpu, "fits", "tokens a pass", "layers again", "weights", "peak GiB", "of GiB", "time (estimate)"):
        table.add_column(name, justify="left" if name in (gpu, "fits", "weights") else "right")
    for name, one in found.items():
        if isinstance(one, str):
            table.add_row(name, "no", "-", "-", "-", "-", "-", "-")
            continue
        table.add_row(name, "yes", *_plan_cells(one, rows))
    console.print(table)
    told = "this recipe's training" if rows.tokens else EXAMPLE
    lines = [
        rows.origin,
        f"time of {told}, if {REACHED_BY_STEPS:.0%} of the datasheet's operations are reached, as measured on an H200 "
        "alone",
        "for a CPU there is no estimate: a run tells the time that is left while it works",
        *(f"{name}: {reason}" for name, reason in found.items() if isinstance(reason, str)),
    ]
    for line in lines:
        print_text(line, console)


def _plan_cells(found: Forecast, rows: RowSizes) -> list[str]:
    plan, rate = found.step.plan, found.step.tokens_per_second
    return [
        f"{plan.tokens_per_micro_batch:,}",
        f"{plan.checkpointed_layers} of {plan.layers}",
        "16 bit" if plan.weights == DEQUANTIZED else "as stored",
        f"{plan.peak_bytes / GIB:.1f}",
        f"{plan.limit_bytes / GIB:.1f}",
        "-" if rate is None else duration((rows.tokens or EXAMPLE_TOKENS) / rate),
    ]


def _waterfall(title: str, parts: Mapping[str, float]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column(escape(title), no_wrap=True)
    table.add_column("GiB", justify="right")
    table.add_column("sum", justify="right")
    total = 0.0
    for name, size in parts.items():
        total += size
        if size:
            table.add_row(escape(name), f"{size / GIB:.2f}", f"{total / GIB:.2f}")
    return table


def _training_time(found: Forecast) -> str:
    rate = found.step.tokens_per_second
    if rate is None:
        return "training time: no estimate without the GPU's rate; name the GPU"
    seconds = found.training_seconds
    link = "gathers hidden behind the computation; " if found.model.processes > 1 else ""
    for_what = f"{duration(EXAMPLE_TOKENS / rate)} for {EXAMPLE}" if seconds is None else duration(seconds)
    return (
        f"training time, an estimate: {for_what}; {rate:,.0f} tokens a second, if steps reach {REACHED_BY_STEPS:.0%} "
        f"of the GPU's highest rate, as measured on an H200 alone; {link}validation and start not counted"
    )


def _answer_time(found: Forecast, rows: RowSizes) -> str:
    if found.engine == "vllm":
        return "answers' memory and time: no estimate; vLLM takes most of the GPU, and sets its own pace"
    if found.model.processes > 1:
        return "answers' time: no estimate; every step gathers all weights, and the link between the GPUs sets the pace"
    if not found.answers.static:
        return "answers' time: no estimate; without a static cache the host sets the pace"
    if found.answer_seconds is None:
        return "answers' time: no estimate; it needs the number of test rows and the GPU's rates"
    times = f" of {2 + rows.after_examples} times, {rows.after_examples} of them after worked examples"
    return (
        f"answers' time, an estimate: {duration(found.answer_seconds)} at most for {rows.questions:,} questions, "
        f"once{times if rows.after_examples else ' of 2 times'}; every answer taken to be as long as "
        "generation.max_new_tokens"
    )


def duration(seconds: float) -> str:
    """Rounded as an estimate deserves."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

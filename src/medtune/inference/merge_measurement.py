"""What merging changed: the model that was evaluated beside the merged one, on the same test questions.

The two are loaded one after the other. They are compared with the adapter on the base in 16 bit, which differs from the
merged model by rounding alone, and the base without its adapter, which shows how much there was to lose.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from medtune.config.schema import Config
from medtune.errors import ModelError, Option
from medtune.inference.decoders.greedy import Greedy
from medtune.inference.divergence import AnswerStates, NextTokenAgreement, answer_states, compare_states, same_prefix
from medtune.inference.fused_model import prepare_inference
from medtune.inference.generation import choose_batch_size, generate_tokens
from medtune.model.adapters import attach_adapter
from medtune.model.loaded import LoadedModel, load_model
from medtune.model.merging.record import MergeMeasurement
from medtune.model.quantization import FORMATS, PLAIN
from medtune.records import EncodedRow, QAPair
from medtune.runtime.hardware import (
    choose_device,
    choose_dtype,
    free_bytes,
    host_free_bytes,
    release_memory,
    torch_dtype,
)
from medtune.runtime.progress import progress_bar, say

PROMPTS = 64
# At most, of each reference answer: the long tail of a few answers would be most of the tokens.
ANSWER_TOKENS = 256
# At most, of each greedy answer: where two models differ, they mostly do so early.
NEW_TOKENS = 64
# Mean divergence in nats a token beyond which a merge is marked. NF4 moves a model's next tokens by a few hundredths
# (docs/merging.md), and that much the merged model, which is back in 16 bit, is away from the one that was evaluated. A
# tenth is more than quantisation explains. Where nothing was quantised, and beside the adapter on the 16-bit base,
# there is rounding alone.
BOUND, ROUNDING_BOUND = 0.1, 0.01
# Weights that a CPU gets through in minutes; more are measured there only if asked for.
CPU_WEIGHTS = 2e9
# What weights may take of the free memory; the rest is for what is computed.
WEIGHTS_SHARE = 0.9


class NotMeasuredError(ModelError):
    """Memory did not suffice; the text says so in a few words."""


@dataclass(frozen=True)
class MeasuringPlan:
    """Where the merged model goes to be measured: on one device, `spread` over GPU and host memory, or nowhere."""

    obstacle: str | None = None
    spread: bool = False


def plan_measuring(config: Config, weights: int, *, asked: bool) -> MeasuringPlan:
    """Whether a model of so many weights can be measured here, in the dtype that the run computes in.

    A GPU that is too small gets help from host memory, for next tokens but not for answers. Without a GPU a large model
    is measured only if `asked`.
    """
    device = choose_device().value
    size = weights * torch_dtype(choose_dtype(config.model.dtype, device).value).itemsize
    free = free_bytes(device) * WEIGHTS_SHARE
    if device == "cpu" and weights > CPU_WEIGHTS and not asked:
        hours = "without a GPU a model of this size takes hours"
        return MeasuringPlan(f"{hours}; {Option('measure')} does it all the same")
    if size <= free:
        return MeasuringPlan()
    if device != "cpu" and size <= free + host_free_bytes() * WEIGHTS_SHARE:
        return MeasuringPlan(spread=True)
    lacking = f"its {size / 2**30:.1f} GiB of weights do not fit in the {free / 2**30:.1f} GiB"
    return MeasuringPlan(f"{lacking} that are free for them")


def choose_prompts(pairs: Sequence[QAPair]) -> list[QAPair]:
    """The `PROMPTS` rows whose ids have the smallest SHA-256: spread over topics, and the same for every seed."""
    return sorted(pairs, key=lambda pair: hashlib.sha256(pair.id.encode()).hexdigest())[:PROMPTS]


def measure_merge(
    config: Config, adapter: Path, merged: Path, pairs: Sequence[QAPair], plan: MeasuringPlan
) -> MergeMeasurement:
    """The model of `config` with `adapter` as it was evaluated, against the one in the folder `merged`, on `pairs`.

    Raises NotMeasuredError if memory runs out, and ModelError if a model cannot be loaded.
    """
    packed = FORMATS[config.model.quantization].packed
    sixteen = None
    try:
        say("── the model that was evaluated: base and adapter")
        first = _evaluated(config, adapter, pairs, generate=not plan.spread)
        release_memory()
        if packed and not plan.spread:
            say("── base in 16 bit and adapter")
            sixteen = _in_16_bit(config, adapter, first.rows)
            release_memory()
        say("── the merged model")
        second = _merged(config, merged, first, spread=plan.spread)
        device = torch.device(choose_device().value)
        kl = compare_states(first.states, second.states, device)
        rounding = None if packed else kl
        if sixteen is not None:
            rounding = compare_states(sixteen, second.states, device)
    except torch.OutOfMemoryError:
        raise NotMeasuredError("memory ran out") from None
    return _summary(config, first, second, kl, rounding)


@dataclass(frozen=True)
class _Run:
    """What one model did with the rows; `tuning` is how far it is from its base, where it has an adapter."""

    rows: list[EncodedRow]
    states: AnswerStates
    cap: int | None
    tokens: list[list[int]] | None
    dtype: str
    tuning: NextTokenAgreement | None = None


def _evaluated(config: Config, adapter: Path, pairs: Sequence[QAPair], *, generate: bool) -> _Run:
    loaded = load_model(config, for_training=False)
    rows = [_cut(row, loaded.positions) for row in loaded.renderer.encode_pairs(pairs)]
    cap = min(NEW_TOKENS, config.generation.max_new_tokens) if generate else None
    model = attach_adapter(loaded.model, adapter, trainable=False)
    with model.disable_adapter():
        base = replace(_states(model, rows, "Base without its adapter"), within=model.disable_adapter)
    run = _with_model(model, loaded, rows, cap)
    tuning = compare_states(run.states, base, torch.device(loaded.device))
    run.states.park()
    return replace(run, tuning=tuning)


def _in_16_bit(config: Config, adapter: Path, rows: Sequence[EncodedRow]) -> AnswerStates:
    section = config.model.model_copy(update={"quantization": PLAIN.name, "adapter": None})
    loaded = load_model(config.model_copy(update={"model": section}), for_training=False)
    model = attach_adapter(loaded.model, adapter, trainable=False)
    return _states(model, rows, "Reference answers").park()


def _merged(config: Config, folder: Path, evaluated: _Run, *, spread: bool) -> _Run:
    changes = {"base": str(folder), "revision": None, "quantization": PLAIN.name, "adapter": None}
    section = config.model.model_copy(update=changes | ({"device_map": "auto"} if spread else {}))
    loaded = load_model(config.model_copy(update={"model": section}), for_training=False)
    return _with_model(loaded.model, loaded, evaluated.rows, evaluated.cap)


def _with_model(model: Any, loaded: LoadedModel, rows: list[EncodedRow], cap: int | None) -> _Run:
    prepare_inference(model, loaded.dtype)
    states = _states(model, rows, "Reference answers")
    tokens = None
    if cap is not None:
        prompts = [row.input_ids[: row.prompt_length] for row in rows]
        greedy = Greedy.of(loaded.renderer.tokenizer, loaded.end_token_ids, cap)
        size = choose_batch_size(model, longest_prompt=max(map(len, prompts)), max_new_tokens=cap)
        with progress_bar("Answering questions", len(rows)) as advance:
            tokens = generate_tokens(model, prompts, greedy, batch_size=size, on_rows=advance)
    return _Run(rows, states, cap, tokens, loaded.dtype)


def _states(model: Any, rows: Sequence[EncodedRow], what: str) -> AnswerStates:
    with progress_bar(what, len(rows)) as advance:
        return answer_states(model, rows, advance)


def _cut(row: EncodedRow, positions: int | None) -> EncodedRow:
    length = min(row.prompt_length + ANSWER_TOKENS, positions or len(row.input_ids))
    return replace(row, input_ids=row.input_ids[:length], labels=row.labels[:length])


def _summary(
    config: Config, first: _Run, second: _Run, kl: NextTokenAgreement, rounding: NextTokenAgreement | None
) -> MergeMeasurement:
    bound = BOUND if FORMATS[config.model.quantization].packed else ROUNDING_BOUND
    of_kl, of_rounding = kl.summary(), rounding.summary() if rounding else None
    answers = (first.tokens, second.tokens) if first.tokens is not None and second.tokens is not None else None
    return MergeMeasurement(
        prompts=len(first.rows),
        positions=len(kl.same),
        kl=of_kl,
        agreement=kl.share,
        rounding=of_rounding,
        tuning=first.tuning.summary() if first.tuning else None,
        new_tokens=first.cap,
        same_prefix=same_prefix(*answers) if answers else None,
        same_answers=sum(a == b for a, b in zip(*answers, strict=True)) if answers else None,
        quantization=config.model.quantization,
        compute_dtype=first.dtype,
        bound=bound,
        rounding_bound=ROUNDING_BOUND,
        # Written so that NaN is beyond the bound.
        within_bound=of_kl.mean <= bound and (of_rounding is None or of_rounding.mean <= ROUNDING_BOUND),
    )

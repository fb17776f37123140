"""One model's answers and reference losses on the test rows, resumed where an earlier process was stopped."""

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import chain
from types import MappingProxyType
from typing import Any

from pydantic import TypeAdapter, ValidationError

from medtune.config.schema import Config
from medtune.inference.decoders.greedy import Greedy
from medtune.inference.decoders.static import static_cache_obstacle
from medtune.inference.fused_model import prepare_inference
from medtune.inference.generation import answer_batches, choose_batch_size, plan_batches, unwrapped
from medtune.inference.scoring import plan_passes, score_passes, scoring_tokens
from medtune.model.loaded import LoadedModel
from medtune.model.packing import rows_checksum
from medtune.records import Answer, AnswerLoss, EncodedRow, Prediction, QAPair
from medtune.run_dir.partial_results import BatchWork, PartialResults
from medtune.runtime.distributed import from_main
from medtune.runtime.hardware import Choice
from medtune.runtime.launch import is_main, world_size
from medtune.runtime.progress import progress_bar, say

# Questions that vLLM has at once, unless the recipe says otherwise.
VLLM_REQUESTS = 128


@dataclass(frozen=True, slots=True)
class AnswerPlan:
    """All that results depend on to the last bit: which rows are scored and answered together, and with what weights.

    `passes` and `batches` are indices of rows. Made once, from all rows and the memory that was free.
    """

    weights: Choice
    batch_size: int
    passes: list[list[int]]
    batches: list[list[int]]


@dataclass(frozen=True, slots=True)
class Predicted:
    """Predictions in the order of their rows, and how they were made; `batch_size` is the largest that fitted."""

    predictions: list[Prediction]
    weights: Choice
    batch_size: int
    times_out_of_memory: int


@dataclass(frozen=True, slots=True)
class Asked:
    """One system's rows, each answer and loss of them done or to be done. Nothing here holds the model.

    `prompts` are token ids.
    """

    pairs: Sequence[QAPair]
    prompts: Sequence[list[int]]
    greedy: Greedy
    tokenizer: Any
    plan: AnswerPlan
    scoring: BatchWork[AnswerLoss]
    answering: BatchWork[Answer]

    def predicted(self) -> Predicted:
        """The predictions, once every row is scored and answered."""
        self.scoring.gather()
        self.answering.gather()
        return Predicted(
            [
                _prediction(*row)
                for row in zip(self.pairs, self.answering.in_order(), self.scoring.in_order(), strict=True)
            ],
            self.plan.weights,
            max(map(len, self.answering.planned)) if self.answering.times_out_of_memory else self.plan.batch_size,
            self.scoring.times_out_of_memory + self.answering.times_out_of_memory,
        )


def ask_rows(
    loaded: LoadedModel,
    pairs: Sequence[QAPair],
    *,
    config: Config,
    partial: PartialResults,
    batch_size: int | None = None,
    examples: Mapping[str, Sequence[QAPair]] = MappingProxyType({}),
    weights: Choice | None = None,
) -> Asked:
    """Measure every reference answer and answer every question; with `generation.engine` vllm, measure alone.

    `examples` maps a row's id to the worked examples that precede its question. Answers come `batch_size` at a time if
    it is given, else as the configuration says or memory allows. Reference losses cover the whole answer and its end
    token: no length limit cuts what perplexity is about. `weights` are those of a model that has answered before; any
    other is made ready first, which can be done only once.

    `partial` gets every batch's results when they are there; what it holds already is not computed again. Raises
    ModelError if memory does not suffice for one row at a time, and RunDirError if what `partial` holds is damaged.
    """
    rows = loaded.renderer.encode_pairs(pairs, examples)
    prompts = [row.input_ids[: row.prompt_length] for row in rows]
    greedy = Greedy.of(loaded.renderer.tokenizer, loaded.end_token_ids, config.generation.max_new_tokens)
    kept = partial.plan(_origin(loaded, rows, config, batch_size))
    plan = None if kept is None else _restore_plan(kept, partial, len(rows))
    if weights is None:
        weights = _prepare(loaded, plan.weights if plan else None)
    if plan is None:
        made = from_main(lambda: asdict(_make_plan(loaded.model, weights, rows, config, batch_size)))
        plan = _restore_plan(made, partial, len(rows))
        partial.begin(made)
    lengths = [len(row.input_ids) for row in rows]
    scoring = partial.work("losses", plan.passes, AnswerLoss, cost=lambda places: sum(lengths[i] for i in places))
    answering = partial.work("answers", plan.batches, Answer)
    if scoring.done:
        say(f"resuming: {len(scoring.done)} of {len(rows)} rows are scored, {len(answering.done)} answered")
    part = f", process 1 of {world_size()}" if world_size() > 1 else ""
    shards, tokenizer = loaded.shards, loaded.renderer.tokenizer
    with nullcontext() if shards is None else shards.uneven_passes():
        with progress_bar(f"Scoring reference answers{part}", scoring.rows, len(scoring.done), unit="answers") as bar:
            score_passes(loaded.model, rows, scoring, bar)
        if config.generation.engine == "medtune":
            bars = progress_bar(f"Answering questions{part}", answering.rows, len(answering.done), unit="questions")
            with bars as bar:
                answer_batches(loaded.model, tokenizer, prompts, greedy, answering, bar, graphs=shards is None)
    return Asked(pairs, prompts, greedy, tokenizer, plan, scoring, answering)


def _prepare(loaded: LoadedModel, wanted: Choice | None) -> Choice:
    """Make the model ready in the form that `wanted` says, or the first process's memory: all have the same."""

    def prepare(kept: Choice | None) -> Choice:
        return prepare_inference(loaded.model, loaded.dtype, kept, shards=loaded.shards)

    chosen = prepare(wanted) if is_main() else None
    told = Choice(**from_main(lambda: asdict(chosen)))  # type: ignore[arg-type]
    return chosen or prepare(told)


def _origin(loaded: LoadedModel, rows: Sequence[EncodedRow], config: Config, batch_size: int | None) -> dict[str, Any]:
    """What answers depend on, beside the plan, by the names that a user is told if one has changed."""
    static = static_cache_obstacle(unwrapped(loaded.model)) is None
    generation = config.generation.model_dump(mode="json")
    if config.generation.engine == "medtune":
        del generation["engine"]  # unknown to versions whose results go on
    return {
        "base": loaded.identity,
        "quantization": config.model.quantization,
        "rows or prompts": rows_checksum(rows),
        "generation": {**generation, "ends": sorted(loaded.end_token_ids)},
        "batch size": batch_size,
        "training.tokens_per_micro_batch": config.training.tokens_per_micro_batch,
        "device": loaded.device.split(":")[0],
        "dtype": loaded.dtype,
        "attention": loaded.choices["attention"].value,
        "cache": "static" if static else "growing",
    }


def _make_plan(
    model: Any, weights: Choice, rows: Sequence[EncodedRow], config: Config, batch_size: int | None
) -> AnswerPlan:
    prompts = [row.input_ids[: row.prompt_length] for row in rows]
    tokens_per_pass = scoring_tokens(model, config.training.tokens_per_micro_batch)
    passes = plan_passes(rows, tokens_per_pass)
    if config.generation.engine == "vllm":
        # It makes its own batches. One row each here: every answer is kept when it comes.
        wanted = config.generation.batch_size
        at_once = batch_size or (VLLM_REQUESTS if wanted == "auto" else wanted)
        return AnswerPlan(weights, at_once, passes, plan_batches(prompts, 1))
    if batch_size is None:
        batch_size = _choose_batch_size(model, prompts, config)
        if world_size() > 1:
            # As many batches, about as large, for each process.
            each = math.ceil(len(rows) / (batch_size * world_size()))
            batch_size = math.ceil(len(rows) / (each * world_size()))
            say(f"batch size: {batch_size}, {each} batches for each of {world_size()} processes")
    else:
        say(f"batch size: {batch_size} (that of the other model)")
    return AnswerPlan(weights, batch_size, passes, plan_batches(prompts, batch_size))


def _restore_plan(kept: Any, partial: PartialResults, rows: int) -> AnswerPlan:
    try:
        plan = TypeAdapter(AnswerPlan).validate_python(kept, strict=False)
    except ValidationError:
        raise partial.damaged() from None
    if any(sorted(chain.from_iterable(parts)) != list(range(rows)) for parts in (plan.passes, plan.batches)):
        raise partial.damaged()
    return plan


def _choose_batch_size(model: Any, prompts: Sequence[list[int]], config: Config) -> int:
    cap, wanted = config.generation.max_new_tokens, config.generation.batch_size
    if wanted != "auto":
        say(f"batch size: {wanted} (asked for)")
        return wanted
    fits = choose_batch_size(model, longest_prompt=max(map(len, prompts)), max_new_tokens=cap)
    say(f"batch size: {fits} (half of the free memory at {cap} new tokens)")
    return fits


def _prediction(pair: QAPair, answer: Answer, loss: AnswerLoss) -> Prediction:
    return Prediction(
        id=pair.id,
        question=pair.question,
        reference=pair.answer,
        prediction=answer.text,
        new_tokens=answer.new_tokens,
        finish_reason=answer.finish_reason,
        reference_nll=loss.nll,
        reference_tokens=loss.tokens,
        group=pair.group,
        qtype=pair.qtype,
        references=pair.references,
    )

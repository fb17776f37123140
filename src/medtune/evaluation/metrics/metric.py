"""A metric as an object: its names and facts, its statistics a row, and the value that their sums determine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from medtune.evaluation.encoder import Encoder
from medtune.records import MetricTable, Prediction

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Answers:
    """One system's answers beside their references, and the encoder and device for metrics that need them."""

    predictions: Sequence[Prediction]
    encoder: Encoder | None = None
    device: str = "cpu"
    bleu_tokenizer: str = "auto"
    """As `evaluation.bleu_tokenizer` of a recipe."""
    rouge_tokenizer: str = "auto"
    """As `evaluation.rouge_tokenizer` of a recipe."""

    @property
    def texts(self) -> list[str]:
        """The answers, in the order of the rows."""
        return [row.prediction for row in self.predictions]

    @property
    def references(self) -> list[str]:
        """The references, in the order of the rows; of several the first."""
        return [row.reference for row in self.predictions]

    @property
    def all_references(self) -> list[tuple[str, ...]]:
        """Each row's references, in the order of the rows."""
        return [row.all_references for row in self.predictions]

    @property
    def pairs(self) -> tuple[list[str], list[str]]:
        """Each answer beside each of its references, as two lists."""
        pairs = [(row.prediction, reference) for row in self.predictions for reference in row.all_references]
        return [answer for answer, _ in pairs], [reference for _, reference in pairs]

    def best(self, values: Sequence[float]) -> list[float]:
        """Each row's largest value, of `values` over `pairs`: how the official tools take several references."""
        left = iter(values)
        return [max(islice(left, len(references))) for references in self.all_references]

    @property
    def best_of(self) -> str:
        """The end of the signature of a metric that takes the best reference; empty where each row has one."""
        counts = {len(references) for references in self.all_references}
        if counts <= {1}:
            return ""
        return f"|nrefs:{counts.pop() if len(counts) == 1 else 'var'}|over-references:max"


Measure: TypeAlias = "Callable[[Answers, Sequence[Metric]], list[MetricRows]]"


def ratio(sums: Numbers) -> Numbers:
    """Return the first column over the second, shape (r,), of sums of shape (r, 2): the mean of values a row."""
    with np.errstate(divide="ignore", invalid="ignore"):  # a loss of inf or NaN, or a resample of empty references
        return np.asarray(sums[:, 0] / sums[:, 1])


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. Metrics with the same `measure` are measured together, in one pass over the answers.

    `measure` takes the answers and those of its metrics that were asked for, and returns their statistics together
    with those of the metrics that come with them. `values` maps column sums, shape (r, k), of any r resamples of the
    rows to the metric, shape (r,).
    """

    name: str
    """As recipes, options and files spell it."""
    label: str
    """As tables and sentences spell it."""
    measure: Measure
    columns: tuple[str, ...] = ("value", "rows")
    """Names of the statistics a row, k of them."""
    values: Callable[[Numbers], Numbers] = ratio
    digits: int = 4
    """Decimals shown."""
    gloss: str = ""
    """What it measures, in a few words for a reader who meets it for the first time."""
    lower_is_better: bool = False
    is_headline: bool = False
    """Whether verdicts and tables of many systems go by it."""
    table: MetricTable = "standard"
    companion_of: str | None = None
    """The metric that it is measured with; nobody asks for it by its own name."""
    hub_name: str | None = None
    """The Hub's name of it, if the Hub has one."""
    reads_answers: bool = True
    """Whether it reads answers, so that their cap matters; otherwise it reads the references' likelihood."""
    counts_tokens: bool = False
    """Whether it is a mean over a model's own tokens, so that two tokenizers never compare."""
    needs_encoder: bool = False
    margin: float | None = None
    """A difference under this, in the metric's units, is taken for no difference unless a recipe says otherwise."""


@dataclass(frozen=True, slots=True)
class MetricRows:
    """One metric's statistics a row, shape (n, k): their column sums are all that its value depends on.

    `details` says what the value was made of.
    """

    metric: Metric
    rows: Numbers
    signature: str
    details: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_values(
        cls, metric: Metric, values: Sequence[float], signature: str, details: Mapping[str, Any] | None = None
    ) -> MetricRows:
        """The rows of a metric that is the mean of `values`, one a row."""
        column = np.asarray(values, dtype=np.float64)
        return cls(metric, np.column_stack([column, np.ones(len(column))]), signature, details or {})

    @property
    def name(self) -> str:
        """The metric's name."""
        return self.metric.name

    def value(self) -> float:
        """Return the metric over these rows."""
        return float(self.values(self.rows.sum(axis=0, keepdims=True))[0])

    def values(self, sums: Numbers) -> Numbers:
        """Return the metric, shape (r,), of column sums, shape (r, k), of any r resamples of the rows."""
        return self.metric.values(sums)

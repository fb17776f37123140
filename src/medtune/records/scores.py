"""Scores, and what comparing them came to."""

from dataclasses import dataclass, field
from typing import Any, Literal

from medtune.records.rows import ControlName, ModelName, SystemName

# The metrics of the contract, and the forms that public write-ups use.
MetricTable = Literal["standard", "compat"]
# `descriptive`: no primary metric of the run, so not tested. `undefined`: a value or its test is no number.
Verdict = Literal["better", "worse", "equivalent", "cannot tell", "too few groups", "descriptive", "undefined"]


@dataclass(frozen=True, slots=True)
class Score:
    """One metric's value over `n` rows in `groups` groups, with its 95 % interval.

    `signature` says how it was measured; different signatures are never compared. `details` is what the value was
    made of.
    """

    value: float
    n: int
    signature: str
    groups: int
    ci95: tuple[float, float] | None
    table: MetricTable = "standard"
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """One metric before and after. `difference` is tuned minus baseline, and `ci95` its 95 % interval by itself.

    `p_adjusted` is `p_value` after Holm's correction over the primary metrics of the comparison; a row that is none of
    them has none. `interval`, of `confidence`, is as wide as the correction asks, so that `verdict` is better or worse
    exactly where it leaves out zero. `equivalent` is a difference shown to be under `margin`, in the metric's units.
    `detectable` is the smallest true difference that this test finds with 80 % power, and `rows_needed` the n at which
    it would find one of the size observed.
    """

    metric: str
    baseline: float
    tuned: float
    difference: float
    ci95: tuple[float, float] | None
    p_value: float | None
    p_adjusted: float | None
    verdict: Verdict
    rows_needed: int | None
    n: int
    groups: int
    signature: str
    table: MetricTable = "standard"
    interval: tuple[float, float] | None = None
    confidence: float = 0.95
    detectable: float | None = None
    margin: float | None = None

    @property
    def is_primary(self) -> bool:
        """Whether the verdict rests on this metric."""
        return self.verdict != "descriptive"


@dataclass(frozen=True, slots=True)
class GroupSizes:
    """How the scored rows fall into groups: as many as `effective`, (Σ n)² / Σ n², of equal size would say as much.

    `largest` names the group with most rows, and is empty where every row is a group of its own. `largest_question` is
    that group's first; no file of the comparison has it, as those go on the Hub.
    """

    groups: int
    effective: float
    largest: str
    largest_share: float
    largest_question: str = ""


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long one system's answers are; tokens are the model's, and None where a file does not tell them.

    `length_ratio` is predictions over references in BLEU's words. Shares are of the answers.
    """

    mean_tokens: float | None
    median_tokens: float | None
    length_ratio: float
    share_stopped: float | None
    share_at_cap: float | None


@dataclass(frozen=True, slots=True)
class ReferenceLengths:
    """How long the references are in the model's tokens, and the share of them that the cap would cut."""

    cap: int
    mean_tokens: float
    median_tokens: float
    share_over_cap: float


@dataclass(frozen=True, slots=True)
class Control:
    """Other answers to the same rows: their scores, and the tuned model against them.

    In `against_tuned` the control takes the place of the baseline.
    """

    name: ControlName
    description: str
    scores: dict[str, Score]
    against_tuned: tuple[ComparisonRow, ...]


@dataclass(frozen=True, slots=True)
class StratumMetric:
    """One metric on one stratum."""

    baseline: float
    tuned: float
    difference: float
    ci95: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Stratum:
    """Rows that share a property, such as a question type, and both models' scores on them."""

    kind: str
    value: str
    n: int
    groups: int
    metrics: dict[str, StratumMetric]


@dataclass(frozen=True, slots=True)
class Comparison:
    """All that is known of two models on the same rows; `leaking_rows` counts what they share with training rows."""

    rows: tuple[ComparisonRow, ...]
    scores: dict[ModelName, dict[str, Score]]
    lengths: dict[SystemName, Lengths]
    references: ReferenceLengths | None = None
    controls: tuple[Control, ...] = ()
    strata: tuple[Stratum, ...] = ()
    leaking_rows: dict[str, int] = field(default_factory=dict)
    groups: GroupSizes | None = None
    names: tuple[str, str] = ("baseline", "tuned model")

"""What the stages exchange. Plain frozen records: no behaviour beyond their own arithmetic."""

from dataclasses import dataclass, field
from typing import Any, Literal

FinishReason = Literal["stop", "length"]
SplitName = Literal["train", "validation", "test"]
ModelName = Literal["baseline", "tuned"]
# Other answers to the same rows: without tuning, which tuning has to beat, and `tuned_retrieval`.
ControlName = Literal["few_shot", "random_answer", "nearest_question", "cut_reference", "retrieval", "tuned_retrieval"]
SystemName = ModelName | ControlName
# The metrics of the contract, and the forms that public write-ups use.
MetricTable = Literal["standard", "compat"]
# `descriptive`: no primary metric of the run, so not tested. `undefined`: a value or its test is no number.
Verdict = Literal["better", "worse", "equivalent", "cannot tell", "too few groups", "descriptive", "undefined"]

# The label of a token that the loss does not look at; torch's own default.
IGNORED = -100


@dataclass(frozen=True, slots=True)
class QAPair:
    """One question and its reference answer.

    `group` names the rows that must stay on one side of a split. `document_id`, `focus` and `source` are empty where
    the data set does not give them, and so is `split`, the part that the data set itself puts the row in. `template`
    marks an answer whose wording serves many topics. `raw_question` and `raw_answer` are the text before cleaning.
    `references` is empty where `answer` is the only one, else it holds all of them and begins with it. `context` is
    what the question is about, until cleaning puts it below the question.
    """

    id: str
    qtype: str
    question: str
    answer: str
    group: str = ""
    document_id: str = ""
    focus: str = ""
    source: str = ""
    split: str = ""
    template: bool = False
    raw_question: str = ""
    raw_answer: str = ""
    context: str = ""
    references: tuple[str, ...] = ()


# Fields of a row that came later: where no row has any, fingerprints and files are those of earlier versions.
LATER_FIELDS = frozenset({"context", "references"})


@dataclass(frozen=True, slots=True)
class Split:
    """Train, validation and test rows."""

    train: tuple[QAPair, ...]
    validation: tuple[QAPair, ...]
    test: tuple[QAPair, ...]


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """One row as the model sees it: token ids, and labels that are `IGNORED` wherever the loss does not look."""

    id: str
    input_ids: list[int]
    labels: list[int]

    @property
    def prompt_length(self) -> int:
        """Tokens before the first one that carries a label."""
        return next((i for i, label in enumerate(self.labels) if label != IGNORED), len(self.labels))


@dataclass(frozen=True, slots=True)
class Answer:
    """One generated answer. `new_tokens` counts the end token and no padding."""

    text: str
    new_tokens: int
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True)
class AnswerLoss:
    """Summed negative log-likelihood, in nats, of a reference answer and its end token."""

    nll: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Prediction:
    """One scored test row, a line of `predictions.jsonl`.

    The fields from `new_tokens` on are what a model's own evaluation knows and another tool's output may lack. Rows of
    one `group` are not independent of each other; an empty group is a row by itself. `references` is empty where
    `reference` is the only one; otherwise it holds all of them, and begins with it.
    """

    id: str
    question: str
    reference: str
    prediction: str
    new_tokens: int | None = None
    finish_reason: FinishReason | None = None
    reference_nll: float | None = None
    reference_tokens: int | None = None
    group: str = ""
    qtype: str = ""
    references: tuple[str, ...] = ()

    @property
    def all_references(self) -> tuple[str, ...]:
        """The references, one or several."""
        return self.references or (self.reference,)


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

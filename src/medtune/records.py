"""What the stages exchange. Plain frozen records: no behaviour beyond their own arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length"]
SplitName = Literal["train", "validation", "test"]
ModelName = Literal["baseline", "tuned"]


# The label of a token that the loss does not look at; torch's own default.
IGNORED = -100


@dataclass(frozen=True, slots=True)
class QAPair:
    """One question and its reference answer.

    `group` names the rows that must stay on one side of a split. `document_id`, `focus` and `source` are empty where
    the data set does not give them.
    """

    id: str
    qtype: str
    question: str
    answer: str
    group: str = ""
    document_id: str = ""
    focus: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class Split:
    """Train, validation and test rows; no group stands in two of them."""

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
    """One scored test row, a line of `predictions.jsonl`."""

    id: str
    question: str
    reference: str
    prediction: str
    new_tokens: int
    finish_reason: FinishReason
    reference_nll: float
    reference_tokens: int


@dataclass(frozen=True, slots=True)
class Score:
    """One metric's value over `n` rows. `signature` says how it was measured; unlike signatures never compare."""

    value: float
    n: int
    signature: str


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """One metric before and after. `difference` is tuned minus baseline."""

    metric: str
    baseline: float
    tuned: float
    difference: float
    n: int
    signature: str

"""Rows, as they are read, encoded, answered and scored."""

from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length"]
Role = Literal["system", "user", "assistant"]
SplitName = Literal["train", "validation", "test"]
ModelName = Literal["baseline", "tuned"]
# Other answers to the same rows: without tuning, which tuning has to beat, and `tuned_retrieval`.
ControlName = Literal["few_shot", "random_answer", "nearest_question", "cut_reference", "retrieval", "tuned_retrieval"]
SystemName = ModelName | ControlName

# The label of a token that the loss does not look at; torch's own default.
IGNORED = -100


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side of a conversation says at a time; an assistant's turn that is not `learned` is only read."""

    role: Role
    content: str
    learned: bool = True


@dataclass(frozen=True, slots=True)
class QAPair:
    """One question and its reference answer.

    `turns` come before the question in a conversation: a system turn of its own, if it has one, and then user and
    assistant by turns, so that `question` and `answer` are the last exchange.

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
    turns: tuple[Turn, ...] = ()
    context: str = ""
    references: tuple[str, ...] = ()

    @property
    def asked(self) -> str:
        """The question, with what belongs to it below."""
        return f"{self.question}\n\n{self.context}" if self.context else self.question


# Fields of a row that came later: where no row has any, fingerprints and files are those of earlier versions.
LATER_FIELDS = frozenset({"context", "references", "turns"})


@dataclass(frozen=True, slots=True)
class Split:
    """Train, validation and test rows."""

    train: tuple[QAPair, ...]
    validation: tuple[QAPair, ...]
    test: tuple[QAPair, ...]


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """One row as the model sees it: token ids, and labels that are `IGNORED` wherever the loss does not look.

    `extra_turns` counts turns beyond the system line, question and answer that every row has. `part` marks one answer
    of a conversation that has a row for each.
    """

    id: str
    input_ids: list[int]
    labels: list[int]
    extra_turns: int = 0
    part: bool = False

    @property
    def prompt_length(self) -> int:
        """Tokens before the first one that carries a label."""
        return next((i for i, label in enumerate(self.labels) if label != IGNORED), len(self.labels))

    @property
    def answer_start(self) -> int:
        """The place of the first token of the last learned answer; the `prompt_length` of a row with one answer."""
        start = len(self.labels)
        while start and self.labels[start - 1] != IGNORED:
            start -= 1
        return start

    @property
    def learned_tokens(self) -> int:
        """Tokens that carry a label."""
        return len(self.labels) - self.labels.count(IGNORED)


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

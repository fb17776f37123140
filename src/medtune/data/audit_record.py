"""The audit of a data set and its split as a record: written to `data/audit.json`, and read back by the report.

Fields with a default are those that the report does without, so that audits of earlier versions can be read.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSplit:
    """How the rows were split: how many are in each part, and of each type in each part.

    `validation_from_train` is for a source that names its splits: whether it names no validation rows.
    `not_split` says why there is no split, where the rows allow none.
    """

    method: str
    validation_from_train: bool | None = None
    rows: dict[str, int]
    types: dict[str, dict[str, int]] = field(default_factory=dict)
    not_split: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditCounts:
    """How many different things the rows hold that cleaning kept, and how many rows of each type and source.

    `questions_normalized` are those that differ in more than case and punctuation.
    """

    rows: int
    questions: int
    questions_normalized: int = 0
    answers: int
    documents: int
    focuses: int
    rows_without_focus: int = 0
    groups: int
    largest_group: int
    types: dict[str, int] = field(default_factory=dict)
    sources: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateCounts:
    """Answers that occur more than once, in the same words or nearly, and rows that hold a template."""

    rows_dropped: int = 0
    answers_to_several_questions: int = 0
    most_questions_of_one_answer: int = 0
    rows_with_near_duplicate_answer: int
    share_with_near_duplicate_answer: float
    template_rows: int
    template_rule: str = ""


@dataclass(frozen=True, slots=True)
class Conflict:
    """A question with several answers, and the ids of its rows."""

    question: str
    answers: int
    ids: list[str]


@dataclass(frozen=True, slots=True)
class ConflictCounts:
    """Questions with several answers, by their words and exactly, their rows, and the worst of them as examples."""

    questions: int = 0
    questions_exact: int = 0
    rows: int = 0
    most_answers: int = 0
    examples: list[Conflict] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthDistribution:
    """Lengths of one kind of text, in tokens; `over` maps a cap to the share of texts that are longer."""

    mean: float
    median: int
    p90: int
    max: int
    over: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthDistributions:
    """Lengths of questions, answers and whole rows in tokens of `tokenizer`; `row_is` says what a row consists of."""

    tokenizer: str = ""
    row_is: str = ""
    question: LengthDistribution
    answer: LengthDistribution
    row: LengthDistribution


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncation:
    """What `max_length` does to the training rows under `policy`.

    `cut` and `dropped` count rows, `no_room` those whose prompt alone is too long, `tokens` all tokens of the training
    rows, and `tokens_lost` those of their answers that training will not see. `shortened` are conversations without
    their oldest turns, None where there are none.
    """

    max_length: int
    policy: str
    rows: int
    cut: int
    dropped: int
    no_room: int = 0
    tokens: int
    tokens_lost: int
    shortened: int | None = None


@dataclass(frozen=True, slots=True)
class SharedRows:
    """Test rows that share something with other rows, and their share of all test rows.

    `template_rows` are those whose shared answer is a template, counted where answers are compared.
    """

    rows: int
    share: float
    template_rows: int | None = None


@dataclass(frozen=True, slots=True)
class SharedWith:
    """Test rows that share something with a training row, and with a training or validation row."""

    in_train: SharedRows
    in_train_or_validation: SharedRows


@dataclass(frozen=True, slots=True)
class KindLeakage:
    """Test rows that share one kind of thing, in this split and in a random one of the same rows and sizes."""

    split: SharedWith
    random: SharedWith | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """Everything that `data/audit.json` says, in its order.

    Counts are of all rows that cleaning kept; leakage is that of the split as it is trained on, `data.train_limit`
    included. A kind of leakage that the source says nothing about is None. `leaking_test_rows` are ids, by kind.
    `not_computed` says in sentences what the audit of streamed data leaves out, or takes from a sample.
    """

    version: int = VERSION
    source: str = ""
    cleaning: dict[str, dict[str, int | str]]
    split: AuditSplit
    counts: AuditCounts
    duplicates: DuplicateCounts
    conflicting_answers: ConflictCounts = field(default_factory=ConflictCounts)
    lengths: LengthDistributions
    truncation: Truncation
    leakage: dict[str, KindLeakage | None]
    leaking_test_rows: dict[str, list[str]] = field(default_factory=dict)
    not_computed: list[str] | None = None

    def as_json(self) -> dict[str, Any]:
        """As plain values. Fields that are None are left out."""
        return asdict(self, dict_factory=lambda items: {name: value for name, value in items if value is not None})

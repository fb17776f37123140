"""Sections of the configuration that say where rows are, how tables are written, and how rows are split."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from medtune.config.section import PositiveInt, Section


class ColumnsSection(Section):
    """Which columns of the source hold what.

    Names match whatever their case and the blanks around them. Where a default's column is not there, the usual names
    are looked for, such as `instruction` and `output`, or `prompt` and `completion`.
    """

    question: str = "Question"
    """Column of the question."""
    context: str | None = None
    """Column of what is put below the question, after an empty line; none takes Alpaca's `input` or Dolly's `context`
    beside `instruction`."""
    answer: str = "Answer"
    """Column of the reference answer. A list holds several: the first is learned, all are references."""
    qtype: str | None = "qtype"
    """Column of the question type; none where the source has no such column."""
    id: str | None = None
    """Column of a unique row id; none numbers the rows."""
    document_id: str | None = "document_id"
    """Column of the source document; used where it is there."""
    focus: str | None = "focus"
    """Column of the topic, such as a disease; used where it is there."""
    source: str | None = "source"
    """Column of the collection or web site; used where it is there."""
    split: str | None = None
    """Column that puts each row in `train`, `validation` or `test`; for `data.split.method: column`."""
    messages: str | None = None
    """Column of whole conversations, as a list of turns or JSON of one. None takes a column called `messages`,
    `conversations`, `conversation`, `dialogue`, `dialog` or `chat`, or lists in `prompt` and `completion`, where there
    are no columns of question and answer."""


class TableSection(Section):
    """How table files are written. What is none is found, and told."""

    separator: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """What separates the cells of CSV and TSV files; none looks at the header for comma, tab, semicolon and pipe."""
    encoding: str | None = None
    """Encoding of text, by its name in Python; none tries UTF-8, UTF-16 and cp1252."""
    sheet: str | None = None
    """Sheet of an Excel workbook; none takes the first that has rows."""
    quotes: Literal["checked", "trusted", "literal"] = "checked"
    """`checked` refuses a quote that swallows rows, `trusted` reads what it holds as one cell, and to `literal` a quote
    is a character like any other."""

    @field_validator("encoding")
    @classmethod
    def _know_the_encoding(cls, name: str | None) -> str | None:
        try:
            "a".encode(name or "utf-8")
        except (LookupError, ValueError):  # of text or at all, and a name with a NUL
            problem = "must be an encoding of text that Python knows, such as utf-8, utf-16, cp1252 or latin-1"
            raise ValueError(problem) from None
        return name


AS_FOUND = TableSection()


class SourceSection(Section):
    """One of several sources of training rows."""

    source: Annotated[str, Field(min_length=1)]
    """What `data.source` takes."""
    name: Annotated[str, Field(min_length=1)] | None = None
    """What counts and messages call it; none takes `source`."""
    weight: Annotated[float, Field(gt=0, le=100)] = 1.0
    """How often its training rows are taken: 0.5 takes a seeded half of them, 2 each of them twice."""
    columns: ColumnsSection | None = None
    """Column names of this source; none takes `data.columns`."""
    revision: str | None = None
    """Branch, tag or commit of a Hub data set."""
    hub_config: str | None = None
    """Which configuration of a Hub data set that has several."""
    hub_split: str | None = None
    """Which splits of a Hub data set or of a `save_to_disk` folder; none takes all."""

    @property
    def label(self) -> str:
        """What counts and messages call it."""
        return self.name or self.source


class SplitSection(Section):
    """How rows are shared out among train, validation and test."""

    method: Literal["grouped", "random", "column"] = "grouped"
    """`grouped` keeps rows of one document, topic, question or answer on one side. `random` deals single rows, as
    many write-ups do, and prints what that leaks. `column` takes the source's own split from `data.columns.split`."""
    validation: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    """Share of the rows for validation."""
    test: Annotated[float, Field(gt=0, lt=0.9)] = 0.1
    """Share of the rows for the test; ignored when `data.test_source` is set."""

    most_rows: PositiveInt | None = None
    """About how many rows validation, and the test, have at most, where the shares would give them more. None: no
    limit, or 10,000 of data that is streamed."""

    @model_validator(mode="after")
    def _leave_training_rows(self) -> SplitSection:
        if self.validation + self.test > 0.9:
            raise ValueError("validation and test together must leave at least 0.1 of the rows for training")
        return self

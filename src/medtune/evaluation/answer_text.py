"""Predictions and references reduced to their answers, with what else was in them counted.

Models and tools differ in what they leave in a text. One template writes an empty thought before each answer, which a
tuned model learns and the baseline does not know; scores then compare thoughts. So the same is left out of every text
that is measured, answers and references alike, and counted. Files keep the whole text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from medtune.data.markup import Kind, separate_answer
from medtune.records import Prediction


@dataclass(frozen=True, slots=True)
class Separated:
    """Rows whose texts are answers alone, and in how many texts each kind of other text was."""

    rows: Sequence[Prediction]
    answers: Counter[Kind] = field(default_factory=Counter)
    references: Counter[Kind] = field(default_factory=Counter)

    @property
    def details(self) -> dict[str, Any]:
        """What the details of a score say of it: nothing where no text held anything else."""
        if not self.answers and not self.references:
            return {}
        return {"not_answer": {"answers": dict(self.answers), "references": dict(self.references)}}


def separate_rows(rows: Sequence[Prediction]) -> Separated:
    """`rows` with the answers in their predictions and references. A reference is never left empty."""
    answers, references = Counter[Kind](), Counter[Kind]()

    def reference(text: str, question: str) -> str:
        answer, kinds = separate_answer(text, question)
        if not answer:
            return text
        references.update(kinds)
        return answer

    separated = []
    for row in rows:
        answer, kinds = separate_answer(row.prediction, row.question)
        answers.update(kinds)
        texts = tuple(reference(text, row.question) for text in row.all_references)
        separated.append(
            replace(row, prediction=answer, reference=texts[0], references=texts if row.references else ())
        )
    return Separated(separated, answers, references)

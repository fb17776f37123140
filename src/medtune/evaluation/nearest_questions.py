"""The training questions, ranked by how near they are to another question."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from medtune.data.splits import seeded_order
from medtune.data.turns import asked_text
from medtune.errors import DataError
from medtune.records import QAPair


@dataclass(frozen=True)
class NearestQuestions:
    """An index of the rows of `train`, and of no others. It is built when it is first asked.

    Words and pairs of words, weighted by TF-IDF over all training questions; near is the cosine of the weights. A
    conversation is found by all that its user says.
    """

    train: Sequence[QAPair]

    def ranked(self, row: QAPair) -> Iterator[QAPair]:
        """Training rows of the type of `row`, or of any where there is none, from the nearest to the farthest.

        The ids alone decide the order of those as near. Raises DataError where no question has a word.
        """
        kind = row.qtype if row.qtype in self._by_type else ""
        similarity = (self._vectors[kind] @ self._vectorizer.transform([asked_text(row)]).T).toarray().ravel()
        return (self._by_type[kind][int(place)] for place in (-similarity).argsort(kind="stable"))

    @cached_property
    def _by_type(self) -> Mapping[str, Sequence[QAPair]]:
        return rows_by_type(self.train)

    @cached_property
    def _vectorizer(self) -> Any:
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
        try:
            return vectorizer.fit([asked_text(row) for row in self.train])
        except ValueError:  # not one word in all questions
            fix = "leave nearest_question out of evaluation.controls, and retrieval and tuned_retrieval"
            raise DataError("the training questions hold no words", fix=fix) from None

    @cached_property
    def _vectors(self) -> Mapping[str, Any]:
        return {
            kind: self._vectorizer.transform([asked_text(row) for row in rows]) for kind, rows in self._by_type.items()
        }


def rows_by_type(rows: Sequence[QAPair]) -> dict[str, list[QAPair]]:
    """Rows of each question type, shuffled; under the empty name all of them."""
    by_type: dict[str, list[QAPair]] = {}
    for row in sorted(rows, key=lambda row: seeded_order(0, row.id)):
        by_type.setdefault("", []).append(row)
        if row.qtype:
            by_type.setdefault(row.qtype, []).append(row)
    return by_type

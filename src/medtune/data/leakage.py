"""Leakage: which test rows share something with rows that the model was trained or chosen on."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from medtune.data.audit_record import KindLeakage, SharedRows, SharedWith
from medtune.data.near_duplicates import SimilarAnswers
from medtune.data.specific_turns import asked_turns, specific_earlier_answers
from medtune.data.splits import focus_key, sample_rows
from medtune.records import QAPair, Split

NEAR_DUPLICATE = "answer_near_duplicate"
KIND_NAMES: Mapping[str, str] = {
    "question_exact": "exact question",
    "question_normalized": "normalised question",
    "answer_exact": "exact answer",
    NEAR_DUPLICATE: "near-duplicate answer",
    f"{NEAR_DUPLICATE}_template": "near-duplicate template answer",
    f"{NEAR_DUPLICATE}_other": "near-duplicate answer of its own",
    "document": "document",
    "focus": "focus",
}
KINDS = ("question_exact", "question_normalized", "answer_exact", NEAR_DUPLICATE, "document", "focus")


class Leakage:
    """Finds test rows that share something with other rows, by kind.

    `rows` are all rows, and `similar` says which of them have similar answers, in the same order.
    """

    def __init__(self, rows: Sequence[QAPair], similar: SimilarAnswers) -> None:
        self._answers = {pair.id: answers for pair, answers in zip(rows, similar.all_of(), strict=True)}
        self._neighbours = similar.neighbours()
        asked = asked_turns(rows)
        # Two rows share a kind if they have a key in common.
        keys: dict[str, list[Collection[str]]] = {
            "question_exact": [turns.exact for turns in asked],
            "question_normalized": [turns.normalized for turns in asked],
            "answer_exact": [{pair.answer, *specific_earlier_answers(pair)} for pair in rows],
            "document": [{pair.document_id} for pair in rows],
            "focus": [{focus_key(pair.focus)} for pair in rows],
        }
        self._keys = {
            kind: {pair.id: frozenset(own) - {""} for pair, own in zip(rows, of_kind, strict=True)}
            for kind, of_kind in keys.items()
        }

    def given(self, kind: str) -> bool:
        """Whether any row has a value of this kind."""
        return kind == NEAR_DUPLICATE or any(self._keys[kind].values())

    def find(self, kind: str, test: Iterable[QAPair], seen: Iterable[QAPair]) -> list[QAPair]:
        """Rows of `test` that share a question, answer, document or focus with one of `seen`; any turn counts."""
        if kind == NEAR_DUPLICATE:
            answers = {answer for pair in seen for answer in self._answers[pair.id]}
            near = answers.union(*(self._neighbours.get(answer, ()) for answer in answers))
            return [pair for pair in test if not near.isdisjoint(self._answers[pair.id])]
        keys = self._keys[kind]
        known = {key for pair in seen for key in keys[pair.id]}
        return [pair for pair in test if not known.isdisjoint(keys[pair.id])]


def deal_again(split: Split, seed: int) -> Split:
    """The same rows in parts of the same sizes, dealt at random: what a split by single rows would be."""
    rows = sample_rows([*split.train, *split.validation, *split.test], None, seed)
    tests, rest = rows[: len(split.test)], rows[len(split.test) :]
    return Split(tuple(rest[len(split.validation) :]), tuple(rest[: len(split.validation)]), tuple(tests))


def leakage_table(leakage: Leakage, split: Split, dealt: Split) -> dict[str, KindLeakage | None]:
    """For each kind, rows and share of the test rows found in train, and in train or validation, of both splits.

    Kinds of which the source has no values are null. Near-duplicates include equal answers; those whose wording is a
    template are also counted separately.
    """
    return {
        kind: KindLeakage(_found(leakage, kind, split), _found(leakage, kind, dealt)) if leakage.given(kind) else None
        for kind in KINDS
    }


def _found(leakage: Leakage, kind: str, split: Split) -> SharedWith:
    def shared(seen: Sequence[QAPair]) -> SharedRows:
        found = leakage.find(kind, split.test, seen)
        templates = sum(pair.template for pair in found) if kind in ("answer_exact", NEAR_DUPLICATE) else None
        return SharedRows(len(found), round(len(found) / max(1, len(split.test)), 6), templates)

    return SharedWith(shared(split.train), shared((*split.train, *split.validation)))


def leaking_test_rows(leakage: Leakage, split: Split) -> dict[str, list[str]]:
    """Ids of the test rows that share something with a train row, by kind; near-duplicates by template and other."""
    found = {kind: leakage.find(kind, split.test, split.train) for kind in KINDS}
    near = found.pop(NEAR_DUPLICATE)
    found[f"{NEAR_DUPLICATE}_template"] = [pair for pair in near if pair.template]
    found[f"{NEAR_DUPLICATE}_other"] = [pair for pair in near if not pair.template]
    return {kind: [pair.id for pair in pairs] for kind, pairs in found.items()}

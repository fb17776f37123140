"""Splits and samples: pure, deterministic, and blind to the order of the rows."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from medtune.data.cleaning import normalize_question
from medtune.errors import DataError
from medtune.records import QAPair, Split


def assign_groups(pairs: Sequence[QAPair]) -> list[QAPair]:
    """Give each row the group of all rows that it shares a question, a document or a focus with, however indirectly.

    A group is named after its first row in id order.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    keys: dict[tuple[str, str], int] = {}
    edges = [(row, keys.setdefault(key, len(keys))) for row, pair in enumerate(pairs) for key in _keys(pair)]
    rows, columns = [row for row, _ in edges], [len(pairs) + column for _, column in edges]
    size = len(pairs) + len(keys)
    _, labels = connected_components(coo_array(([1] * len(edges), (rows, columns)), shape=(size, size)), directed=False)
    first: dict[int, str] = {}
    for pair, label in sorted(zip(pairs, labels[: len(pairs)].tolist(), strict=True), key=lambda item: item[0].id):
        first.setdefault(label, pair.id)
    return [replace(pair, group=first[int(label)]) for pair, label in zip(pairs, labels[: len(pairs)], strict=True)]


def _keys(pair: QAPair) -> Iterable[tuple[str, str]]:
    yield "question", normalize_question(pair.question)
    if pair.document_id:
        yield "document", pair.document_id
    if pair.focus:
        yield "focus", " ".join(pair.focus.casefold().split())


def split_grouped(pairs: Sequence[QAPair], *, validation: float, test: float, seed: int) -> Split:
    """Whole groups into test, validation and train, near these shares of the rows."""
    grouped: dict[str, list[QAPair]] = defaultdict(list)
    for pair in sorted(pairs, key=lambda pair: pair.id):
        grouped[pair.group].append(pair)
    quotas = {"test": test * len(pairs), "validation": validation * len(pairs)}
    parts: dict[str, list[QAPair]] = {"test": [], "validation": [], "train": []}
    for name in sorted(grouped, key=lambda name: seeded_order(seed, name)):
        rows = grouped[name]
        # A group goes where it brings the part nearer to its quota; what fits nowhere is for training.
        part = next((p for p in ("test", "validation") if len(parts[p]) + len(rows) / 2 <= quotas[p]), "train")
        parts[part] += rows
    return Split(tuple(parts["train"]), tuple(parts["validation"]), tuple(parts["test"]))


def remove_groups(pairs: Iterable[QAPair], groups: set[str]) -> list[QAPair]:
    """Rows whose group is not among `groups`."""
    return [pair for pair in pairs if pair.group not in groups]


def sample_rows(pairs: Sequence[QAPair], limit: int | None, seed: int) -> list[QAPair]:
    """A seeded random sample of at most `limit` rows; a smaller sample is a prefix of a larger one."""
    ordered = sorted(pairs, key=lambda pair: seeded_order(seed, pair.id))
    return ordered if limit is None else ordered[:limit]


def seeded_order(seed: int, key: str) -> bytes:
    """A sort key that shuffles by `seed` and does not depend on what else is sorted."""
    return hashlib.sha256(f"{seed}\0{key}".encode("utf-8", "surrogatepass")).digest()


def require_rows(split: Split) -> None:
    """Raises DataError if one of the three splits is empty."""
    for name in ("train", "validation", "test"):
        if not getattr(split, name):
            total = len(split.train) + len(split.validation) + len(split.test)
            raise DataError(
                f"data.split: the {name} split is empty ({total} rows in all); give more rows or other shares"
            )

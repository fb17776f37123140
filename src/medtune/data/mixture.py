"""Several sources as one: ids that stay apart, training rows by weight, and counts for each source."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from medtune.config.schema import DataSection
from medtune.data.sources import SourceRows, read_source
from medtune.data.splits import PARTS, sample_rows
from medtune.records import QAPair, Split


@dataclass(frozen=True, slots=True)
class Origins:
    """Which source each row is from, by its id, and the weight of each; nothing where there is one source alone."""

    names: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)


def read_all(data: DataSection) -> tuple[SourceRows, Origins]:
    """The rows of every source of the configuration, in its order. Raises DataError."""
    read = {
        section.label: read_source(
            section.source,
            section.columns or data.columns,
            section.revision,
            table=data.table,
            hub_config=section.hub_config,
            hub_split=section.hub_split,
        )
        for section in data.all_sources
    }
    if not data.sources:
        return next(iter(read.values())), Origins()
    names: dict[str, str] = {}
    pairs: list[QAPair] = []
    for label, rows in read.items():
        apart = [replace(pair, id=f"{label}/{pair.id}") if pair.id in names else pair for pair in rows.pairs]
        names |= dict.fromkeys((pair.id for pair in apart), label)
        pairs += apart
    records = [
        {
            "name": section.label,
            "source": section.source,
            "revision": read[section.label].revision,
            "fingerprint": read[section.label].fingerprint(),
            "weight": section.weight,
        }
        for section in data.sources
    ]
    joined = SourceRows(
        pairs,
        sum(rows.unanswered for rows in read.values()),
        left_out=[row for rows in read.values() for row in rows.left_out],
        notes=tuple(f"{label}: {note}" for label, rows in read.items() for note in rows.notes),
        conversations=dict(sum((Counter(rows.conversations) for rows in read.values()), Counter[str]())),
    )
    weights = {section.label: section.weight for section in data.sources}
    return joined, Origins(names, weights, {"sources": records})


def mix(train: Sequence[QAPair], origins: Origins, seed: int) -> list[QAPair]:
    """The training rows by the weight of their source: whole copies, and a seeded sample for the rest of it."""
    if not origins.names:
        return list(train)
    mixed: list[QAPair] = []
    for label, weight in origins.weights.items():
        rows = [pair for pair in train if origins.names[pair.id] == label]
        copies, share = divmod(weight, 1)
        mixed += rows * int(copies)
        mixed += sample_rows(rows, round(share * len(rows)), seed)
    return mixed


def source_counts(
    origins: Origins, kept: Iterable[QAPair], split: Split, mixed: Iterable[QAPair]
) -> dict[str, dict[str, Any]]:
    """For each source how many rows cleaning kept, how many are in each split, and how many of `mixed` are its."""
    names_kept = [origins.names[pair.id] for pair in kept]
    parts = {part: [origins.names.get(pair.id) for pair in getattr(split, part)] for part in PARTS}
    taken = [origins.names[pair.id] for pair in mixed]
    return {
        label: {
            "rows_kept": names_kept.count(label),
            **{part: names.count(label) for part, names in parts.items()},
            "weight": weight,
            "trained_on": taken.count(label),
        }
        for label, weight in origins.weights.items()
    }


def with_own_ids(split: Split) -> Split:
    """The split with an id of its own for each copy of a training row."""
    seen: dict[str, int] = {}
    train = []
    for pair in split.train:
        seen[pair.id] = seen.get(pair.id, 0) + 1
        train.append(pair if seen[pair.id] == 1 else replace(pair, id=f"{pair.id}+{seen[pair.id]}"))
    return replace(split, train=tuple(train))

"""The split of rows that are known by arrays on disk: a mark for each row, and validation and test in memory.

Groups are dealt by the rules of `splits`, among so many that are first in seeded order that memory holds them; a source
that has no more is split exactly as in memory.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from heapq import nsmallest
from typing import Any

import numpy as np

from medtune.config.schema import Config
from medtune.data.large import arrays
from medtune.data.large.gathering import Gathered
from medtune.data.large.grouping import Groups
from medtune.data.large.hashes import id_text
from medtune.data.splits import PARTS, deal_groups, require_known_parts, seeded_order
from medtune.records import SplitName

# Rows of validation and of the test where `data.split.most_rows` is not set.
MOST_ROWS = 10_000
# Rows whose groups are dealt, for each that validation and test are to have, and at least.
_POOL, LEAST_POOL = 10, 200_000
_TRAIN, _NONE = PARTS.index("train"), 255


@dataclass(frozen=True, slots=True)
class Dealt:
    """Which part each row is in, on disk, as its place in `PARTS` or 255 for none.

    `validation` and `test` are rows in the order of their part, and `rows` counts those of each part. `report` says how
    they were made, and `pool` of how many rows the groups were dealt.
    """

    codes: Any
    validation: list[int]
    test: list[int]
    rows: dict[SplitName, int]
    pool: int
    report: dict[str, Any]


def deal(found: Gathered, groups: Groups, config: Config) -> Dealt:
    """Deal all rows as `data.split` says. Raises DataError for values of a column that name no part."""
    settings, seed = config.data.split, config.seed
    most = settings.most_rows or MOST_ROWS
    report: dict[str, Any] = {"method": settings.method}
    codes = arrays.mapped(found.file("split"), np.uint8, found.rows, fill=_TRAIN)
    chosen: dict[str, list[int]] = {"validation": [], "test": []}
    shares = {"validation": settings.validation, "test": settings.test}
    if settings.method == "column":
        require_known_parts(found.other_parts)
        for start, parts in arrays.blocks(found.file("part"), np.uint8):
            codes[start : start + len(parts)] = parts
        for part in ("validation", "test"):
            rows = rows_of(codes, PARTS.index(part))
            chosen[part] = first_in_order(found, rows, most, seed)
            if left_out := _mark(codes, PARTS.index(part), _NONE) - len(chosen[part]):
                report[f"{part}_left_out"] = left_out
        report["validation_from_train"] = not chosen["validation"]
        shares = {"validation": 0.0 if chosen["validation"] else settings.validation, "test": 0.0}
    pool = 0
    if any(shares.values()):
        total = _count(codes, _TRAIN)
        shares = {part: min(share, most / max(1, total)) for part, share in shares.items()}
        pool = min(total, max(LEAST_POOL, round(_POOL * sum(shares.values()) * total)))
        dealt = _deal_pool(found, groups, codes, shares, seed, pool, single=settings.method == "random")
        chosen = {part: chosen[part] or dealt[part] for part in chosen}
    for part, held in chosen.items():
        codes[np.array(held, np.int64)] = PARTS.index(part)
    counts = {part: _count(codes, place) for place, part in enumerate(PARTS)}
    return Dealt(codes, chosen["validation"], chosen["test"], counts, pool, report)


def rows_of(codes: Any, code: int) -> Iterator[int]:
    """The rows that are marked with `code`."""
    for start in range(0, len(codes), arrays.BLOCK):
        yield from (np.flatnonzero(codes[start : start + arrays.BLOCK] == code) + start).tolist()


def first_in_order(found: Gathered, rows: Iterable[int], most: int, seed: int) -> list[int]:
    """At most so many of `rows`, in the seeded order of their ids, as `sample_rows` takes them."""
    ids = all_ids(found)
    return [row for _, row in nsmallest(most, ((seeded_order(seed, id_text(ids[row])), row) for row in rows))]


def all_ids(found: Gathered) -> Any:
    """The ids of all rows, as `id_bytes` stores them."""
    return np.memmap(found.file("id"), f"S{found.id_bytes}", "r") if found.rows else np.empty(0, "S8")


def _mark(codes: Any, old: int, new: int) -> int:
    changed = 0
    for start in range(0, len(codes), arrays.BLOCK):
        block = codes[start : start + arrays.BLOCK]
        changed += int((block == old).sum())
        block[block == old] = new
    return changed


def _count(codes: Any, code: int) -> int:
    return sum(int((codes[s : s + arrays.BLOCK] == code).sum()) for s in range(0, len(codes), arrays.BLOCK))


def _deal_pool(
    found: Gathered, groups: Groups, codes: Any, shares: Mapping[str, float], seed: int, pool: int, *, single: bool
) -> dict[str, list[int]]:
    """Rows of validation and of the test, from the training rows whose groups are first in seeded order."""
    ids, total = all_ids(found), _count(codes, _TRAIN)
    rows = _first_rows(found, groups, codes, seed, pool / max(1, total), single=single)
    texts = {row: id_text(ids[row]) for row in rows}
    if single:
        ordered = sorted(rows, key=lambda row: seeded_order(seed, texts[row]))
        first = round(shares["test"] * total)
        return {"test": ordered[:first], "validation": ordered[first : first + round(shares["validation"] * total)]}
    own = np.array(rows, np.int64)
    owners = dict(zip(rows, groups.first[groups.groups.of(own)].tolist(), strict=True))
    kinds = dict(zip(rows, arrays.mapped(found.file("type"), np.int32, found.rows)[own].tolist(), strict=True))
    held: dict[str, list[int]] = defaultdict(list)
    for row in sorted(rows, key=texts.__getitem__):
        held[id_text(ids[owners[row]])].append(row)
    order = sorted(held, key=lambda name: seeded_order(seed, name))
    types_of = {name: Counter(found.types[kinds[row]] for row in held[name]) for name in order}
    # In the order in which ids have them, as in memory.
    types = Counter({found.types[kinds[row]]: 0 for row in sorted(rows, key=texts.__getitem__)})
    types.update(_types(found, codes))
    dealt = deal_groups(types_of, types, validation=shares["validation"], test=shares["test"])
    return {part: [row for name in dealt[part] for row in held[name]] for part in ("validation", "test")}


def _types(found: Gathered, codes: Any) -> dict[str, int]:
    """How many training rows there are of each question type."""
    counts = np.zeros(len(found.types), np.int64)
    for start, kinds in arrays.blocks(found.file("type"), np.int32):
        counts += np.bincount(kinds[codes[start : start + len(kinds)] == _TRAIN], minlength=len(counts))
    return {name: count for name, count in zip(found.types, counts.tolist(), strict=True) if count}


def _first_rows(found: Gathered, groups: Groups, codes: Any, seed: int, share: float, *, single: bool) -> list[int]:
    """The training rows of about this share of all groups, or this share of all rows: those first in seeded order."""
    if share >= 1:
        return list(rows_of(codes, _TRAIN))
    ids, bound = all_ids(found), int(share * 2**64)

    def is_first(row: int) -> bool:
        return int.from_bytes(seeded_order(seed, id_text(ids[row]))[:8], "big") < bound

    if single:
        return [row for row in rows_of(codes, _TRAIN) if is_first(row)]
    taken = arrays.mapped(found.file("taken"), np.uint8, found.rows, fill=0)
    for start in range(0, found.rows, arrays.BLOCK):
        names = groups.first[start : start + arrays.BLOCK]
        at = np.flatnonzero(names >= 0)
        taken[at + start] = [is_first(row) for row in names[at].tolist()]
    rows: list[int] = []
    for start in range(0, found.rows, arrays.BLOCK):
        block = np.arange(start, min(found.rows, start + arrays.BLOCK))
        is_in = (taken[groups.groups.of(block)] == 1) & (codes[block] == _TRAIN)
        rows += block[is_in].tolist()
    return rows

"""Chooses the test rows to rate: every question type in its share, and if possible one row a group."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence

from medtune.errors import DataError, Option
from medtune.records import Prediction


def allot(counts: Mapping[str, int], n: int) -> dict[str, int]:
    """Share `n` out in proportion to `counts` by the largest remainder; equal remainders go to the larger stratum."""
    total = sum(counts.values())
    quotas = {name: n * count // total for name, count in counts.items()}
    # In whole numbers: a float's last digit would decide between equal remainders.
    by_remainder = sorted(counts, key=lambda name: (-(n * counts[name] % total), -counts[name], name))
    for name in by_remainder[: n - sum(quotas.values())]:
        quotas[name] += 1
    return quotas


def select_rows(rows: Sequence[Prediction], n: int, seed: int) -> list[int]:
    """The positions of `n` of `rows`, rising; the same question types, groups and seed give the same positions.

    Question types get their proportional share. As few groups as possible give a second row: which stratum takes
    which group is a maximum matching. Raises DataError if `n` is not between 1 and the number of rows.
    """
    if not 1 <= n <= len(rows):
        fix = f"give a number from 1 to {len(rows)}"
        raise DataError(Option("n", n), f"this run has {len(rows)} test rows to rate", fix)
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    quotas = allot(Counter(row.qtype for row in rows), n)
    slots = [qtype for qtype in sorted(quotas) for _ in range(quotas[qtype])]
    # The first row, in shuffled order, that a stratum finds in a group.
    first: dict[tuple[str, str], int] = {}
    for position in order:
        # The prefix keeps a group that is called "7" apart from the seventh row's own.
        group = f"group {rows[position].group}" if rows[position].group else f"row {position}"
        first.setdefault((rows[position].qtype, group), position)
    chosen = {first[slots[slot], group] for slot, group in _match(slots, list(first)).items()}

    missing = Counter(quotas) - Counter(rows[position].qtype for position in chosen)
    for position in order:
        if position not in chosen and missing[rows[position].qtype] > 0:
            missing[rows[position].qtype] -= 1
            chosen.add(position)
    return sorted(chosen)


def _match(slots: Sequence[str], pairs: Sequence[tuple[str, str]]) -> dict[int, str]:
    """Give as many slots as possible a group of their own: slot → group. `pairs` are the (qtype, group) that exist."""
    import numpy as np
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    # Groups in the shuffled order of `pairs`: the matching prefers the first columns.
    groups = list(dict.fromkeys(group for _, group in pairs))
    column = {group: i for i, group in enumerate(groups)}
    edges = [(slot, column[group]) for slot, wanted in enumerate(slots) for qtype, group in pairs if qtype == wanted]
    slot_of_edge, group_of_edge = np.array(edges).T
    graph = csr_array((np.ones(len(edges), np.int8), (slot_of_edge, group_of_edge)), shape=(len(slots), len(groups)))
    matched = maximum_bipartite_matching(graph, perm_type="column")
    return {slot: groups[i] for slot, i in enumerate(matched) if i >= 0}

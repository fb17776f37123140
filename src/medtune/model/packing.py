"""Rows strung together without padding, as the model takes them, and which rows share a pass."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from medtune.records import IGNORED, EncodedRow

# Packs are filled up to whole multiples of this: libraries of matrix products choose, load or compile a kernel for
# every new number of rows, which on a CPU takes longer than the products of a small model.
PACK_MULTIPLE = 64


def filled_up(count: int, multiple: int = PACK_MULTIPLE) -> int:
    """`count` tokens or rows as many as they become: the next `multiple`."""
    return -(-count // multiple) * multiple


def pack_rows(rows: Sequence[EncodedRow], *, multiple: int = PACK_MULTIPLE) -> dict[str, Any]:
    """One pack of rows, (1, tokens), in the names that transformers' models know.

    It is as long as the next `multiple`: filler makes the last row longer, after all that counts.

    Beside token ids and positions: where rows begin and end (`cu_seq_lens_q` and `_k`, int32; `row_edges`, the same as
    numbers on the host), which row each token is of (`seq_idx`, for models with linear attention), and what counts:
    `answer_labels` and the `answer_positions` of the tokens before them. All is found here, on the host, where nothing
    has to be waited for. A row's first token is never counted: nothing precedes it.
    """
    input_ids, labels = [row.input_ids for row in rows], [row.labels for row in rows]
    count = sum(map(len, input_ids))
    if filler := filled_up(count, multiple) - count:
        input_ids = [*input_ids[:-1], [*input_ids[-1], *[input_ids[-1][-1]] * filler]]
        labels = [*labels[:-1], [*labels[-1], *[IGNORED] * filler]]
    lengths = np.array([len(ids) for ids in input_ids])
    edges = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.concatenate([np.asarray(ids, dtype=np.int64) for ids in input_ids])
    targets = np.concatenate([np.asarray(row, dtype=np.int64) for row in labels])
    targets[edges[:-1]] = IGNORED
    positions = np.flatnonzero(targets[1:] != IGNORED)
    places = np.arange(len(tokens)) - np.repeat(edges[:-1], lengths)
    # No place after the last row's own: a row may fill all that a model has.
    places[len(tokens) - filler :] = lengths[-1] - filler - 1
    bounds = torch.from_numpy(edges.astype(np.int32))
    longest = int(lengths.max())
    return {
        "input_ids": torch.from_numpy(tokens)[None],
        "position_ids": torch.from_numpy(places)[None],
        "seq_idx": torch.from_numpy(np.repeat(np.arange(len(lengths), dtype=np.int32), lengths))[None],
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": longest,
        "max_length_k": longest,
        "row_edges": tuple(edges.tolist()),
        "answer_positions": torch.from_numpy(positions),
        "answer_labels": torch.from_numpy(targets[positions + 1]),
    }


def rows_checksum(rows: Iterable[EncodedRow]) -> str:
    """SHA-256 of the token ids and labels of `rows`, which tells them from others."""
    checksum = hashlib.sha256()
    for row in rows:
        checksum.update(json.dumps([row.input_ids, row.labels]).encode())
    return checksum.hexdigest()


def prompts_checksum(prompts: Iterable[Sequence[int]]) -> str:
    """SHA-256 of the token ids of `prompts`, which tells them from others."""
    checksum = hashlib.sha256()
    for prompt in prompts:
        checksum.update(json.dumps(list(prompt)).encode())
    return checksum.hexdigest()


def balanced_slices(count: int, most: int) -> list[slice]:
    """As few slices of at most `most` as make up `count`, one at least, all about as long: none wastes a kernel.

    What is filled up comes in whole multiples again.
    """
    unit = PACK_MULTIPLE if count % PACK_MULTIPLE == 0 and most >= PACK_MULTIPLE else 1
    units = count // unit
    pieces = max(1, -(-units // (most // unit)))
    edges = [unit * (units * piece // pieces) for piece in range(pieces + 1)]
    return [slice(start, stop) for start, stop in pairwise(edges)]


def fill_micro_batches(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Share out rows over as few passes of at most `token_budget` tokens as first-fit decreasing finds.

    They are spread evenly over these passes where that keeps to the budget. Returns indices into `lengths`. A row
    longer than the budget gets a pass of its own. The result depends on the lengths alone.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    passes: list[list[int]] = []
    room: list[int] = []
    for index in order:
        place = next((p for p, left in enumerate(room) if lengths[index] <= left), None)
        if place is None:
            passes.append([])
            room.append(token_budget)
            place = len(passes) - 1
        passes[place].append(index)
        room[place] -= lengths[index]
    even: list[list[int]] = [[] for _ in passes]
    loads = [0] * len(passes)
    for index in order:
        place = loads.index(min(loads))
        even[place].append(index)
        loads[place] += lengths[index]
    fits = all(load <= token_budget or len(rows) == 1 for load, rows in zip(loads, even, strict=True))
    return [sorted(indices) for indices in (even if fits else passes)]

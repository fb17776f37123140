"""Packs of rows are what TRL's padding-free collator makes of them; rows share as few passes as may be, evenly."""

from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from medtune.model.packing import balanced_slices, fill_micro_batches, pack_rows
from medtune.records import EncodedRow

ROW = st.lists(st.tuples(st.integers(0, 400), st.booleans()), min_size=1, max_size=12)


def encoded(ids, labels):
    return [EncodedRow("", *row) for row in zip(ids, labels, strict=True)]


@given(st.lists(ROW, min_size=1, max_size=6))
def test_packs_are_those_of_trl(rows):
    ids = [[token for token, _ in row] for row in rows]
    labels = [[token if counted else -100 for token, counted in row] for row in rows]
    pack = pack_rows(encoded(ids, labels), multiple=1)
    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    expected = collate([{"input_ids": i, "labels": row} for i, row in zip(ids, labels, strict=True)])
    shifted = expected.pop("labels")[0, 1:]
    counted = (shifted != -100).nonzero().squeeze(1)
    expected |= {"answer_positions": counted, "answer_labels": shifted[counted]}
    expected["row_edges"] = tuple(expected["cu_seq_lens_q"].tolist())
    assert pack.keys() == expected.keys()
    for name, value in expected.items():
        if torch.is_tensor(value):
            assert torch.equal(pack[name], value)
            assert pack[name].dtype == value.dtype
        else:
            assert pack[name] == value


def test_what_counts_by_hand():
    ids = [[1, 2, 3, 4], [5], [6, 7, 8]]
    labels = [[-100, -100, 3, 4], [5], [6, -100, 8]]
    pack = pack_rows(encoded(ids, labels), multiple=1)
    assert pack["input_ids"].tolist() == [[1, 2, 3, 4, 5, 6, 7, 8]]
    assert pack["position_ids"].tolist() == [[0, 1, 2, 3, 0, 0, 1, 2]]
    assert pack["cu_seq_lens_q"].tolist() == [0, 4, 5, 8]
    assert pack["row_edges"] == (0, 4, 5, 8)
    # Each position is that of the token before the label's; nothing precedes a row's first token.
    assert pack["answer_positions"].tolist() == [1, 2, 6]
    assert pack["answer_labels"].tolist() == [3, 4, 8]


@given(st.lists(ROW, min_size=1, max_size=6), st.integers(1, 9))
def test_a_pack_is_filled_up_by_tokens_of_which_nothing_counts(rows, multiple):
    ids = [[token for token, _ in row] for row in rows]
    labels = [[token if counted else -100 for token, counted in row] for row in rows]
    whole = encoded(ids, labels)
    filled, pack = pack_rows(whole, multiple=multiple), pack_rows(whole, multiple=1)
    tokens = pack["input_ids"].shape[1]
    assert filled["input_ids"].shape == (1, -(-tokens // multiple) * multiple)
    for name in ("input_ids", "position_ids", "seq_idx"):
        assert torch.equal(filled[name][:, :tokens], pack[name])
    for name in ("answer_positions", "answer_labels"):
        assert torch.equal(filled[name], pack[name])
    filler = filled["input_ids"].shape[1] - tokens
    # They lengthen the last row, at its last position: it may be the last that the model has.
    assert (filled["position_ids"][0, tokens:] == len(rows[-1]) - 1).all()
    assert filled["row_edges"] == (*pack["row_edges"][:-1], tokens + filler)
    assert filled["cu_seq_lens_q"].tolist() == list(filled["row_edges"])
    assert filled["max_length_q"] == max(pack["max_length_q"], len(rows[-1]) + filler)


@given(st.one_of(st.integers(0, 50_000), st.integers(0, 700).map(lambda n: 64 * n)), st.integers(1, 9_000))
def test_slices_cover_everything_once_and_are_about_as_long(count, most):
    sizes = [len(range(count)[piece]) for piece in balanced_slices(count, most)]
    slices = balanced_slices(count, most)
    assert (slices[0].start, slices[-1].stop) == (0, count)
    assert all(before.stop == after.start for before, after in pairwise(slices))
    unit = 64 if count % 64 == 0 and most >= 64 else 1
    assert len(slices) == max(1, -(-count // (most // unit * unit)))
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= unit
    assert {size % unit for size in sizes} == {0}


def first_fit_decreasing(lengths, budget):
    """How many passes it takes (Johnson 1973)."""
    room = []
    for length in sorted(lengths, reverse=True):
        place = next((i for i, left in enumerate(room) if left >= length), None)
        if place is None:
            room.append(budget - length)
        else:
            room[place] -= length
    return len(room)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(1, 200), max_size=40), st.integers(16, 300))
def test_micro_batches_hold_every_row_once_within_the_budget(lengths, budget):
    passes = fill_micro_batches(lengths, budget)
    assert sorted(index for indices in passes for index in indices) == list(range(len(lengths)))
    assert all(indices == sorted(indices) for indices in passes)
    loads = [sum(lengths[i] for i in indices) for indices in passes]
    for indices, load in zip(passes, loads, strict=True):
        assert indices
        assert load <= budget or len(indices) == 1
    assert len(passes) == first_fit_decreasing(lengths, budget)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(200, 400))
def test_micro_batches_are_even(lengths, budget):
    """No pass is longer than another by more than a row, wherever that is sure to keep to the budget."""
    passes = fill_micro_batches(lengths, budget)
    loads = [sum(lengths[i] for i in indices) for indices in passes]
    # Rows given to whichever pass has least leave none above the mean by more than this (Graham 1969).
    if sum(lengths) + (len(passes) - 1) * max(lengths) <= budget * len(passes):
        assert max(loads) - min(loads) <= max(lengths)
    assert max(loads) <= budget


@given(st.lists(st.integers(1, 200), min_size=1, max_size=20), st.integers(16, 300), st.randoms())
def test_micro_batches_depend_on_the_lengths_alone(lengths, budget, random):
    passes = fill_micro_batches(lengths, budget)
    assert fill_micro_batches(tuple(lengths), budget) == passes
    # In another order, passes of the same lengths.
    shuffled = random.sample(lengths, len(lengths))
    again = fill_micro_batches(shuffled, budget)

    def contents(rows, grouped):
        return sorted(sorted(rows[i] for i in indices) for indices in grouped)

    assert contents(shuffled, again) == contents(lengths, passes)


def test_micro_batches_by_hand():
    assert fill_micro_batches([], 100) == []
    assert fill_micro_batches([5, 300, 5], 100) == [[1], [0, 2]]  # too long for any budget: by itself
    # First fit would give 90 and 50; spread out they are 70 and 70.
    assert fill_micro_batches([50, 40, 30, 20], 100) == [[0, 3], [1, 2]]
    # Spread out they would be 110 and 90, so first fit's 100 and 100 stay.
    assert fill_micro_batches([60, 50, 40, 30, 20], 100) == [[0, 2], [1, 3, 4]]

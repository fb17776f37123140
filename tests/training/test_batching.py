"""The rows of a step depend on the seed alone."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medtune.config.training import TrainingSection
from medtune.records import EncodedRow
from medtune.training.batching import (
    StepSampler,
    collate_step,
    largest_step,
    shares_of_steps,
    steps_of,
    steps_per_epoch,
    total_steps,
)

SIZES = {"rows": st.integers(1, 60), "rows_per_step": st.integers(1, 20), "seed": st.integers(0, 5)}


@settings(deadline=None, max_examples=60)
@given(**SIZES, epochs=st.integers(1, 3))
def test_every_epoch_holds_every_row_once(rows, rows_per_step, seed, epochs):
    per_epoch = steps_per_epoch(rows, rows_per_step)
    steps = list(StepSampler(rows, rows_per_step, per_epoch * epochs, seed))
    assert len(steps) == per_epoch * epochs
    for epoch in range(epochs):
        seen = [row for step in steps[epoch * per_epoch : (epoch + 1) * per_epoch] for row in step]
        assert sorted(seen) == list(range(rows))
    assert all(len(step) <= rows_per_step for step in steps)


@settings(deadline=None, max_examples=60)
@given(rows=SIZES["rows"], rows_per_step=SIZES["rows_per_step"], seed=SIZES["seed"], processes=st.integers(1, 4))
def test_processes_share_a_steps_rows(rows, rows_per_step, seed, processes):
    training = TrainingSection(effective_batch_rows=rows_per_step, epochs=1)
    lengths = [1 + row % 7 for row in range(rows)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLD_SIZE", str(processes))
        shares = list(shares_of_steps(lengths, training, seed))
    whole = list(steps_of(rows, training, seed))
    assert len(shares) == processes * len(whole)
    for step, expected in enumerate(whole):
        own = shares[step * processes : (step + 1) * processes]
        assert sorted(row for share in own for row in share) == sorted(expected)


def test_seeds_and_epochs_shuffle():
    orders = [list(StepSampler(50, 50, 2, seed)) for seed in (0, 1)]
    assert orders[0][0] != orders[0][1]
    assert orders[0][0] != orders[1][0]
    # Nor does a seed's second epoch come in the order of the next seed's first.
    assert orders[0][1] != orders[1][0]
    assert list(StepSampler(50, 50, 2, 0)) == orders[0]


def test_a_step_is_split_by_its_token_budget():
    rows = [EncodedRow("", [1] * n, [-100] + [1] * (n - 1)) for n in (5, 30, 10, 7)]
    step = collate_step(rows, tokens_per_micro_batch=20)
    # As few passes as first-fit decreasing needs, evenly filled; the row that is over the budget is alone.
    assert sorted(len(batch["answer_labels"]) for batch in step["micro_batches"]) == [9, 4 + 6, 29]
    assert {batch["input_ids"].shape for batch in step["micro_batches"]} == {(1, 64)}
    assert step["answer_tokens"] == 4 + 29 + 9 + 6
    assert step["tokens"] == 52


def test_each_process_has_its_rows_and_the_counts_of_all(monkeypatch):
    rows = [EncodedRow(str(n), [n] * n, [-100, -100] + [1] * (n - 2)) for n in (5, 30, 10, 7)]
    monkeypatch.setenv("WORLD_SIZE", "3")
    found = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        step = collate_step(rows, tokens_per_micro_batch=20)
        assert (step["answer_tokens"], step["tokens"]) == (3 + 28 + 8 + 5, 52)
        found.append(sorted({int(token) for batch in step["micro_batches"] for token in batch["input_ids"][0]}))
    assert found == [[30], [10], [5, 7]]


def test_a_process_may_have_no_row(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    step = collate_step([EncodedRow("", [1, 2, 3], [-100, 2, 3])], tokens_per_micro_batch=20)
    assert step["micro_batches"] == []
    assert step["answer_tokens"] == 2


@pytest.mark.parametrize(
    ("settings", "steps"),
    [({"epochs": 2.0}, 6), ({"epochs": 0.01}, 1), ({"epochs": 1.5}, 4), ({"epochs": 2.0, "max_steps": 3}, 3)],
)
def test_epochs_or_a_number_of_steps_end_a_training(settings, steps):
    training = TrainingSection(effective_batch_rows=8, **settings)
    assert total_steps(training, 22) == steps == len(steps_of(22, training, 0))


def test_the_largest_step_is_the_most_that_one_process_has(monkeypatch):
    training = TrainingSection(effective_batch_rows=2, epochs=1)
    lengths = [10, 20, 30, 40]
    steps = list(steps_of(4, training, 0))
    assert largest_step(lengths, training, 0) == max(sum(lengths[i] for i in step) for step in steps)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert list(steps_of(4, training, 0)) == steps
    assert largest_step(lengths, training, 0) == 40

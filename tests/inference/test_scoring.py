"""Reference losses: what plain logits give, whatever rows share a pass."""

import pytest
import torch

from medtune.data.prompts import PromptRenderer
from medtune.errors import ModelError
from medtune.inference import scoring
from medtune.inference.scoring import answer_losses, plan_passes, score_passes
from medtune.model.answer_loss import add_answer_loss
from medtune.records import AnswerLoss, QAPair
from medtune.run_dir.partial_results import BatchWork


@pytest.fixture(scope="module")
def encoded(tiny):
    renderer = PromptRenderer(tiny.tokenizer, "Be kind.")
    answers = ["Uric acid.", "Nobody knows why, but " * 4, "x", "Rest.\nSleep."]
    return [
        renderer.encode_pairs([QAPair(str(i), "q", f"What is {i} ?", answer)])[0] for i, answer in enumerate(answers)
    ]


def plain_loss(model, row):
    logits = model(torch.tensor([row.input_ids])).logits[0, :-1].double()
    labels = torch.tensor(row.labels[1:])
    return float(torch.nn.functional.cross_entropy(logits, labels, ignore_index=-100, reduction="sum"))


@pytest.mark.parametrize("budget", [16, 60, 100_000])
def test_equals_plain_cross_entropy(tiny, encoded, budget):
    model = tiny.load()
    expected = [plain_loss(model, row) for row in encoded]
    add_answer_loss(model)
    seen = []
    losses = answer_losses(model, encoded, tokens_per_batch=budget, on_rows=seen.append)
    assert [loss.nll for loss in losses] == pytest.approx(expected, rel=1e-5)
    assert [loss.tokens for loss in losses] == [sum(label != -100 for label in row.labels) for row in encoded]
    assert sum(seen) == len(encoded)


def limit_tokens(model, monkeypatch, most):
    """Memory for so many tokens at once; a list of the tokens of every pass that was tried."""
    forward, tried = model.forward, []

    def limited(**inputs):
        tried.append(inputs["input_ids"].shape[1])
        if tried[-1] > most:
            raise torch.OutOfMemoryError
        return forward(**inputs)

    monkeypatch.setattr(model, "forward", limited)
    return tried


def test_out_of_memory_halves_the_tokens_of_a_pass_and_loses_no_row(tiny, encoded, monkeypatch, capfd):
    model = tiny.load()
    expected = [plain_loss(model, row) for row in encoded]
    add_answer_loss(model)
    tokens = sum(len(row.input_ids) for row in encoded)
    tried, seen = limit_tokens(model, monkeypatch, 192), []
    capfd.readouterr()
    losses = answer_losses(model, encoded, tokens_per_batch=100_000, on_rows=seen.append)
    assert [loss.nll for loss in losses] == pytest.approx(expected, rel=1e-5)
    assert tried[0] > 192 >= max(tried[1:])
    assert sum(seen) == len(encoded)
    assert capfd.readouterr().err == (
        f"out of memory with 4 rows of {tokens} tokens at once; continuing with {tokens // 2} tokens at most\n"
    )


def test_out_of_memory_with_one_row_is_said_in_one_line(tiny, encoded, monkeypatch):
    model = tiny.load()
    add_answer_loss(model)
    limit_tokens(model, monkeypatch, 64)
    with pytest.raises(ModelError) as error:
        answer_losses(model, encoded, tokens_per_batch=1)
    longest = max(len(row.input_ids) for row in encoded)
    assert str(error.value) == (
        f"out of memory with one row of {longest} tokens at a time, whatever training.tokens_per_micro_batch is; "
        "free memory on the device, or leave such long rows out of the data"
    )


def test_losses_are_kept_while_later_passes_are_to_come(tiny, encoded, monkeypatch):
    model = tiny.load()
    add_answer_loss(model)
    entries = []
    work = BatchWork(plan_passes(encoded, 1), AnswerLoss, keep=entries.append)
    kept_before = []
    score_passes(model, encoded, work, lambda rows: kept_before.append(len(entries)))
    # The first at once, the others before a second is over: together, at the end.
    assert kept_before == [0, 1, 1, 1]
    assert [row for entry in entries for row in entry["rows"]] == [rows[0] for rows in work.planned]
    monkeypatch.setattr(scoring, "SECONDS_PER_LOOK", 0)
    again, kept_before[:], entries[:] = BatchWork(work.planned, AnswerLoss, keep=entries.append), [], []
    score_passes(model, encoded, again, lambda rows: kept_before.append(len(entries)))
    assert kept_before == [0, 1, 2, 3]
    assert again.in_order() == work.in_order()


def test_what_was_under_way_when_memory_ran_out_is_kept_before_the_new_plan(tiny, encoded, monkeypatch):
    model = tiny.load()
    add_answer_loss(model)
    entries, forward, calls = [], model.forward, []

    def third_time(**inputs):
        calls.append(1)
        if len(calls) == 3:
            raise torch.OutOfMemoryError
        return forward(**inputs)

    monkeypatch.setattr(model, "forward", third_time)
    work = BatchWork([[1], [0], [2, 3]], AnswerLoss, keep=entries.append)
    score_passes(model, encoded, work, lambda rows: None)
    assert [entry.get("rows") or entry["batches"] for entry in entries] == [[1], [0], [[3], [2]], [3], [2]]
    assert work.times_out_of_memory == 1
    # A process killed right after the new plan had been written.
    assert sorted(BatchWork([[1], [0], [2, 3]], AnswerLoss, entries=entries[:3]).to_do) == [[2], [3]]

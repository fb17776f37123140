"""What stops a training before its weights are spoilt, and what does not."""

import json
import math
from dataclasses import replace

import pytest
import torch
from trainings import huge_adapter, make_config, rows, train

from medtune.config.changes import MAY_CHANGE
from medtune.errors import MedtuneError, spell_out
from medtune.model.adapters import attach_new_adapter
from medtune.records import AnswerLoss, EncodedRow
from medtune.run_dir.directory import RunDir
from medtune.training.batching import StepSampler
from medtune.training.checkpoints.sealing import last_checkpoint
from medtune.training.health import NORMS, HealthWatch, StepReading, require_float32_adapter, stop_training


def reading(step=1, loss=2.0, norm=1.0, scale=None):
    return StepReading(step, loss, norm, scale)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (reading(loss=math.nan), "the loss is nan"),
        (reading(loss=math.inf), "the loss is inf"),
        (reading(norm=math.nan), "the gradient's norm is nan"),
        (reading(norm=math.inf), "the gradient's norm is inf"),
        (reading(norm=math.inf, scale=0.5), "loss scale of float16 has fallen to 0.5"),
        (reading(norm=101.0), "the gradient's norm is 101, 101 times the median before it"),
    ],
)
def test_trouble(bad, said):
    trouble = HealthWatch(100.0, [1.0] * NORMS).trouble(bad)
    assert said in trouble.what
    assert "training." in spell_out(trouble.advice)


@pytest.mark.parametrize(
    "good",
    [
        reading(),
        reading(norm=99.0),
        reading(norm=0.0),
        reading(norm=math.inf, scale=32768.0),  # the scaler leaves this step out
        reading(scale=1.0),
    ],
)
def test_no_trouble(good):
    assert HealthWatch(100.0, [1.0] * NORMS).trouble(good) is None


def test_a_spike_needs_steps_before_it_and_a_limit():
    for watch in (HealthWatch(100.0, [1.0] * (NORMS // 2 - 1)), HealthWatch(None, [1.0] * NORMS)):
        assert watch.trouble(reading(norm=1e6)) is None
    watch = HealthWatch(100.0)
    for step in range(NORMS // 2):
        assert watch.trouble(reading(step, norm=0.01)) is None
    assert watch.trouble(reading(norm=1.5)) is not None


def test_the_way_past_a_spike_is_one_that_a_run_takes():
    """`medtune train` takes no `--set`, and a resumed run refuses other keys."""
    trouble = HealthWatch(100.0, [1.0] * NORMS).trouble(reading(norm=1e6))
    assert "`medtune run … --resume --set training.max_gradient_spike=null`" in spell_out(trouble.advice)
    assert "training.max_gradient_spike" in MAY_CHANGE


def test_skipped_float16_steps_are_not_what_is_usual():
    watch = HealthWatch(100.0, [1.0, math.inf, math.nan] * NORMS)
    assert list(watch.norms) == [1.0] * NORMS
    watch.trouble(reading(norm=math.inf, scale=1024.0))
    assert math.inf not in watch.norms


def test_rows_without_a_finite_loss_are_named(tmp_path):
    run = RunDir(tmp_path)
    found = [EncodedRow(f"r{i}", [1] * (i + 1), [1] * (i + 1)) for i in range(8)]
    watch, bad = HealthWatch(100.0), reading(7, loss=math.nan, norm=math.nan)
    values = [AnswerLoss(float(i), 1) for i in range(8)]
    values[3] = AnswerLoss(math.nan, 4)
    error = stop_training(run, watch.trouble(bad), bad, found, values)
    assert "stopped at step 7, before its update: the loss is nan; rows without a finite loss: r3 (all in" in str(error)
    record = json.loads(run.trouble_file.read_text())
    assert (record["step"], record["loss"], record["gradient_norm"]) == (7, "nan", "nan")
    assert [row["id"] for row in record["rows"]] == ["r3", "r7", "r6", "r5", "r4", "r2", "r1", "r0"]
    whole = stop_training(run, watch.trouble(bad), bad, found, [AnswerLoss(math.inf, 1)] * 8)
    assert "none of its rows has a finite loss" in str(whole)


def test_a_row_that_gives_nan_stops_the_training_before_its_step(tiny, tmp_path, monkeypatch):
    config = make_config(tiny, checkpoint_steps=1, keep="last")
    train_rows = list(rows(tiny))
    place = StepSampler(24, 8, 4, config.seed).step_rows(2)[5]
    poison = tiny.tokenizer.convert_tokens_to_ids("<|finetune_right_pad_id|>")
    row = train_rows[place]
    train_rows[place] = replace(row, input_ids=[*row.input_ids[:2], poison, *row.input_ids[3:]])
    assert [poison in row.input_ids for row in train_rows].count(True) == 1
    embed = torch.nn.Embedding.forward

    def spoilt(self, ids):
        return embed(self, ids).masked_fill((ids == poison).unsqueeze(-1), math.nan)

    monkeypatch.setattr(torch.nn.Embedding, "forward", spoilt)
    with pytest.raises(MedtuneError, match=rf"stopped at step 3, .*loss is nan; rows without a finite loss: {row.id} "):
        train(tiny, tmp_path, config, train_rows=train_rows)
    kept = sorted(path.name for path in tmp_path.glob("checkpoints/checkpoint-*"))
    assert kept == ["checkpoint-1", "checkpoint-2"]
    assert last_checkpoint(RunDir(tmp_path)).name == "checkpoint-2"


def test_a_bfloat16_adapter_is_refused(tiny):
    model = attach_new_adapter(tiny.load(), make_config(tiny).lora, 0)
    require_float32_adapter(model)
    next(p for p in model.parameters() if p.requires_grad).data = torch.zeros(1, dtype=torch.bfloat16)
    with pytest.raises(MedtuneError, match="not float32"):
        require_float32_adapter(model)


def test_a_nan_adapter_is_never_kept(tiny, tmp_path):
    with pytest.raises(MedtuneError, match=r"step 1, .*: the loss is (nan|inf); none of its rows .*_rate"):
        train(tiny, tmp_path, make_config(tiny), adapter=huge_adapter(tiny, tmp_path))
    assert not list(tmp_path.glob("checkpoints/checkpoint-*"))

"""What the trainer saves can be resumed from, and what it should not resume from is refused."""

import shutil

import pytest
from safetensors.torch import load_file
from trainings import assert_same, huge_adapter, losses, make_config, train

from medtune.errors import MedtuneError, RunDirError
from medtune.training import answer_trainer


def test_a_huge_adapter_is_not_saved_in_a_checkpoint_either(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(answer_trainer.HealthWatch, "trouble", lambda self, reading: None)
    with pytest.raises(MedtuneError, match=r"NaN or infinite weights \(.*lora_A.*\), which are not saved; lower"):
        train(tiny, tmp_path, make_config(tiny), adapter=huge_adapter(tiny, tmp_path))
    assert not list(tmp_path.glob("checkpoints/checkpoint-*"))


@pytest.mark.parametrize("gone", [True, False])
def test_without_its_best_checkpoint_a_training_does_not_end_with_another(tiny, tmp_path, gone):
    settings = {"learning_rate": 0.3, "max_steps": 3, "checkpoint_steps": 1, "schedule": "constant"}
    config = make_config(tiny, keep_checkpoints=9, **settings)
    _, _, result = train(tiny, tmp_path, config)
    assert result.best_step == 1
    best = tmp_path / "checkpoints" / "checkpoint-1"
    if gone:
        shutil.rmtree(best)
    else:
        file = best / "adapter_model.safetensors"
        content = bytearray(file.read_bytes())
        content[-3] ^= 1
        file.write_bytes(content)
    with pytest.raises(RunDirError, match=r"checkpoint-1: the best checkpoint so far is torn or gone \(.*; restore it"):
        train(tiny, tmp_path, config, resume_from=tmp_path / "checkpoints" / "checkpoint-2")


# On a CPU bitsandbytes keeps the state where it is, and says so; its 8 bits begin with matrices of 4,096 numbers.
@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU:UserWarning")
@pytest.mark.parametrize(("optimizer", "rank"), [("auto", 4), ("paged_adamw_8bit", 64)])
def test_resumed_training_equals_the_uninterrupted_one(tiny, tmp_path, optimizer, rank):
    settings = {"max_steps": 6, "checkpoint_steps": 2, "keep_checkpoints": 9, "keep": "last", "epochs": 2}
    config = make_config(tiny, lora={"rank": rank}, optimizer=optimizer, **settings)
    whole, history, _ = train(tiny, tmp_path / "a", config)
    checkpoint = tmp_path / "a" / "checkpoints" / "checkpoint-2"
    again, resumed, _ = train(tiny, tmp_path / "a", config, resume_from=checkpoint)
    assert losses(resumed) == losses(history)
    assert losses(resumed, "learning_rate") == losses(history, "learning_rate")
    assert [entry["step"] for entry in resumed] == [entry["step"] for entry in history]
    assert [entry.get("tokens") for entry in resumed] == [entry.get("tokens") for entry in history]
    assert_same(whole, again, atol=0, rtol=0)


def test_keep_best_takes_the_best_validation_loss(tiny, tmp_path):
    # A rate so high that the second step undoes the first.
    options = {"learning_rate": 0.3, "max_steps": 2, "checkpoint_steps": 1, "schedule": "constant"}
    _, history, result = train(tiny, tmp_path / "a", make_config(tiny, **options))
    validation = losses(history, "validation_loss")
    assert validation[0] < validation[1]
    assert (result.best_step, result.validation_loss) == (1, validation[0])
    last, history, result = train(tiny, tmp_path / "b", make_config(tiny, keep="last", **options))
    assert result.validation_loss == losses(history, "validation_loss")[1]
    stored = load_file(tmp_path / "b" / "checkpoints" / "checkpoint-2" / "adapter_model.safetensors")
    assert sorted(float(v.sum()) for v in stored.values()) == sorted(float(v.sum()) for v in last.values())


def test_checkpoints_are_limited(tiny, tmp_path):
    train(tiny, tmp_path, make_config(tiny, max_steps=4, checkpoint_steps=1, keep_checkpoints=1, keep="last"))
    assert [path.name for path in (tmp_path / "checkpoints").glob("checkpoint-*")] == ["checkpoint-4"]

"""The trainer's arguments on hosts that are not this one."""

import pytest
from trainings import losses, make_config, train
from trl import SFTConfig

from medtune.training import answer_trainer
from medtune.training.arguments import OneDeviceConfig


def test_of_two_visible_gpus_one_is_trained_on(tiny, tmp_path, monkeypatch):
    """TRL refuses a process that sees two, as it does on a host with two T4."""
    build_arguments, seen = answer_trainer.build_arguments, []

    def on_two_gpus(*args, **options):
        arguments = build_arguments(*args, **options)
        assert isinstance(arguments, OneDeviceConfig)
        arguments._n_gpu = 2  # what transformers counts
        seen.append((SFTConfig.n_gpu.fget(arguments), arguments.n_gpu))
        return arguments

    monkeypatch.setattr(answer_trainer, "build_arguments", on_two_gpus)
    _, history, _ = train(tiny, tmp_path / "two", make_config(tiny, max_steps=1))
    assert seen == [(2, 1)]
    monkeypatch.undo()
    _, alone, _ = train(tiny, tmp_path / "one", make_config(tiny, max_steps=1))
    assert losses(history) == pytest.approx(losses(alone), rel=1e-6)

"""What a training is made of."""

from dataclasses import FrozenInstanceError
from types import SimpleNamespace

import pytest
from trainings import make_config, make_job, rows

from medtune.training.batching import total_steps


@pytest.fixture
def job(tiny, tmp_path):
    config = make_config(tiny, max_steps=None, epochs=2.5)
    return make_job(tiny, tmp_path, config, SimpleNamespace(training=config.training), rows(tiny))


def test_a_job_knows_how_to_train_and_how_long(job):
    assert job.training.effective_batch_rows == 8
    assert job.steps == total_steps(job.training, 24) == round(2.5 * 3)
    assert (job.origin, job.resume_from) == ({}, None)


def test_a_job_does_not_change_while_it_runs(job):
    with pytest.raises(FrozenInstanceError):
        job.seed = 1

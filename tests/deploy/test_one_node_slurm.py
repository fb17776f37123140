"""The Slurm script under a Slurm of one node: one run is stopped, requeued and resumed, another job cancelled."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from deploy_files import DEPLOY, SOURCES
from one_node_slurm import SlurmError, missing_programs, one_node_slurm

from stopping import steps_logged, write_recipe
from tiny_model import Tiny

SCRIPT = DEPLOY / "slurm.sbatch"
NO_SLURM = "needs root and Slurm (apt-get install slurmctld slurmd slurm-client munge)"


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    if missing_programs() or os.geteuid() != 0:
        pytest.skip(NO_SLURM)
    try:
        with one_node_slurm(tmp_path_factory.mktemp("slurm")) as environment:
            yield environment
    except SlurmError as error:
        print(error)
        pytest.skip(NO_SLURM)


@dataclass(frozen=True)
class Cluster:
    """Jobs of one folder, with a `torchrun` of the test's own."""

    folder: Path
    environment: dict[str, str]

    def ask(self, *command: object) -> str:
        """What one of Slurm's commands prints."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, cwd=self.folder, timeout=30
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def submit(self, recipe: object) -> str:
        """The job's number."""
        resources = ("--nodes=1", "--gpus-per-node=2", "--cpus-per-task=2", "--time=10")
        return self.ask("sbatch", "--parsable", *resources, SCRIPT, recipe)

    def wait(self, job: str, holds: Callable[[str], bool], seconds: float = 300) -> None:
        """Until what Slurm says of the job is so. A job that has failed ends the test."""
        log, end = self.folder / f"medtune-{job}.log", time.monotonic() + seconds
        while not holds(state := self.ask("scontrol", "show", "job", job)):
            said = log.read_text() if log.is_file() else state
            assert "JobState=FAILED" not in state, said
            assert time.monotonic() < end, said
            time.sleep(0.2)


@pytest.fixture
def cluster(slurm: dict[str, str], tmp_path: Path) -> Cluster:
    tools = tmp_path / "tools"
    tools.mkdir()
    environment = {
        **slurm, "PATH": f"{tools}:{slurm['PATH']}", "PYTHONPATH": str(SOURCES), "MEDTUNE_RUN": str(tmp_path / "run"),
        "MEDTUNE_PROCESSES": "2",
    }  # fmt: skip
    return Cluster(tmp_path, environment)


def write_torchrun(folder: Path, text: str) -> None:
    program = folder / "tools" / "torchrun"
    program.write_text(f"#!/usr/bin/env bash\n{text}\n")
    program.chmod(0o755)


@pytest.mark.slow
def test_a_run_of_two_processes_is_stopped_requeued_and_resumed(cluster: Cluster, tiny: Tiny, tmp_path: Path) -> None:
    write_torchrun(tmp_path, f'exec {sys.executable} -m torch.distributed.run "$@"')
    run = tmp_path / "run"
    job = cluster.submit(write_recipe(tiny, tmp_path, steps=60, controls=()))
    cluster.wait(job, lambda state: steps_logged(run) >= 5)
    # As --signal does it before the time limit, which Slurm counts in minutes.
    cluster.ask("scancel", "--batch", "--signal=USR1", job)
    cluster.wait(job, lambda state: "Restarts=1" in state)
    seen = steps_logged(run)
    assert 5 <= seen < 60
    assert (run / "checkpoints" / f"checkpoint-{seen}" / "sealed.json").is_file()
    cluster.wait(job, lambda state: "JobState=COMPLETED" in state)
    assert steps_logged(run) == 60
    assert (run / "comparison.json").is_file()
    said = (tmp_path / f"medtune-{job}.log").read_text()
    assert "medtune: interrupted, goes back into the queue" in said
    assert "── baseline: complete, skipped" in said


@pytest.mark.slow
def test_a_job_that_somebody_cancels_stays_away(cluster: Cluster, tmp_path: Path) -> None:
    """The processes end with 75 as they do before the time limit."""
    write_torchrun(
        tmp_path,
        'mkdir -p "$MEDTUNE_RUN"; trap \'echo "{ "status": 75 }" >"$MEDTUNE_RUN/launch.json"; exit 1\' TERM; '
        'touch "$MEDTUNE_RUN/began"; while true; do sleep 0.1; done',
    )
    job = cluster.submit("demo")
    cluster.wait(job, lambda state: (tmp_path / "run" / "began").is_file())
    cluster.ask("scancel", job)
    cluster.wait(job, lambda state: "JobState=CANCELLED" in state and (tmp_path / "run" / "launch.json").is_file())
    time.sleep(3)  # for a script that would requeue it
    state = cluster.ask("scontrol", "show", "job", job)
    assert "JobState=CANCELLED" in state
    assert "Restarts=0" in state

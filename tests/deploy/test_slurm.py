"""The Slurm script: its options, what it starts, when it goes back into the queue; and a run under a real Slurm."""

from __future__ import annotations

import os
import re
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

NO_SLURM = "needs root and Slurm (apt-get install slurmctld slurmd slurm-client munge)"
SCRIPT = DEPLOY / "slurm.sbatch"
# Options of sbatch in Slurm 22.05 to 25.05 that a script may set.
OPTIONS = re.findall(
    r"\S+",
    """
    account array acctg-freq begin bb bbf chdir clusters comment constraint container contiguous core-spec
    cores-per-socket cpu-freq cpus-per-gpu cpus-per-task deadline delay-boot dependency distribution error exclude
    exclusive export export-file extra-node-info get-user-env gid gpu-bind gpu-freq gpus gpus-per-node
    gpus-per-socket gpus-per-task gres gres-flags hint hold ignore-pbs input job-name kill-on-invalid-dep licenses
    mail-type mail-user mcs-label mem mem-bind mem-per-cpu mem-per-gpu mincpus network nice no-kill no-requeue
    nodefile nodelist nodes ntasks ntasks-per-core ntasks-per-gpu ntasks-per-node ntasks-per-socket open-mode output
    overcommit oversubscribe parsable partition power prefer priority profile propagate qos quiet reboot requeue
    reservation signal sockets-per-node spread-job switches test-only thread-spec threads-per-core time time-min tmp
    tres-bind tres-per-task uid use-min-nodes verbose wait wait-all-nodes wckey wrap
    """,
)
DIRECTIVES = re.findall(r"^#SBATCH (.*)$", SCRIPT.read_text(), re.M)


def test_bash_reads_the_script() -> None:
    subprocess.run(["bash", "-n", SCRIPT], check=True, timeout=10)
    assert os.access(SCRIPT, os.R_OK)


@pytest.mark.parametrize("directive", DIRECTIVES)
def test_sbatch_has_every_option(directive: str) -> None:
    name, _, value = directive.removeprefix("--").partition("=")
    assert directive.startswith("--")
    assert name in OPTIONS
    # sbatch takes what comes behind the value for the next option.
    assert " " not in value
    assert "$" not in value  # which sbatch does not replace


def test_the_directives_come_before_the_first_command() -> None:
    """Later ones are ignored by sbatch."""
    lines = SCRIPT.read_text().splitlines()
    first_command = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    assert all(i < first_command for i, line in enumerate(lines) if line.startswith("#SBATCH"))
    assert {"requeue", "open-mode=append", "ntasks-per-node=1"} <= {each.removeprefix("--") for each in DIRECTIVES}


def test_torchrun_has_less_time_to_end_than_slurm_gives() -> None:
    text = SCRIPT.read_text()
    signalled = int(re.search(r"--signal=B:USR1@(\d+)", text)[1])
    assert int(re.search(r"TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-(\d+)", text)[1]) < signalled


# With programs of our own in place of Slurm's and torch's ------------------------------------------------------------

FAKES = {
    "scontrol": 'echo "scontrol $*" >>"$CALLS"',
    "squeue": 'echo "$STATE"',
    "scancel": 'echo "scancel $*" >>"$CALLS"; kill -TERM "$(cat "$CALLS.pid")"',
    "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"',
    "torchrun": 'echo "$$" >"$CALLS.pid"; printf "%s\\n" "$@" >"$CALLS.arguments"; '
    '[ -e "$MEDTUNE_RUN/launch.json" ] && echo stale >>"$CALLS"; '
    'end() { printf "{\\n  \\"status\\": %s,\\n  \\"processes\\": 2\\n}\\n" "$1" >"$MEDTUNE_RUN/launch.json"; '
    '[ "$1" = 0 ]; exit $?; }; trap "end 75" TERM; '
    '[ "$ENDS" = signal ] && { touch "$CALLS.ready"; while true; do sleep 0.05; done; }; [ -z "$ENDS" ] && exit 1; '
    'end "$ENDS"',
}


@dataclass(frozen=True)
class Job:
    """How the script ended, which of Slurm's commands it called, and what it gave torchrun."""

    status: int
    calls: list[str]
    torchrun: list[str]
    errors: str


@pytest.fixture
def submit(tmp_path: Path) -> Callable[..., Job]:
    """Run the script as Slurm would on the first of two nodes."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in FAKES.items():
        (programs / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (programs / name).chmod(0o755)
    run = tmp_path / "run"
    run.mkdir()

    def submit(*arguments: str, ends: str = "0", state: str = "RUNNING", **environment: str) -> Job:
        values = {
            **os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "MEDTUNE_RUN": str(run), "ENDS": ends,
            "CALLS": str(tmp_path / "calls"), "STATE": state, "SLURM_JOB_ID": "71234", "SLURMD_NODENAME": "a1",
            "SLURM_NNODES": "2", "SLURM_NODEID": "0", **environment,
        }  # fmt: skip
        script = subprocess.Popen(
            ["bash", SCRIPT, *arguments], env=values, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        if ends == "signal":
            end = time.monotonic() + 30
            while not (tmp_path / "calls.ready").exists():
                assert time.monotonic() < end
                time.sleep(0.02)
            script.send_signal(10)  # USR1
        _, errors = script.communicate(timeout=30)
        calls, given = tmp_path / "calls", tmp_path / "calls.arguments"
        return Job(
            script.returncode,
            calls.read_text().splitlines() if calls.exists() else [],
            given.read_text().splitlines() if given.exists() else [],
            errors,
        )

    return submit


def test_it_starts_a_torchrun_on_each_node_that_always_resumes(submit, tmp_path: Path) -> None:
    job = submit("demo", "--set", "seed=3")
    assert (job.status, job.calls) == (0, [])
    assert " ".join(job.torchrun) == (
        "--node-rank 0 --nnodes 2 --nproc-per-node gpu --max-restarts 0 --rdzv-backend c10d --rdzv-id 71234-0 "
        f"--rdzv-endpoint a1:21234 -m medtune run demo --set seed=3 --run-dir {tmp_path / 'run'} --resume"
    )


def test_without_a_shared_file_system_ranks_follow_the_nodes(submit) -> None:
    job = submit("demo", MEDTUNE_SHARED="no", MEDTUNE_PROCESSES="4")
    assert "--rdzv-backend static --rdzv-endpoint a1:21234" in " ".join(job.torchrun)
    assert "--nproc-per-node 4" in " ".join(job.torchrun)


def test_the_signal_before_the_limit_ends_the_step_and_the_job_goes_back_into_the_queue(submit) -> None:
    job = submit("demo", ends="signal")
    assert job.calls == ["scancel --signal=TERM 71234", "scontrol requeue 71234"]
    assert job.status == 1


def test_a_preemption_in_which_slurm_tells_the_step_alone(submit) -> None:
    assert submit("demo", ends="75").calls == ["scontrol requeue 71234"]


@pytest.mark.parametrize(("ends", "state"), [("2", "RUNNING"), ("", "RUNNING"), ("75", "COMPLETING")])
def test_it_stays_away_after_an_error_a_crash_or_a_cancel(submit, tmp_path: Path, ends: str, state: str) -> None:
    # What an earlier launch left is no word on this one.
    (tmp_path / "run" / "launch.json").write_text('{\n  "status": 75\n}\n')
    job = submit("demo", ends=ends, state=state)
    assert (job.status, job.calls) == (1, [])


def test_a_recipe_has_to_be_named(submit) -> None:
    job = submit()
    assert job.status != 0
    assert "the recipe is missing" in job.errors


# Under a Slurm of one node --------------------------------------------------------------------------------------------


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

"""The Slurm script: its options, what it starts, and when it goes back into the queue."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from deploy_files import DEPLOY

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

"""The SkyPilot task: what each node starts, what a recovery finds again; and SkyPilot's own reading of it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from deploy_files import DEPLOY, REPOSITORY, read_yaml

FILE = DEPLOY / "skypilot.yaml"
# SkyPilot wants click below 8.2 and medtune's typer does not, so it has an environment of its own:
# python -m venv .venv-skypilot && .venv-skypilot/bin/pip install 'skypilot>=0.14'
PYTHON = Path(os.environ.get("MEDTUNE_SKYPILOT_PYTHON", REPOSITORY / ".venv-skypilot" / "bin" / "python"))
TASK = read_yaml("skypilot.yaml")
READ = """
import json, sys
import sky
task = sky.Task.from_yaml(sys.argv[1])
resources, = task.resources
storage = task.storage_mounts["/runs"]
print(json.dumps({
    "nodes": task.num_nodes, "accelerators": resources.accelerators, "spot": resources.use_spot,
    "recovery": resources.job_recovery, "envs": task.envs, "secrets": list(task.secrets),
    "bucket": storage.name, "mode": storage.mode.value, "run": task.run, "version": sky.__version__,
}))
"""


def test_a_recovery_finds_the_run_in_the_bucket() -> None:
    mount = TASK["file_mounts"]["/runs"]
    # MOUNT has no renames, by which files are written whole.
    assert mount == {"name": "${BUCKET}", "mode": "MOUNT_CACHED"}
    assert TASK["resources"]["job_recovery"] == {"recover_on_exit_codes": [75], "max_restarts_on_errors": 0}
    assert {"RECIPE", "BUCKET", "OPTIONS"} == set(TASK["envs"])


def test_the_setup_installs_the_checkout_at_the_pinned_versions() -> None:
    assert TASK["workdir"] == "."
    assert "pip install -q -c constraints.txt ." in TASK["setup"]
    subprocess.run(["bash", "-n"], input=TASK["setup"], text=True, check=True, timeout=10)


Node = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """Run the task's commands as on one node, with a torchrun that ends as told: their status, and its arguments."""
    program = tmp_path / "medtune" / "bin" / "torchrun"
    program.parent.mkdir(parents=True)
    # The last arguments are the run directory and --resume.
    program.write_text(
        '#!/usr/bin/env bash\nprintf "%s\\n" "$@" >"$HOME/arguments"; run=${@: -2:1}\n'
        '[ -n "$ENDS" ] && printf \'{\\n  "status": %s\\n}\\n\' "$ENDS" >"$run/launch.json"; [ "$ENDS" = 0 ]\n'
    )
    program.chmod(0o755)

    def run(rank: int, *, ends: str, stale: str = "") -> tuple[int, list[str]]:
        folder = tmp_path / "bucket" / "demo" if rank == 0 else tmp_path / "runs" / "demo"
        folder.mkdir(parents=True, exist_ok=True)
        if stale:
            (folder / "launch.json").write_text(f'{{\n  "status": {stale}\n}}\n')
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(tmp_path), "ENDS": ends, "RECIPE": "demo",
            "OPTIONS": "--set seed=3", "SKYPILOT_NODE_RANK": str(rank), "SKYPILOT_NODE_IPS": "10.0.0.4\n10.0.0.7",
            "SKYPILOT_NUM_NODES": "2", "SKYPILOT_NUM_GPUS_PER_NODE": "8",
        }  # fmt: skip
        commands = TASK["run"].replace("/runs/$RECIPE;", f"{tmp_path}/bucket/$RECIPE;", 1)
        done = subprocess.run(["bash"], input=commands, text=True, env=environment, timeout=30)
        return done.returncode, (tmp_path / "arguments").read_text().splitlines()

    return run


@pytest.mark.parametrize(("rank", "folder"), [(0, "bucket/demo"), (1, "runs/demo")])
def test_each_node_starts_torchrun_and_only_the_first_works_in_the_bucket(
    node: Node, tmp_path: Path, rank: int, folder: str
) -> None:
    status, arguments = node(rank, ends="0")
    assert status == 0
    assert " ".join(arguments) == (
        f"--nnodes 2 --nproc-per-node 8 --node-rank {rank} --master-addr 10.0.0.4 --master-port 29500 --max-restarts 0 "
        f"-m medtune run demo --set seed=3 --run-dir {tmp_path / folder} --resume"
    )


@pytest.mark.parametrize(("ends", "stale", "status"), [("75", "", 75), ("2", "", 1), ("", "", 1), ("", "75", 1)])
def test_only_what_a_signal_has_ended_is_recovered(node: Node, ends: str, stale: str, status: int) -> None:
    assert node(0, ends=ends, stale=stale)[0] == status


@pytest.mark.slow
def test_skypilot_reads_the_task(tmp_path: Path) -> None:
    if not PYTHON.is_file():
        pytest.skip("needs SkyPilot in an environment of its own (.venv-skypilot)")
    environment = {**os.environ, "HOME": str(tmp_path), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [PYTHON, "-c", READ, FILE], env=environment, capture_output=True, text=True, timeout=300, cwd=REPOSITORY
    )
    assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout.splitlines()[-1])
    assert tuple(map(int, read["version"].split(".")[:2])) >= (0, 14)
    assert (read["nodes"], read["accelerators"], read["spot"]) == (2, {"H100": 8}, True)
    assert (read["bucket"], read["mode"]) == (TASK["envs"]["BUCKET"], "MOUNT_CACHED")
    assert read["recovery"]["recover_on_exit_codes"] == [75]
    assert read["secrets"] == ["HF_TOKEN"]
    assert read["run"].strip() == TASK["run"].strip()

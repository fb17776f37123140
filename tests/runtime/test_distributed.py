"""The processes of one launch: what the environment says of them, and what they tell each other."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import medtune
from medtune.errors import ConfigError, RunDirError
from medtune.runtime import distributed
from medtune.runtime.distributed import gather_counts, is_main, local_rank, rank, require_single_process, world_size
from tiny_model import Tiny, write_rows


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Sets what a launcher would set."""
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(distributed, "_HEAD_START", 0)
    return monkeypatch


def test_ranks_come_from_the_launcher(launched: pytest.MonkeyPatch) -> None:
    assert (rank(), local_rank(), world_size(), is_main()) == (0, 0, 1, True)
    launched.setenv("RANK", "3")
    launched.setenv("LOCAL_RANK", "1")
    launched.setenv("WORLD_SIZE", "4")
    assert (rank(), local_rank(), world_size(), is_main()) == (3, 1, 4, False)


@pytest.mark.parametrize("nothing", ["", " "])
def test_an_empty_rank_is_none(launched: pytest.MonkeyPatch, nothing: str) -> None:
    launched.setenv("RANK", nothing)
    launched.setenv("WORLD_SIZE", nothing)
    assert (rank(), world_size()) == (0, 1)


def test_a_rank_that_is_no_number_is_named(launched: pytest.MonkeyPatch) -> None:
    launched.setenv("WORLD_SIZE", "abc")
    with pytest.raises(ConfigError, match=r"^WORLD_SIZE='abc' in the environment: must be a number; unset it$"):
        world_size()


def test_one_process_may_do_anything(launched: pytest.MonkeyPatch) -> None:
    require_single_process("`medtune run`")
    launched.setenv("WORLD_SIZE", "1")
    require_single_process("`medtune run`")


def test_of_several_processes_the_first_says_why_and_the_others_end(
    launched: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    launched.setenv("WORLD_SIZE", "2")
    with pytest.raises(RunDirError, match=r"^`medtune run` runs as one process, and 2 were launched; start it without"):
        require_single_process("`medtune run`")
    launched.setenv("RANK", "1")
    with pytest.raises(SystemExit) as ended:
        require_single_process("`medtune run`")
    assert ended.value.code == 2
    assert capfd.readouterr() == ("", "")


def test_functions_refuse_as_commands_do(launched: pytest.MonkeyPatch, tmp_path: Path) -> None:
    launched.setenv("WORLD_SIZE", "2")
    rows = [{"id": "1", "reference": "Gout hurts.", "prediction": "Gout hurts."}]
    with pytest.raises(RunDirError, match=r"^this call runs as one process, and 2 were launched"):
        medtune.score(rows, metrics=["exact_match"])
    with pytest.raises(RunDirError, match="this call runs as one process"):
        medtune.run("demo", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_one_process_gathers_its_own(launched: pytest.MonkeyPatch) -> None:
    assert gather_counts((3, 4), stop=True, device=torch.device("cpu")) == ([[3, 4]], True)
    assert gather_counts((3, 4), stop=False, device=torch.device("cpu")) == ([[3, 4]], False)


LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
GATHERING = """
import json, sys, torch
from medtune.runtime.distributed import gather_counts, rank
torch.distributed.init_process_group("gloo")
told = [gather_counts((7 * rank(), step), stop=rank() == step, device=torch.device("cpu")) for step in range(3)]
torch.distributed.destroy_process_group()
open(f"{sys.argv[1]}/{rank()}.json", "w").write(json.dumps(told))
"""


@pytest.mark.slow
def test_every_process_learns_the_same(tmp_path: Path) -> None:
    """Counts in order of rank; all stop once one of them is told to."""
    (tmp_path / "script.py").write_text(GATHERING)
    subprocess.run([*LAUNCH, tmp_path / "script.py", tmp_path], check=True, timeout=300, capture_output=True)
    for number in (0, 1):
        gathered = json.loads((tmp_path / f"{number}.json").read_text())
        assert gathered == [[[[0, step], [7, step]], step < 2] for step in range(3)]


@pytest.mark.slow
def test_a_launcher_gets_one_line_and_status_2(tiny: Tiny, tmp_path: Path) -> None:
    """Of `torchrun -m medtune evaluate`, on a run that could be evaluated."""
    recipe = {
        "model": {"base": str(tiny.path)},
        "data": {"source": str(write_rows(tmp_path / "rows.csv"))},
        "training": {"max_length": 256},
        "evaluation": {"metrics": ["bleu"]},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))  # JSON is YAML
    run = medtune.prepare(tmp_path / "recipe.yaml", tmp_path / "run").path
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    done = subprocess.run(
        [*LAUNCH, "-m", "medtune", "evaluate", run, "--model", "baseline"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1  # the launcher's own
    ours = [line for line in done.stderr.splitlines() if line.startswith("medtune: ")]
    assert len(ours) == 1
    assert ours[0].startswith("medtune: `medtune evaluate` runs as one process, and 2 were launched; ")
    assert "exitcode  : 2 " in done.stderr
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before

"""The page on torchrun by hand: its commands parse, its files exist, and two hosts finish the run that it starts."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from deploy_files import DEPLOY, SOURCES
from torch.distributed.run import get_args_parser
from two_hosts import INTERFACE, Host, two_hosts

from medtune.cli import app
from medtune.config.recipes import load_recipe
from stopping import write_recipe
from tiny_model import Tiny

PAGE = (DEPLOY / "README.md").read_text(encoding="utf-8")
BLOCKS = [
    line
    for block in re.findall(r"^```bash\n(.*?)^```", PAGE, re.M | re.S)
    for line in block.replace("\\\n", " ").splitlines()
]
(BY_HAND,) = [shlex.split(line) for line in BLOCKS if line.startswith("torchrun ")]


def test_torchrun_and_medtune_know_the_options_of_the_command() -> None:
    parsed = get_args_parser().parse_args(BY_HAND[1:])
    assert (parsed.nnodes, parsed.nproc_per_node, parsed.node_rank) == ("2", "gpu", 0)
    assert (parsed.master_addr, parsed.master_port) == ("node-a", 29500)
    assert (parsed.module, parsed.training_script) == (True, "medtune")
    name, *arguments = parsed.training_script_args
    command = typer.main.get_command(app).commands[name]
    shown = command.make_context("medtune run", arguments).params
    assert shown["resume"]
    load_recipe(shown["recipe"])


def test_links_lead_somewhere_and_every_file_has_its_line() -> None:
    targets = re.findall(r"\]\((?!https?://)([^)#]+)", PAGE)
    for target in targets:
        assert (DEPLOY / target).exists(), target
    assert {path.name for path in DEPLOY.iterdir()} - {"README.md"} == {name for name in targets if "/" not in name}


def test_variables_are_those_of_the_files() -> None:
    texts = "".join(path.read_text() for path in DEPLOY.iterdir() if path.name != "README.md")
    for name in re.findall(r"\b(?:MEDTUNE|TORCH_ELASTIC)_[A-Z_]+", PAGE):
        assert name in texts, name


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    with two_hosts() as made:
        if made is None:
            pytest.skip("needs root and network namespaces (`ip netns add`)")
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("folders", [("one", "one"), ("first", "second")], ids=["shared", "separate"])
def test_two_hosts_finish_the_run_that_the_page_starts(hosts, folders, tiny: Tiny, tmp_path: Path) -> None:
    recipe = write_recipe(tiny, tmp_path, steps=8, controls=())
    environment = {
        **os.environ, "PYTHONPATH": str(SOURCES), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": INTERFACE,
    }  # fmt: skip
    replaced = {"gpu": "1", "node-a": hosts[0].address, "llama3-8b-80gb": str(recipe)}
    logs = [tmp_path / f"{rank}.log" for rank in range(2)]
    started = []
    for rank, (host, folder) in enumerate(zip(hosts, folders, strict=True)):
        (tmp_path / folder).mkdir(exist_ok=True)
        words = [replaced.get(word, word) for word in BY_HAND[1:]]
        words[words.index("--node-rank") + 1] = str(rank)
        command = host.command(sys.executable, "-m", "torch.distributed.run", *words)
        with logs[rank].open("w") as log:
            started.append(subprocess.Popen(command, cwd=tmp_path / folder, env=environment, stdout=log, stderr=log))
    try:
        statuses = [process.wait(400) for process in started]
    finally:
        for process in started:
            process.kill()
    assert statuses == [0, 0], "\n\n".join(log.read_text() for log in logs)
    run = tmp_path / folders[0] / "runs" / "big"
    assert (run / "report.html").is_file()
    assert (run / "launch.json").read_text().split() == ["{", '"status":', "0,", '"processes":', "2", "}"]

"""Sums and gathered parts of tensors, in processes of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from launches import finish, start
from medtune.runtime.tensors import open_group, wait_for_sums

SCRIPT = """
import json, torch
from medtune.runtime.distributed import joined
from medtune.runtime.launch import rank, world_size
from medtune.runtime.tensors import add_up, gather_parts, open_group, wait_for_sums

with joined():
    open_group()
    open_group()  # once is enough
    sums = torch.arange(4.0) * (rank() + 1)
    bytes_ = torch.full((3,), 10 * rank(), dtype=torch.uint8)
    whole = torch.empty(3 * world_size(), dtype=torch.uint8)
    wait_for_sums([add_up(sums), gather_parts(whole, bytes_)])
    print(json.dumps([sums.tolist(), whole.tolist()]))
assert not torch.distributed.is_initialized()
"""


@pytest.mark.slow
def test_every_process_has_the_sums_and_the_parts(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    for done in finish(start(2, tmp_path / "script.py")):
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == [[0, 3, 6, 9], [0, 0, 0, 10, 10, 10]]


def test_one_process_needs_no_group() -> None:
    open_group()
    assert not torch.distributed.is_initialized()


def test_an_error_that_no_other_process_caused_is_shown() -> None:
    class Broken:
        def wait(self) -> None:
            raise RuntimeError("a cable")

    with pytest.raises(RuntimeError, match="a cable"):
        wait_for_sums([Broken()])

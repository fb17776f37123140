"""kill -9 at any moment: a resumed run ends as one that was never killed."""

import random
import time
from pathlib import Path

import pytest

from stopping import finish, results, start, write_recipe

pytestmark = pytest.mark.slow

KILLS = 4


@pytest.mark.parametrize("seed", [0, 1])
def test_a_run_killed_again_and_again_ends_as_if_it_had_not_been(tiny, tmp_path: Path, seed: int) -> None:
    recipe = write_recipe(tiny, tmp_path)
    began = time.monotonic()
    status, errors = finish(start("run", recipe, "--run-dir", tmp_path / "whole"))
    assert status == 0, errors
    seconds = time.monotonic() - began
    moments, killed = random.Random(seed), tmp_path / "killed"
    for _ in range(KILLS):
        process = start("run", recipe, "--run-dir", killed, "--resume")
        time.sleep(moments.uniform(0.2, 1) * seconds)
        process.kill()
        finish(process)
    status, errors = finish(start("run", recipe, "--run-dir", killed, "--resume"))
    assert status == 0, errors
    assert results(killed) == results(tmp_path / "whole")

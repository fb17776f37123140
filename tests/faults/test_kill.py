"""kill -9 at any moment: a resumed run ends as one that was never killed.

`make kill-test` kills 20 times; without MEDTUNE_KILLS it is twice.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest

from medtune.run_dir.layout import STAGE_NAMES
from stopping import finish, results, start, steps_logged, write_recipe

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("MEDTUNE_KILLS", "2"))
KILLS_A_RUN = 4
# What a run goes through, with the part of the training in its own line where the adapter is on its way to the disk.
MOMENTS = ("data", "baseline", "controls", "train", "saving", "tuned", "compare", "report")
STEPS = 60 if KILLS >= 20 else 20


def moment(log: Path, run: Path) -> str | None:
    """Where a process is or was, by what it said; None before its first stage."""
    begun = [line.removeprefix("── ") for line in log.read_text().splitlines() if line.startswith("── ")]
    begun = [name for name in begun if name in STAGE_NAMES]
    if not begun:
        return None
    return "saving" if begun[-1] == "train" and steps_logged(run) >= STEPS else begun[-1]


def durations(recipe: Path, run: Path) -> dict[str, float]:
    """Seconds that an uninterrupted run spends at each moment."""
    log, began = run.with_suffix(".log"), {}
    process = start("run", recipe, "--run-dir", run, log=log)
    while process.poll() is None:
        if now := moment(log, run):
            began.setdefault(now, time.monotonic())
        time.sleep(0.002)
    began["end"] = time.monotonic()
    assert finish(process)[0] == 0, log.read_text()
    assert set(began) == {*MOMENTS, "end"}
    times = list(began.values())
    return {name: end - begin for name, begin, end in zip(MOMENTS, times, times[1:], strict=False)}


def kill(recipe: Path, run: Path, aim: str, delay: float) -> str | None:
    """Start or continue a run and kill it `delay` seconds after it has come to `aim`.

    Returns where it was hit, or None if it had ended.
    """
    log = run.with_suffix(".log")
    process = start("run", recipe, "--run-dir", run, "--resume", log=log)
    while process.poll() is None:
        now = moment(log, run)
        if now is not None and MOMENTS.index(now) >= MOMENTS.index(aim):
            time.sleep(delay)
            break
        time.sleep(0.002)
    process.kill()
    status, _ = finish(process)
    assert status in (0, -9), log.read_text()
    return moment(log, run) if status == -9 else None


def test_a_run_killed_again_and_again_ends_as_if_it_had_not_been(tiny, tmp_path: Path) -> None:
    recipe = write_recipe(tiny, tmp_path, steps=STEPS, controls=["few_shot", "cut_reference"])
    seconds = durations(recipe, tmp_path / "whole")
    expected = results(tmp_path / "whole")
    chance, hits, runs = random.Random(KILLS), Counter[str](), 0
    aims = [MOMENTS[(3 * number + 1) % len(MOMENTS)] for number in range(KILLS)]
    chance.shuffle(aims)
    while aims:
        runs += 1
        assert runs <= KILLS
        killed = tmp_path / f"killed-{runs}"
        for aim in sorted(aims[:KILLS_A_RUN], key=MOMENTS.index):
            hit = kill(recipe, killed, aim, chance.uniform(0, 0.95) * seconds[aim])
            if hit is None:
                break
            hits[hit] += 1
            aims.remove(aim)
        status, errors = finish(start("run", recipe, "--run-dir", killed, "--resume"))
        assert status == 0, errors
        assert results(killed) == expected
    counts = ", ".join(f"{name} {hits[name]}" for name in MOMENTS)
    print(f"\n{sum(hits.values())} kills in {runs} runs: {counts}; every run ended as the one that was not killed")
    assert sum(hits.values()) == KILLS
    assert set(hits) == set(MOMENTS) or len(MOMENTS) * 2 > KILLS

"""What the environment says of a launch, and how work is shared out."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import medtune
from medtune.errors import ConfigError, RunDirError
from medtune.runtime import launch
from medtune.runtime.launch import (
    balanced_shares,
    gpu_index,
    is_launched,
    is_main,
    local_rank,
    machine_processes,
    own_share,
    rank,
    require_single_process,
    wait_for_words,
    world_size,
)


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Sets what a launcher would set."""
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(launch, "_HEAD_START", 0)
    return monkeypatch


def test_ranks_come_from_the_launcher(launched: pytest.MonkeyPatch) -> None:
    assert (rank(), local_rank(), world_size(), machine_processes(), is_main()) == (0, 0, 1, 1, True)
    assert not is_launched()
    for name, value in {"RANK": 3, "LOCAL_RANK": 1, "WORLD_SIZE": 4, "LOCAL_WORLD_SIZE": 2}.items():
        launched.setenv(name, str(value))
    assert (rank(), local_rank(), world_size(), machine_processes(), is_main()) == (3, 1, 4, 2, False)
    assert is_launched()
    assert gpu_index() == 1


@pytest.mark.parametrize("nothing", ["", " "])
def test_an_empty_rank_is_none(launched: pytest.MonkeyPatch, nothing: str) -> None:
    launched.setenv("RANK", nothing)
    launched.setenv("WORLD_SIZE", nothing)
    assert (rank(), world_size(), is_launched()) == (0, 1, False)


def test_a_rank_that_is_no_number_is_named(launched: pytest.MonkeyPatch) -> None:
    launched.setenv("WORLD_SIZE", "abc")
    with pytest.raises(ConfigError, match=r"^WORLD_SIZE='abc' in the environment: must be a number; unset it$"):
        world_size()


def test_one_process_may_do_anything(launched: pytest.MonkeyPatch) -> None:
    require_single_process("`medtune merge`")
    launched.setenv("WORLD_SIZE", "1")
    require_single_process("`medtune merge`")


def test_of_several_processes_the_first_says_why_and_the_others_end(
    launched: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    launched.setenv("WORLD_SIZE", "2")
    with pytest.raises(RunDirError, match=r"^`medtune merge` runs as one process, and 2 were launched; start it with"):
        require_single_process("`medtune merge`")
    launched.setenv("RANK", "1")
    with pytest.raises(SystemExit) as ended:
        require_single_process("`medtune merge`")
    assert ended.value.code == 2
    assert capfd.readouterr() == ("", "")


def test_functions_refuse_as_commands_do(launched: pytest.MonkeyPatch, tmp_path: Path) -> None:
    launched.setenv("WORLD_SIZE", "2")
    rows = [{"id": "1", "reference": "Gout hurts.", "prediction": "Gout hurts."}]
    with pytest.raises(RunDirError, match=r"^this call runs as one process, and 2 were launched"):
        medtune.score(rows, metrics=["exact_match"])
    with pytest.raises(RunDirError, match="this call runs as one process"):
        medtune.prepare("demo", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("rank", "seconds"), [("0", 0.0), ("1", 0.3)])
def test_a_process_that_could_not_join_gives_the_first_time_to_speak(
    launched: pytest.MonkeyPatch, rank: str, seconds: float
) -> None:
    launched.setattr(launch, "_HEAD_START", 0.3)
    launched.setattr(launch, "_store", None)
    launched.setenv("RANK", rank)
    began = time.monotonic()
    wait_for_words()
    assert seconds <= time.monotonic() - began < seconds + 5


COSTS = st.lists(st.integers(0, 1000), max_size=40)


@given(COSTS, st.integers(1, 6))
def test_every_cost_is_in_one_share(costs: list[int], parts: int) -> None:
    shares = balanced_shares(costs, parts)
    assert len(shares) == parts
    assert sorted(index for share in shares for index in share) == list(range(len(costs)))
    assert all(share == sorted(share) for share in shares)


@given(COSTS, st.integers(1, 6))
def test_no_share_is_larger_than_the_mean_and_one_cost(costs: list[int], parts: int) -> None:
    """Graham's bound of list scheduling, by which the last cost of the largest share went to the least one."""
    loads = [sum(costs[i] for i in share) for share in balanced_shares(costs, parts)]
    assert max(loads) <= sum(costs) / parts + max(costs, default=0)


def test_sixty_four_rows_are_shared_evenly() -> None:
    """As MedQuAD's lengths are: two processes are within 3 %."""
    lengths = [40 + (index * 7919) % 480 for index in range(64)]
    first, second = (sum(lengths[i] for i in share) for share in balanced_shares(lengths, 2))
    assert abs(first - second) <= 0.03 * max(first, second)


def test_one_process_has_all(launched: pytest.MonkeyPatch) -> None:
    assert own_share([5, 1, 3]) == [0, 1, 2]
    launched.setenv("WORLD_SIZE", "2")
    assert own_share([5, 1, 3]) == [0]
    launched.setenv("RANK", "1")
    assert own_share([5, 1, 3]) == [1, 2]

"""What training may take: of this machine, and of the one that has least."""

from __future__ import annotations

import pytest

from medtune.config.training import TrainingSection
from medtune.training.plan import machines
from medtune.training.plan.machines import HOST_SHARE, least_machine, this_machine
from medtune.training.plan.peaks import GIB, Machine


def test_a_cpu_takes_what_is_free_and_shares_the_host_among_its_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "host_free_bytes", lambda: 100 * GIB)
    monkeypatch.setattr(machines, "free_bytes", lambda device: 100 * GIB)
    alone = this_machine("cpu", TrainingSection())
    assert (alone.allocated, alone.host, alone.offloads) == (0, int(100 * GIB * HOST_SHARE), False)
    assert 80 * GIB < alone.limit <= 100 * GIB
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert this_machine("cpu", TrainingSection()).host == int(100 * GIB * HOST_SHARE / 4)
    assert this_machine("cpu", TrainingSection(host_memory_gib=3)).host == 3 * GIB  # as it was asked for


@pytest.mark.parametrize(("rate", "least"), [(7e12, 5e12), (None, None)])
def test_all_plan_for_the_one_with_least(
    monkeypatch: pytest.MonkeyPatch, rate: float | None, least: float | None
) -> None:
    other = [30, 900, 500, 5e12]
    monkeypatch.setattr(machines, "exchange", lambda own: [own, other])
    assert least_machine(Machine(10, 1000, 400, rate)) == Machine(30, 900, 400, least)

"""The page on scaling: its tables are the script's, its claims are what they say, and the arithmetic is the shapes'."""

from __future__ import annotations

from pathlib import Path

import pytest

import row_balance
import scaling

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "scaling.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", scaling.TABLES)
def test_the_page_has_the_table_that_the_script_prints(name: str, capsys, monkeypatch) -> None:
    monkeypatch.setattr("sys.argv", ["scaling.py", name])
    scaling.main()
    assert capsys.readouterr().out.strip() in PAGE, f"copy what `python benchmarks/scaling.py {name}` prints"


def test_less_than_three_per_cent_is_lost_from_8_rows_a_process_on() -> None:
    for processes in row_balance.PROCESSES:
        assert row_balance.simulate_idle(processes, 16) < 0.004
        assert row_balance.simulate_idle(processes, 8) < 0.03
        assert row_balance.simulate_idle(processes, 4) < 0.05
    assert "From 8 rows for each process on, less than 3 % is lost, up to 512 processes; with 16, 0.3 %." in " ".join(
        PAGE.split()
    )


def test_what_the_page_concludes_from_its_tables() -> None:
    ethernet = scaling.replicated_step(scaling.H200, 64, scaling.ETHERNET, 64)
    alone = scaling.replicated_step(scaling.H200, 1, scaling.NVLINK, 64)
    assert alone.seconds / ethernet.seconds == pytest.approx(0.96, abs=0.005)
    two = scaling.sharded_step(scaling.RTX_4090, 2, scaling.ETHERNET, 2048)
    assert two.computed / two.seconds == pytest.approx(0.34, abs=0.005)
    sixteen = scaling.sharded_step(scaling.H200, 16, scaling.INFINIBAND, 4096)
    assert sixteen.hiding_tokens == pytest.approx(10_000, rel=0.02)
    for card, gpus, link, tokens in scaling.SHARDED:
        if link in (scaling.NVLINK, scaling.PCIE4, scaling.PCIE3):
            assert scaling.sharded_step(card, gpus, link, tokens).hiding_tokens < 2048
    said = " ".join(PAGE.split())
    assert "64 GPUs keep 96 % of their speed" in said
    assert "they keep 34 % of their speed" in said
    assert "want passes of 10,000 tokens" in said


def test_idle_time_is_that_of_all_who_wait_for_the_fullest() -> None:
    assert row_balance.idle_share([4, 4, 4, 4], 2) == 0
    # Loads of 6 and 3: the second waits for half of the step.
    assert row_balance.idle_share([6, 3], 2) == pytest.approx(1 - 9 / 12)


def test_sizes_are_those_of_the_models() -> None:
    """4-bit bytes, gradients and weights as published and as in the text."""
    assert scaling.LLAMA_8B.adapter_weights == 41_943_040
    assert scaling.LLAMA_70B.adapter_weights == 207_093_760
    assert scaling.LLAMA_70B.layers * scaling.LLAMA_70B.layer_weights + 2 * scaling.LLAMA_70B.head_weights == (
        pytest.approx(70_553_706_496, rel=1e-4)
    )
    assert scaling.LLAMA_70B.packed_bytes == pytest.approx(35.3e9, rel=1e-3)
    for said in ("168 MB", "828 MB", "two gathers of 17.7 GB", "35.3 GB in all"):
        assert said in " ".join(PAGE.split())


def test_a_ring_carries_what_the_others_hold() -> None:
    link = scaling.Link("", 1e9)
    assert scaling.gather_seconds(8e9, 4, link) == pytest.approx(6, abs=1e-4)
    assert scaling.exchange_seconds(8e9, 4, link) == pytest.approx(12, abs=1e-4)
    assert scaling.exchange_seconds(8e9, 1, link) == 0

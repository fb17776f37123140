"""GPUs by name, by memory, and the one that is here."""

from dataclasses import replace
from itertools import pairwise

import pytest

from hardware_facts import A100, GIB, T4
from medtune.errors import ConfigError
from medtune.runtime.gpus import GPUS, DescribedGpu, described_gpu, this_gpu


def test_gpus_by_name_and_by_memory():
    assert described_gpu("T4") is GPUS["t4"]
    assert described_gpu("24").memory_gib == described_gpu("24GiB").memory_gib == 24
    assert described_gpu("24").operations is None
    for wrong in ("rtx", "0", "-3", "nan", "5000"):
        with pytest.raises(ConfigError, match=r"--gpu .*t4, l4"):
            described_gpu(wrong)


def test_a_gpu_of_some_memory_has_amperes_abilities():
    assert described_gpu("10.5") == DescribedGpu("a GPU of 10.5 GiB", 10.5, (8, 0))


def test_newer_cards_are_no_slower():
    in_order = [GPUS[name] for name in ("t4", "a100-40", "h100")]
    for older, newer in pairwise(in_order):
        assert (older.operations, older.bandwidth) < (newer.operations, newer.bandwidth)
        assert older.capability < newer.capability


def test_without_a_gpu_there_is_none(facts):
    facts.no_gpu()
    assert this_gpu() is None


@pytest.mark.parametrize(("gpu", "a_clock"), [(T4, 1024), (A100, 2048)], ids=["T4", "A100"])
def test_the_gpu_that_is_here_has_what_is_free_of_it(facts, gpu, a_clock):
    facts.gpus(replace(gpu, free=5 * GIB))
    # 40 multiprocessors at 1.59 GHz.
    assert this_gpu() == DescribedGpu(gpu.name, 5.0, gpu.capability, 40 * a_clock * 1.59e9)

from __future__ import annotations

import json
import mmap
import sys
from dataclasses import replace

import pytest
import torch

from hardware_facts import A100, T4, HardwareFacts
from medtune.runtime import hardware
from medtune.runtime.hardware import (
    Choice,
    PeakMemory,
    choose_device,
    choose_dtype,
    describe_hardware,
    free_bytes,
    torch_dtype,
    total_bytes,
)

MEBIBYTE = 1 << 20


@pytest.fixture
def without_gpu(facts: HardwareFacts) -> None:
    facts.no_gpu()


@pytest.fixture
def two_t4(facts: HardwareFacts) -> None:
    facts.gpus(T4, 2)


def test_the_cpu_is_the_device_without_a_gpu(without_gpu: None) -> None:
    assert choose_device() == Choice("cpu", "no CUDA GPU is visible")


def test_one_process_takes_the_first_of_several_gpus_and_says_how_to_use_all(two_t4: None) -> None:
    choice = choose_device()
    assert choice.value == "cuda:0"
    assert "Tesla T4, the first of 2 GPUs" in choice.reason
    assert "with the option gpus=all a run uses them all" in choice.reason


def test_a_launched_process_takes_the_gpu_of_its_local_rank(two_t4: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_device() == Choice("cuda:1", "Tesla T4")


@pytest.mark.parametrize(
    ("wanted", "value", "reason"),
    [
        ("auto", "float16", "no native bfloat16: compute capability 7.5, native from 8.0"),
        ("bfloat16", "float16", "bfloat16 was asked for, but is not native here: compute capability 7.5"),
        ("float16", "float16", "asked for"),
        ("float32", "float32", "asked for"),
    ],
)
def test_a_t4_gets_float16(two_t4: None, wanted: str, value: str, reason: str) -> None:
    choice = choose_dtype(wanted, "cuda:0")
    assert choice.value == value
    assert choice.reason.startswith(reason)


@pytest.mark.parametrize("capability", [(8, 0), (8, 9), (9, 0), (12, 0)])
def test_ampere_and_later_get_bfloat16(facts: HardwareFacts, capability: tuple[int, int]) -> None:
    facts.gpus(replace(A100, capability=capability))
    choice = choose_dtype("auto", "cuda:0")
    assert choice == Choice("bfloat16", f"compute capability {capability[0]}.{capability[1]}, native from 8.0")
    assert choose_dtype("bfloat16", "cuda:0") == Choice("bfloat16", "asked for")


@pytest.mark.parametrize(
    ("kind", "wanted", "value"),
    [
        ({}, "auto", "float32"),
        ({"avx512": True}, "auto", "float32"),
        ({"amx": True}, "auto", "bfloat16"),
        ({}, "bfloat16", "float32"),
        ({"amx": True}, "bfloat16", "bfloat16"),
        ({}, "float16", "float32"),
        ({"amx": True}, "float16", "float32"),
        ({"amx": True}, "float32", "float32"),
    ],
)
def test_a_cpu_gets_bfloat16_only_with_matrix_units(
    facts: HardwareFacts, kind: dict[str, bool], wanted: str, value: str
) -> None:
    facts.cpu(**kind)
    choice = choose_dtype(wanted, "cpu")
    assert choice.value == value
    assert choice.reason


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/cpuinfo")
def test_the_flags_of_this_cpu_are_read(facts: HardwareFacts) -> None:
    facts.real()
    hardware._cpu_flags.cache_clear()
    assert len(hardware._cpu_flags()) > 5


def test_dtypes_by_name() -> None:
    assert [torch_dtype(name) for name in ("bfloat16", "float16", "float32")] == [
        torch.bfloat16, torch.float16, torch.float32,
    ]  # fmt: skip
    with pytest.raises(KeyError):
        torch_dtype("int4")


def test_free_memory_is_some_of_what_there_is(facts: HardwareFacts) -> None:
    facts.real()
    assert 0 < free_bytes("cpu") <= total_bytes("cpu")


def test_memory_of_a_gpu(two_t4: None) -> None:
    assert (free_bytes("cuda:0"), total_bytes("cuda:0")) == (T4.free, T4.memory)


@pytest.mark.parametrize("cores", [2, 64])
def test_the_description_fits_a_json_file(without_gpu: None, facts: HardwareFacts, cores: int) -> None:
    facts.cores(cores)
    facts.memory(free=1, total=12345)
    described = json.loads(json.dumps(describe_hardware()))
    assert described.keys() == {"platform", "processor", "cpu_count", "memory_bytes", "gpus"}
    assert (described["cpu_count"], described["memory_bytes"], described["gpus"]) == (cores, 12345, [])
    assert described["processor"]


def test_gpus_are_described_one_by_one(two_t4: None) -> None:
    t4 = {"name": "Tesla T4", "memory_bytes": T4.memory, "compute_capability": "7.5"}
    assert describe_hardware()["gpus"] == [t4, t4]


@pytest.mark.skipif(sys.platform != "linux", reason="the high-water mark can be reset on Linux alone")
def test_peak_memory_is_that_since_the_start(without_gpu: None) -> None:
    memory = PeakMemory()
    if not memory._resettable:
        pytest.skip("/proc/self/clear_refs cannot be written here")
    before = memory.rss_bytes()
    # Not by the allocator, which may have it lying about.
    block = mmap.mmap(-1, 64 * MEBIBYTE)
    block.write(bytes(64 * MEBIBYTE))
    with_block = memory.rss_bytes()
    assert with_block - before > 48 * MEBIBYTE
    block.close()
    assert memory.rss_bytes() >= with_block - MEBIBYTE, "a peak stays a peak"
    assert with_block - PeakMemory().rss_bytes() > 48 * MEBIBYTE, "and is forgotten at a new start"


def test_there_is_no_gpu_peak_without_a_gpu(without_gpu: None) -> None:
    memory = PeakMemory()
    assert memory.gpu_bytes() is None
    assert memory.rss_bytes() > 10 * MEBIBYTE

"""The machine that tests pretend to run on: what a test expects follows from facts set here, never from the real one.

Each fact has one probe in medtune or in a library below it, which is replaced here and nowhere else. Programs that a
test starts see the real processor and memory, and no GPU.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace

import psutil
import pytest

from medtune.runtime import hardware

GIB = 2**30
_REAL_CPU_FLAGS, _REAL_MEMORY = hardware._cpu_flags, psutil.virtual_memory


@dataclass(frozen=True)
class Gpu:
    """A GPU as torch describes it, memory in bytes."""

    name: str
    capability: tuple[int, int]
    memory: int
    free: int


T4 = Gpu("Tesla T4", (7, 5), 15 * GIB, 12 * GIB)
A100 = Gpu("A100", (8, 0), 40 * GIB, 38 * GIB)


class HardwareFacts:
    """Sets what the probes find, until the test ends."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch

    def cpu(self, *, amx: bool = False, avx512: bool = False) -> None:
        """A processor with or without AMX bfloat16 units, and with or without AVX-512's bfloat16 instructions.

        All that it computes is right on any processor, if slower. bitsandbytes' own kernel for AVX-512 is not there:
        a layer that is left to take it fails.
        """
        flags = frozenset(["sse2", "avx2", *["avx512f", "avx512_bf16"] * avx512, *["amx_bf16"] * amx])
        self._patch.setattr(hardware, "_cpu_flags", lambda: flags)
        self._patch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: avx512)

    def cores(self, count: int) -> None:
        """This many processor cores."""
        self._patch.setattr(os, "cpu_count", lambda: count)

    def memory(self, *, free: int, total: int = 64 * GIB) -> None:
        """Main memory, in bytes."""
        self._patch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=free, total=total))

    def gpus(self, gpu: Gpu, count: int = 1) -> None:
        """GPUs of one kind, for questions about them; nothing can be computed on them."""
        import torch

        properties = SimpleNamespace(
            name=gpu.name, total_memory=gpu.memory, major=gpu.capability[0], minor=gpu.capability[1],
            multi_processor_count=40, clock_rate=1_590_000,
        )  # fmt: skip
        answers = {
            "is_available": True, "device_count": count, "get_device_name": gpu.name,
            "get_device_capability": gpu.capability, "get_device_properties": properties,
            "get_arch_list": ["sm_75", "sm_80", "sm_90"], "mem_get_info": (gpu.free, gpu.memory), "memory_reserved": 0,
            "memory_allocated": 0, "get_per_process_memory_fraction": 1.0,
        }  # fmt: skip
        for name, answer in answers.items():
            self._patch.setattr(torch.cuda, name, lambda *_, answer=answer: answer)
        self._patch.setattr(torch.version, "cuda", "12.8")
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
            self._patch.delenv(name, raising=False)

    def no_gpu(self) -> None:
        """No GPU that torch can see."""
        import torch

        self._patch.setattr(torch.cuda, "is_available", lambda: False)
        self._patch.setattr(torch.cuda, "device_count", lambda: 0)

    def real(self) -> None:
        """The real processor and its memory, for tests of the probes themselves."""
        self._patch.setattr(hardware, "_cpu_flags", _REAL_CPU_FLAGS)
        self._patch.setattr(psutil, "virtual_memory", _REAL_MEMORY)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Hide GPUs, before any test module can bring in torch, from a session that runs none of the tests for them."""
    if "not gpu" in session.config.option.markexpr:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(scope="session", autouse=True)
def plain_machine() -> Iterator[None]:
    """Where a test or a shared fixture sets nothing: a processor without matrix units, and memory enough."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hardware, "_cpu_flags", lambda: frozenset({"sse2", "avx2"}))
        HardwareFacts(patch).memory(free=16 * GIB)
        yield


@pytest.fixture
def facts(monkeypatch: pytest.MonkeyPatch) -> HardwareFacts:
    """For tests that set facts of their own."""
    return HardwareFacts(monkeypatch)


@pytest.fixture(params=["AMX", "no AMX"])
def native_dtype(request: pytest.FixtureRequest, facts: HardwareFacts) -> str:
    """Both kinds of processor, one after the other; hands over the dtype in which a CPU of that kind computes."""
    facts.cpu(amx=request.param == "AMX")
    return "bfloat16" if request.param == "AMX" else "float32"

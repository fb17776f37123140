"""GPUs, drivers, precision and attention, on GPUs that are not here."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from medtune.pipeline.doctor import machine
from medtune.pipeline.doctor.findings import Finding
from medtune.pipeline.doctor.machine import missing_gpu, runs_on

T4, AMPERE = (7, 5), (8, 0)


def only(found) -> Finding:
    (finding,) = found
    return finding


@pytest.fixture
def gpus(monkeypatch):
    """What torch says on a host with GPUs; call it with their number and compute capability."""

    def there_are(count: int, capability: tuple[int, int]) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Tesla T4" if capability == T4 else "A100")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80", "sm_90"])
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (12 * 2**30, 15 * 2**30))
        for name in ("memory_reserved", "memory_allocated"):
            monkeypatch.setattr(torch.cuda, name, lambda device: 0)
        monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda device: 1.0)
        properties = SimpleNamespace(total_memory=15 * 2**30)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
        monkeypatch.setattr(torch.version, "cuda", "12.8")
        monkeypatch.setattr(machine, "nvidia_driver", lambda: (12, 4))
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
            monkeypatch.delenv(name, raising=False)

    return there_are


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


# CUDA of torch's build, of the driver, CUDA_VISIBLE_DEVICES; the state, and what reason and fix hold.
MISSING = [
    (None, None, None, "ok", "no CUDA GPU is visible; models compute on the CPU", ""),
    ("12.8", None, None, "warning", "there is no NVIDIA driver", "install its driver"),
    (None, (12, 4), None, "failure", "torch is built for CPUs alone", "CUDA build"),
    ("13.0", (12, 4), None, "failure", "too old for torch's CUDA 13.0", "update the driver"),
    ("12.8", (12, 4), None, "failure", "yet it sees no GPU", "nvidia-smi"),
    ("12.8", (12, 4), "", "warning", "hidden by CUDA_VISIBLE_DEVICES=", "unset it"),
    ("12.8", (12, 4), "-1", "warning", "hidden by CUDA_VISIBLE_DEVICES=-1", "unset it"),
    ("12.8", (12, 4), "0", "failure", "yet it sees no GPU", "nvidia-smi"),
]


@pytest.mark.parametrize(("built", "served", "visible", "state", "reason", "fix"), MISSING)
def test_why_torch_sees_no_gpu(built, served, visible, state, reason, fix):
    found = missing_gpu(built, served, visible)
    assert found.state == state
    assert reason in found.reason
    assert fix in found.fix


def test_a_gpu_is_named_with_its_driver(gpus):
    gpus(1, T4)
    found = only(machine.check_gpu())
    assert found.state == "ok"
    assert found.reason.startswith("Tesla T4; compute capability 7.5, torch for CUDA 12.8")
    assert found.reason.endswith("driver serves CUDA 12.4")


def test_of_two_gpus_one_process_takes_the_first(gpus):
    gpus(2, T4)
    found = only(machine.check_gpu())
    assert found.state == "warning"
    assert "the first of 2 GPUs" in found.reason
    assert "accelerate launch -m medtune train" in found.fix


def test_a_launched_process_is_content_with_its_own(gpus, monkeypatch):
    gpus(2, T4)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert only(machine.check_gpu()).state == "ok"


def test_a_gpu_without_kernels_is_a_failure(gpus):
    gpus(1, (7, 0))
    found = only(machine.check_gpu())
    assert found.state == "failure"
    assert "no kernels for it (only sm_75, sm_80, sm_90)" in found.reason


@pytest.mark.parametrize(
    ("capability", "architectures", "runs"),
    [
        ((7, 5), ["sm_75"], True),
        ((8, 6), ["sm_80"], True),
        ((8, 0), ["sm_86"], False),
        ((9, 0), ["sm_80"], False),
        ((9, 0), ["sm_90a"], True),
        ((12, 0), ["sm_80", "compute_90"], True),
        ((12, 0), ["sm_120"], True),
        ((7, 5), ["compute_80"], False),
        ((8, 0), [], False),
    ],
)
def test_which_kernels_run_where(capability, architectures, runs):
    assert runs_on(capability, architectures) is runs


def test_a_t4_computes_in_float16_whatever_torch_says_of_bfloat16(gpus, monkeypatch):
    gpus(1, T4)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
    found = only(machine.check_precision("auto"))
    assert found == Finding("ok", "precision", "float16: no native bfloat16: compute capability 7.5, native from 8.0")
    asked = only(machine.check_precision("bfloat16"))
    assert asked.state == "warning"
    assert asked.reason.startswith("float16: bfloat16 was asked for, but is not native here")
    assert "model.dtype: auto" in asked.fix


def test_ampere_computes_in_bfloat16(gpus):
    gpus(1, AMPERE)
    assert only(machine.check_precision("auto")).reason.startswith("bfloat16: compute capability 8.0")


@pytest.mark.parametrize(
    ("capability", "path"), [(T4, "row-wise SDPA: variable-length kernels need"), (AMPERE, "torch.nn.attention.varlen")]
)
def test_the_attention_path_is_that_of_the_gpu(gpus, capability, path):
    gpus(1, capability)
    assert only(machine.check_attention("auto")).reason.startswith(path)


def test_free_memory_of_gpu_and_host(gpus, monkeypatch):
    gpus(1, T4)
    monkeypatch.setattr(machine, "host_free_bytes", lambda: 5 * 2**30)
    card, host = machine.check_memory()
    assert card == Finding("ok", "GPU memory", "12.0 GiB of 15.0 GiB free")
    assert host.reason.startswith("5.0 GiB of ")


def test_without_a_gpu_only_the_host_has_memory(no_gpu):
    assert only(machine.check_memory()).subject == "host memory"


class Driver:
    """As much of libcuda as is asked."""

    def __init__(self, version: int, status: int) -> None:
        self.version, self.status = version, status

    def cuDriverGetVersion(self, found) -> int:
        found._obj.value = self.version
        return self.status


@pytest.mark.parametrize(
    ("version", "status", "served"), [(12040, 0, (12, 4)), (13000, 0, (13, 0)), (0, 0, None), (12040, 34, None)]
)
def test_the_drivers_version(monkeypatch, version, status, served):
    """A stub of the library, as build images have it, answers with an error or with nothing."""
    monkeypatch.setattr(machine.ctypes, "CDLL", lambda name: Driver(version, status))
    assert machine.nvidia_driver() == served


def test_no_driver_no_version(monkeypatch):
    def missing(name):
        raise OSError("cannot open shared object file")

    monkeypatch.setattr(machine.ctypes, "CDLL", missing)
    assert machine.nvidia_driver() is None

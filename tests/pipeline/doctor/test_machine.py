"""GPUs, drivers, precision and attention, on GPUs that are not here."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hardware_facts import A100, GIB, T4, Gpu
from medtune.pipeline.doctor import machine
from medtune.pipeline.doctor.findings import Finding
from medtune.pipeline.doctor.machine import missing_gpu, runs_on


def only(found) -> Finding:
    (finding,) = found
    return finding


@pytest.fixture
def gpus(facts, monkeypatch):
    """A host with GPUs and their driver; call it with their number and kind."""

    def there_are(count: int, gpu: Gpu) -> None:
        facts.gpus(gpu, count)
        monkeypatch.setattr(machine, "nvidia_driver", lambda: (12, 4))

    return there_are


@pytest.fixture
def no_gpu(facts):
    facts.no_gpu()


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
    gpus(1, replace(T4, capability=(7, 0)))
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
    gpus(1, A100)
    assert only(machine.check_precision("auto")).reason.startswith("bfloat16: compute capability 8.0")


@pytest.mark.parametrize(
    ("gpu", "path"),
    [(T4, "row-wise SDPA: variable-length kernels need"), (A100, "torch.nn.attention.varlen")],
    ids=["T4", "A100"],
)
def test_the_attention_path_is_that_of_the_gpu(gpus, gpu, path):
    gpus(1, gpu)
    assert only(machine.check_attention("auto")).reason.startswith(path)


def test_a_cpu_computes_in_what_it_has_units_for(native_dtype, no_gpu):
    found = only(machine.check_precision("auto"))
    assert (found.state, found.reason.partition(":")[0]) == ("ok", native_dtype)
    assert only(machine.check_precision("bfloat16")).state == ("ok" if native_dtype == "bfloat16" else "warning")
    assert only(machine.check_attention("auto")).reason.startswith("row-wise SDPA: variable-length kernels need a GPU")


def test_free_memory_of_gpu_and_host(gpus, facts):
    gpus(1, T4)
    facts.memory(free=5 * GIB, total=8 * GIB)
    card, host = machine.check_memory()
    assert card == Finding("ok", "GPU memory", "12.0 GiB of 15.0 GiB free")
    assert host == Finding("ok", "host memory", "5.0 GiB of 8.0 GiB free")


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

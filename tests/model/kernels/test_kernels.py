"""Which kernels a tensor gets: Triton's on a GPU where it is installed, and the plain ones everywhere else."""

import inspect
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch

from medtune.model import kernels
from medtune.model.kernels import plain

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
ON_A_GPU = SimpleNamespace(is_cuda=True)


@pytest.mark.parametrize("installed", [True, False])
def test_a_cpu_gets_the_plain_ones(monkeypatch, installed):
    monkeypatch.setattr(kernels, "has_triton", lambda: installed)
    assert kernels.kernels_for(torch.zeros(1)) is plain


def test_a_gpu_without_triton_gets_the_plain_ones(monkeypatch):
    monkeypatch.setattr(kernels, "has_triton", lambda: False)
    assert kernels.kernels_for(ON_A_GPU) is plain


@needs_triton
def test_a_gpu_gets_functions_of_the_same_names_and_arguments():
    gpu = kernels.kernels_for(ON_A_GPU)
    assert gpu.__name__ == "medtune.model.kernels.gpu"
    own = {name: function for name, function in vars(plain).items() if inspect.isfunction(function) and name[0] != "_"}
    own = {name: function for name, function in own.items() if function.__module__ == plain.__name__}
    assert {"rms_norm", "swiglu", "cross_entropy", "attend_last_token"} < own.keys()
    for name, function in own.items():
        assert inspect.signature(getattr(gpu, name)) == inspect.signature(function), name


@pytest.mark.parametrize("installed", [True, False])
def test_triton_is_looked_for_without_being_loaded(monkeypatch, installed):
    asked = []
    monkeypatch.setattr(kernels, "find_spec", lambda name: asked.append(name) or (object() if installed else None))
    assert kernels.has_triton.__wrapped__() is installed
    assert asked == ["triton"]

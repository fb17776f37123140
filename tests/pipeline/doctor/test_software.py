"""Versions against the package's own metadata, and native code that may not load."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import bitsandbytes.cextension as native
import pytest
import torch

from hardware_facts import T4
from medtune.config.recipes import load_recipe
from medtune.pipeline.doctor import software
from medtune.pipeline.doctor.findings import Finding, guarded


def only(found) -> Finding:
    (finding,) = found
    return finding


def test_this_environment_is_in_the_supported_ranges():
    assert only(software.check_python()).state == "ok"
    found = only(software.check_packages())
    assert found.state == "ok", found
    assert f"torch {torch.__version__}" in found.reason


def test_versions_out_of_range_and_missing_packages_are_told_together(monkeypatch):
    """From the metadata, so that what pyproject.toml says is the only place for a range."""
    versions = {"torch": "2.11.0+cu128", "trl": "2.0.1", "peft": "0.9", "transformers": "5.18.0rc1"}

    def version(name):
        if name in versions:
            return versions[name]
        raise PackageNotFoundError(name)

    wanted = [
        "torch>=2.11",
        "trl>=1.16,<2",
        "peft>=0.21",
        "transformers>=5.17",
        "datasets>=5.2",
        'ruff>=1; extra == "dev"',
    ]
    monkeypatch.setattr(software, "requires", lambda name: wanted)
    monkeypatch.setattr(software, "version", version)
    found = list(software.check_packages())
    assert [(one.state, one.reason) for one in found] == [
        ("failure", "trl 2.0.1 is outside <2,>=1.16"),
        ("failure", "peft 0.9 is outside >=0.21"),
        ("failure", "datasets is missing"),
    ]
    assert found[2].fix == 'pip install "datasets>=5.2"'


def test_another_python_is_a_failure(monkeypatch):
    monkeypatch.setattr(software.platform, "python_version", lambda: "3.14.0")
    found = only(software.check_python())
    assert found.state == "failure"
    assert "3.14.0 is outside" in found.reason


def test_without_metadata_nothing_can_be_compared(monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(software, "requires", missing)
    found = only(guarded("packages", software.check_packages))
    assert (found.state, found.fix) == ("failure", "pip install medtune")


@pytest.fixture
def broken_library(monkeypatch):
    """What bitsandbytes puts in its library's place when that does not load."""
    monkeypatch.setattr(native, "lib", object.__new__(native.ErrorHandlerMockBNBNativeLibrary))


def test_bitsandbytes_on_a_cpu(facts):
    facts.no_gpu()
    assert only(software.check_bitsandbytes(None)).state == "ok"


def test_a_library_that_does_not_load_is_slow_on_a_cpu(facts, broken_library):
    facts.no_gpu()
    assert only(software.check_bitsandbytes(None)).state == "warning"


def test_a_gpu_needs_the_library_where_weights_are_in_4_bit(facts, broken_library):
    facts.gpus(T4)
    found = only(software.check_bitsandbytes(load_recipe("llama3-8b-t4")))
    assert found.state == "failure"
    assert "python -m bitsandbytes" in found.fix
    plain = load_recipe("llama3-8b-t4", ["model.quantization=none"])
    assert only(software.check_bitsandbytes(plain)).state == "warning"


@pytest.mark.parametrize(("with_cuda", "state"), [(True, "ok"), (False, "failure")])
def test_a_library_for_cpus_is_not_enough_for_a_gpu(facts, monkeypatch, with_cuda, state):
    facts.gpus(T4)
    monkeypatch.setattr(native, "lib", SimpleNamespace(compiled_with_cuda=with_cuda))
    assert only(software.check_bitsandbytes(None)).state == state


def test_triton_is_not_asked_for_without_a_gpu(facts):
    facts.no_gpu()
    assert list(software.check_triton()) == []


@pytest.mark.parametrize(
    ("installed", "compiler", "state"),
    [(True, "/usr/bin/gcc", "ok"), (True, None, "failure"), (False, None, "warning")],
)
def test_triton_needs_a_compiler(facts, monkeypatch, installed, compiler, state):
    from medtune.model import kernels

    facts.gpus(T4)
    monkeypatch.setattr(kernels, "has_triton", lambda: installed)
    monkeypatch.setattr(software, "version", lambda name: "3.6.0")
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(software.shutil, "which", lambda name: compiler)
    assert only(software.check_triton()).state == state

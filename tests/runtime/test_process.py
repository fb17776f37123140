"""What the command sets for its process before anything else is loaded."""

import ctypes
import platform
import types

import pytest

from medtune.runtime import process


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is glibc's")
def test_the_allocator_takes_what_is_set(monkeypatch):
    library, answers = ctypes.CDLL(None), []

    def mallopt(option, value):
        answers.append((option, library.mallopt(option, value)))

    monkeypatch.setattr(process.ctypes, "CDLL", lambda name: types.SimpleNamespace(mallopt=mallopt))
    process.keep_freed_memory()
    assert answers == [(-3, 1), (-1, 1)]  # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of malloc.h, and 1 for success


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_what_the_user_has_set_stands(monkeypatch, name):
    monkeypatch.setenv(name, "")
    monkeypatch.setattr(process.ctypes, "CDLL", None)
    process.keep_freed_memory()


def test_other_allocators_are_left_alone(monkeypatch):
    monkeypatch.setattr(process.ctypes, "CDLL", lambda name: types.SimpleNamespace())
    process.keep_freed_memory()

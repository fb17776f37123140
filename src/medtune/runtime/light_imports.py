"""bitsandbytes imported without torch's compiler, which takes longer to import than torch itself.

bitsandbytes marks fallback kernels for `torch.compile` when it is imported, and PEFT and TRL import it whenever it is
there. medtune runs on CPUs and CUDA GPUs, which have kernels of their own. To be removed once bitsandbytes marks
its fallbacks when they are first called.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_MARKS_ON_IMPORT = "bitsandbytes"


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _MARKS_ON_IMPORT:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_without_compiler(module: ModuleType) -> None:
            with _compiler_left_out():
                execute(module)

        spec.loader.exec_module = execute_without_compiler  # type: ignore[method-assign]
        return spec


@contextmanager
def _compiler_left_out() -> Iterator[None]:
    import torch

    marking = torch.compile
    torch.compile = _unmarked  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.compile = marking


def _unmarked(function: Callable[..., Any] | None = None, **_: object) -> Any:
    """`function` itself, or what returns a function itself: `torch.compile` is a decorator with and without options."""
    return function if function is not None else _unmarked


def import_lightly() -> Callable[[], None]:
    """From now on import bitsandbytes without torch's compiler. Returns what ends that."""
    finder = _Finder()
    sys.meta_path.insert(0, finder)

    def end() -> None:
        if finder in sys.meta_path:
            sys.meta_path.remove(finder)

    return end

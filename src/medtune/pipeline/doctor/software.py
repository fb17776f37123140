"""Python, packages and native code: whether they are there, and in the range that medtune supports."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from typing import TYPE_CHECKING

from medtune.errors import MedtuneError
from medtune.model.quantization import FORMATS
from medtune.pipeline.doctor.findings import Finding

if TYPE_CHECKING:
    from medtune.config.schema import Config

# Said by name where all is well; the others are only counted.
_NAMED = ("torch", "transformers", "trl", "peft", "bitsandbytes", "datasets", "huggingface_hub")


def check_python() -> Iterator[Finding]:
    """The interpreter against the package's own `requires-python`."""
    from packaging.specifiers import SpecifierSet

    found = platform.python_version()
    try:
        wanted = SpecifierSet(metadata("medtune")["Requires-Python"] or "")
    except PackageNotFoundError:
        raise _not_installed() from None
    if wanted.contains(found, prereleases=True):
        yield Finding("ok", "Python", f"{found}, supported is {wanted}")
    else:
        yield Finding("failure", "Python", f"{found} is outside {wanted}", "make an environment with another Python")


def check_packages() -> Iterator[Finding]:
    """Every dependency against the range in the package's own metadata, which are pyproject.toml's."""
    from packaging.requirements import Requirement

    try:
        lines = requires("medtune") or []
    except PackageNotFoundError:
        raise _not_installed() from None
    wanted = [Requirement(line) for line in lines]
    wanted = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    good = 0
    for one in wanted:
        try:
            found = version(one.name)
        except PackageNotFoundError:
            yield Finding("failure", "packages", f"{one.name} is missing", f'pip install "{one.name}{one.specifier}"')
            continue
        # A local build such as 2.13.0+cpu and a release candidate are in a range as their version is.
        if one.specifier.contains(found, prereleases=True):
            good += 1
        else:
            reason = f"{one.name} {found} is outside {one.specifier}"
            yield Finding("failure", "packages", reason, f'pip install "{one.name}{one.specifier}"')
    if good == len(wanted):
        shown = ", ".join(f"{name} {version(name)}" for name in _NAMED)
        yield Finding("ok", "packages", f"{good} in the supported ranges: {shown}")


def _not_installed() -> MedtuneError:
    return MedtuneError("medtune's own metadata are missing, so no versions can be compared; pip install medtune")


def check_bitsandbytes(config: Config | None) -> Iterator[Finding]:
    """Whether the library's native code loads, for the GPU where there is one."""
    import torch
    from bitsandbytes.cextension import ErrorHandlerMockBNBNativeLibrary, lib

    loaded = not isinstance(lib, ErrorHandlerMockBNBNativeLibrary)
    if not torch.cuda.is_available():
        if loaded:
            yield Finding("ok", "bitsandbytes", "its native library loads, for CPUs")
        else:
            reason = "its native library does not load; 4-bit weights are computed without it, slowly"
            yield Finding("warning", "bitsandbytes", reason, "pip install --force-reinstall bitsandbytes")
    elif loaded and lib.compiled_with_cuda:
        yield Finding("ok", "bitsandbytes", f"its native library loads, for torch's CUDA {torch.version.cuda}")
    else:
        packed = [found.name for found in FORMATS.values() if found.packed]
        needed = config is None or config.model.quantization in packed or "8bit" in config.training.optimizer
        reason = f"its native library for torch's CUDA {torch.version.cuda} does not load, which "
        reason += f"{' and '.join(packed)} weights need"
        fix = "see `python -m bitsandbytes`; install a bitsandbytes release built for that CUDA, unset BNB_CUDA_VERSION"
        yield Finding("failure" if needed else "warning", "bitsandbytes", reason, fix)


def check_triton() -> Iterator[Finding]:
    """On a GPU: whether kernels can be compiled. Triton builds a small C program at its first use."""
    import torch

    from medtune.model.kernels import has_triton

    if not torch.cuda.is_available():
        return
    if not has_triton():
        reason = "not installed: training and answers take plain kernels, which are slower"
        yield Finding("warning", "Triton", reason, "pip install triton")
    elif not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        reason = f"{version('triton')}, and no C compiler, which it needs at its first use"
        yield Finding("failure", "Triton", reason, "install gcc, or name a compiler in CC")
    else:
        yield Finding("ok", "Triton", f"{version('triton')}, with a C compiler")

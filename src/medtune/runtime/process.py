"""Settings of this process: what libraries may say, where they may look, and how they use cores and memory."""

import ctypes
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from medtune.runtime.light_imports import import_lightly

# Turns of a waiting OpenMP thread before it sleeps: about as long as to the next operation. With ten times as many the
# demo trains a twentieth faster, and beside a program that takes a core at a fifth of the speed.
SPIN_COUNT = "8000"
# Options of glibc's allocator by their numbers, `mallopt`(3), and what they are set to; the latter can be no higher.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES, _LARGEST_MMAP_THRESHOLD = 2**28, 2**25


_QUIET = ("trl", "peft", "accelerate", "bitsandbytes", "datasets", "httpx", "httpx2", "huggingface_hub")
# What sets back what was set, in a block of `settings_given_back`.
_undo = ExitStack()


@contextmanager
def settings_given_back() -> Iterator[None]:
    """The environment, filters of warnings and what libraries may say are after this block what they were before it."""
    global _undo
    environment = dict(os.environ)
    try:
        with warnings.catch_warnings(), ExitStack() as _undo:
            yield
    finally:
        _undo = ExitStack()
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)


def give_back_later(set_back: Callable[..., object], *arguments: Any) -> None:
    """Have a setting of a library set back at the end of the block of `settings_given_back`, if one is open."""
    _undo.callback(set_back, *arguments)


def prepare_process() -> None:
    """Settings that libraries read when they load; call it before torch is imported.

    Also keeps library chatter off the terminal: what a user must know, medtune says itself.
    """
    # torch and bitsandbytes bring an OpenMP runtime each. Threads of the one that wait by spinning for long take the
    # cores from the other: a 4-bit product of 0.3 ms then takes 30 ms on two cores. Threads that never spin have
    # to be woken for every small operation, which costs the demo's training a third of its speed.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    # Tokenizers use every core. A forked child that tokenized would wait for threads it does not have, but none does:
    # data loaders and dataset maps work in this process, and other programs start from scratch. Left unset, the library
    # allows the same and warns on the terminal at every fork.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    # Without it the GPU's allocator holds up to 1 GiB in gaps between activations of different sizes.
    if "PYTORCH_CUDA_ALLOC_CONF" not in os.environ:  # its older name
        os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("BITSANDBYTES_NOWELCOME", "1")
    _undo.callback(import_lightly())
    _quieten_libraries()
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning)


def _quieten_libraries() -> None:
    import datasets
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars  # type: ignore[attr-defined]
    from transformers.utils import logging as transformers_logging

    if are_progress_bars_disabled():
        _undo.callback(disable_progress_bars)  # transformers turns them on with its own
    if transformers_logging.is_progress_bar_enabled():
        _undo.callback(transformers_logging.enable_progress_bar)
    transformers_logging.disable_progress_bar()
    _undo.callback(transformers_logging.set_verbosity, transformers_logging.get_verbosity())
    transformers_logging.set_verbosity_error()
    if not datasets.are_progress_bars_disabled():
        _undo.callback(datasets.enable_progress_bars)
    datasets.disable_progress_bars()
    for logger in map(logging.getLogger, _QUIET):
        _undo.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.ERROR)


def keep_freed_memory() -> None:
    """Let glibc keep up to 256 MiB of freed memory: every activation of a training step on a CPU is freed and asked for
    again, and the kernel clears what it hands out, which takes a tenth of the demo's training. No effect elsewhere."""
    if sys.platform != "linux" or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return  # the user's own settings apply
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        set_option(_M_TRIM_THRESHOLD, _KEPT_BYTES)

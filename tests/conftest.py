"""What all tests share: the environment, Hypothesis's settings, and the folder of real data."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from browser_sessions import browser, session
from hardware_facts import facts, native_dtype, plain_machine, pytest_sessionstart
from llama_8b import llama_config, llama_folder, llama_on_h200
from recipe_files import own
from skips import pytest_sessionfinish
from tiny_model import tiny

# Read when torch and huggingface_hub are imported, so set before any test module brings them in.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
# Models of these sizes gain nothing from a second thread, and two processes on two cores would have four.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

settings.register_profile("medtune", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("medtune")

__all__ = [
    "browser", "cache_folder", "facts", "llama_config", "llama_folder", "llama_on_h200", "native_dtype", "own",
    "plain_machine", "pytest_sessionfinish", "pytest_sessionstart", "session", "shared_data", "tiny",
]  # fmt: skip

pytest_plugins = ["pytester"]

REPOSITORY = Path(__file__).resolve().parents[1]


# Files that start first, in this order: the first two prepare a table of MedQuAD each, beside each other and not one
# after the other; then those that take longest.
FIRST = (
    "data/test_audit.py", "data/test_preparation.py", "deploy/test_one_node_slurm.py",
    "pipeline/test_several_processes.py", "pipeline/test_run.py", "api/test_launched.py", "deploy/test_by_hand.py",
    "pipeline/test_sharded_training.py", "faults/test_full_disk.py", "model/test_stand_in.py",
    "pipeline/test_stopping.py", "benchmarks/test_scripts.py", "hostile/test_readers.py",
    "pipeline/test_evaluate.py", "notebooks/test_notebook.py", "pipeline/doctor/test_network.py",
    "storage/test_hub.py", "faults/test_failing_hub.py", "evaluation/test_calibration.py", "faults/test_kill.py",
    "training/test_sft.py", "data/test_prompts.py", "hostile/test_checkpoints.py", "publishing/test_publish.py",
    "model/kernels/test_gpu.py", "model/test_architectures.py", "evaluation/test_speed.py",
    "model/merging/test_weights.py", "api/test_calls.py", "api/test_api.py",
)  # fmt: skip


# How many modules are left out of garbage collections.
_FROZEN = [0]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files come first: of two processes none is left with one of them alone at the end."""
    places = {REPOSITORY / "tests" / name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(FIRST)))


def pytest_runtest_logstart() -> None:
    """Leave what was imported since out of every later garbage collection: medtune asks for several a run."""
    if len(sys.modules) >= _FROZEN[0] + 50:
        gc.collect()
        gc.freeze()
        _FROZEN[0] = len(sys.modules)


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of the tests' own: none reads or writes the user's. CI names one that holds the demo's model already."""
    base = tmp_path_factory.getbasetemp()
    # Processes that share the tests share it too: the demo's model is built once.
    folder = base.parent / "cache" if os.environ.get("PYTEST_XDIST_WORKER") else base / "cache"
    folder = Path(os.environ.get("MEDTUNE_TEST_CACHE", folder))
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDTUNE_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def no_wait_for_the_disk() -> Iterator[None]:
    """Flushing to the disk tells against a power cut alone, takes milliseconds, and comes thousands of times.

    Processes that a test starts do it.
    """

    def check(descriptor: int) -> None:
        os.fstat(descriptor)  # one that is closed or none is an error, as it was

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", check)
        yield


@pytest.fixture(autouse=True)
def log_lines() -> Iterator[None]:
    """medtune's log on stderr, as commands and calls have it, for tests of what lies below them."""
    from medtune.runtime.progress import lines_on_terminal

    with lines_on_terminal():
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """MedQuAD's real rows, which are kept beside the repository and not in it."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the MedQuAD tables in ../shared/data")
    return folder

"""A folder to work in where the demo is a job of seconds."""

from __future__ import annotations

import gc
import json
import shutil
from asyncio import BaseEventLoop
from collections.abc import Iterator
from pathlib import Path

import pytest

import medtune
from medtune.api.runs import Run
from medtune.config import recipes
from tiny_model import Tiny, write_rows


@pytest.fixture(scope="session")
def demo(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe of the tiny model."""
    folder = tmp_path_factory.mktemp("demo")
    values = {
        "model": {"base": str(tiny.path), "dtype": "float32"},
        "data": {"source": str(write_rows(folder / "rows.csv")), "split": {"test": 0.2, "validation": 0.1}},
        "training": {
            "max_steps": 3,
            "learning_rate": 3e-2,
            "effective_batch_rows": 4,
            "checkpointing": "none",
            "max_length": 256,
        },
        "generation": {"max_new_tokens": 20},
        "evaluation": {"metrics": ["bleu", "rougeL", "exact_match", "perplexity"], "resamples": 500},
    }
    (folder / "demo.yaml").write_text(json.dumps(values))  # JSON is YAML
    return folder / "demo.yaml"


@pytest.fixture(scope="session")
def finished_demo(demo: Path) -> Path:
    """A finished run of the recipe, never changed by a test."""
    return medtune.run(demo, demo.parent / "run").path


@pytest.fixture(scope="module")
def workplace(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The current folder, with a recipe "demo" of the tiny model."""
    folder = tmp_path_factory.mktemp("workplace")
    for file in (demo, demo.with_name("rows.csv")):
        shutil.copy(file, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipes, "files", lambda name: folder)
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def finished(workplace: Path, finished_demo: Path) -> Run:
    """A finished run, `runs/demo`, of this module's own."""
    if not (folder := workplace / "runs" / "demo").exists():
        shutil.copytree(finished_demo, folder)
    return medtune.run("demo", resume=True)


@pytest.fixture
def collected() -> Iterator[None]:
    """For tests that open the page: the event loops that Gradio leaves open end with the test."""
    pytest.importorskip("gradio")
    yield
    for loop in [found for found in gc.get_objects() if isinstance(found, BaseEventLoop)]:
        if not (loop.is_closed() or loop.is_running()):
            loop.close()
    gc.collect()

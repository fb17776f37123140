"""`medtune doctor`: what would keep a run from working on this machine, found before the run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from medtune.pipeline.doctor.findings import Finding, guarded

if TYPE_CHECKING:
    from medtune.config.recipes import Overrides
    from medtune.config.schema import Config


def examine(recipe: str | Config | None, overrides: Overrides = (), run_dir: Path | None = None) -> Iterator[Finding]:
    """Findings about this machine and, with a recipe, about what the recipe needs of it, as they are made.

    Modules are imported as they are needed: a package that is missing or too old is one of the things to be found.
    """
    from medtune.pipeline.doctor import software

    yield from guarded("Python", software.check_python)
    yield from guarded("packages", software.check_packages)
    yield from guarded("Hub", _check_address)
    yield from guarded("packages", _prepare)
    config = None
    if recipe is not None:
        from medtune.pipeline.doctor.recipe import load

        config, found = load(recipe, overrides)
        yield from found
    from medtune.pipeline.doctor import machine, network

    yield from guarded("GPU", machine.check_gpu)
    yield from guarded("bitsandbytes", lambda: software.check_bitsandbytes(config))
    yield from guarded("Triton", software.check_triton)
    wanted = config.model.dtype if config is not None else "auto"
    yield from guarded("precision", lambda: machine.check_precision(wanted))
    yield from guarded("attention", lambda: machine.check_attention(wanted))
    yield from guarded("memory", machine.check_memory)
    yield from guarded("Hub", lambda: network.check_hub(config))
    if config is not None and recipe is not None:
        from medtune.config.recipes import recipe_name
        from medtune.pipeline.doctor.recipe import RecipeExamination

        name = recipe_name(recipe) if isinstance(recipe, str) else ""  # a configuration has none
        yield from RecipeExamination(config, run_dir or Path("runs") / name).findings()


def _check_address() -> Iterator[Finding]:
    from medtune.storage.hub import is_web_address

    if not is_web_address(os.environ.get("HF_ENDPOINT", "https://huggingface.co")):
        # With some addresses huggingface_hub cannot even be imported; with this one it can, and nothing is asked.
        os.environ["HF_ENDPOINT"] = "none"
        fix = "unset it, or set it to one such as https://huggingface.co"
        yield Finding("failure", "Hub", "HF_ENDPOINT is no web address", fix)


def _prepare() -> Iterator[Finding]:
    from medtune.runtime.process import prepare_process

    prepare_process()
    yield from ()

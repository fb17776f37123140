"""What would keep a run from working, and what it would take, as functions."""

from __future__ import annotations

import os
from pathlib import Path

from medtune.api.shown import Findings, Plan
from medtune.api.spelling import as_call, spelled_as_calls
from medtune.api.stages import StrPath
from medtune.api.working import working
from medtune.config.recipes import Overrides, load_recipe, override
from medtune.config.schema import Config
from medtune.errors import ConfigError


def doctor(
    recipe: StrPath | Config | None = None, *, overrides: Overrides = (), run_dir: StrPath | None = None
) -> Findings:
    """What would keep a run from working here, and how to fix it; with a recipe, what the recipe needs too.

    Raises nothing for what it finds: `failures` has it, and no token is ever shown.

    >>> found = medtune.doctor()
    >>> {finding.state for finding in found} <= {"ok", "warning", "failure"}
    True
    """
    if recipe is None and (overrides or run_dir is not None):
        raise ConfigError("doctor", "overrides and run_dir belong to a recipe", "name one, such as doctor('demo')")
    from medtune.pipeline.doctor import examine
    from medtune.pipeline.doctor.findings import secrets, without_secrets

    looked_at = recipe if recipe is None or isinstance(recipe, Config) else os.fspath(recipe)
    folder = None if run_dir is None else Path(run_dir)
    with working():
        found = list(examine(looked_at, overrides, folder))
    hidden = secrets()
    return Findings(without_secrets(finding, hidden, as_call) for finding in found)


@spelled_as_calls()
def plan(recipe: StrPath | Config, gpu: str | None = None, *, overrides: Overrides = ()) -> Plan:
    """Memory, plan and time of a recipe on a GPU that need not be here; times are estimates, and no weights are read.

    `gpu` is a name such as "t4" or a number of GiB as text; without it the GPU that is here, or else several side by
    side. Raises MedtuneError.

    >>> plan = medtune.plan("demo", "t4")
    >>> plan.forecasts["t4"].step.plan.peak_bytes > 0
    True
    """
    config = override(recipe, overrides) if isinstance(recipe, Config) else load_recipe(recipe, overrides)
    with working():
        from medtune.pipeline import plan as planning
        from medtune.runtime.gpus import GPUS, described_gpu, this_gpu

        path, rows = planning.base_folder(config), planning.row_sizes(config)
        if chosen := described_gpu(gpu) if gpu is not None else this_gpu():
            return Plan({gpu or chosen.name: planning.forecast(config, path, chosen, rows)}, rows)
        return Plan({name: planning.forecast_or_reason(config, path, one, rows) for name, one in GPUS.items()}, rows)

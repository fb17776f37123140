"""The base model of a run: the same one in every stage."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from medtune.model.loaded import LoadedModel, load_model
from medtune.run_dir.directory import RunDir
from medtune.runtime.distributed import is_main


def load_run_model(run_dir: RunDir, record: dict[str, Any], *, for_training: bool) -> LoadedModel:
    """The base model at the commit that the run's first stage found; `record` gets the choices made for it.

    Raises ModelError, and RunDirError if the model is not the one that earlier stages had.
    """
    loaded = load_model(run_dir.pinned_config, for_training=for_training)
    run_dir.require_same_base(loaded.identity)
    record["base_identity"] = loaded.identity
    if is_main():
        run_dir.update_provenance(model={"base": run_dir.config.model.base, "revision": loaded.revision})
    record["choices"] = {name: asdict(choice) for name, choice in loaded.choices.items()}
    return loaded

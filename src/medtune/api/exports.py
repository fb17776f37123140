"""A run's model for other programs, as a function."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from medtune.api.calls import StrPath, reopen
from medtune.api.runs import Run
from medtune.api.working import working
from medtune.run_dir.directory import RunDir
from medtune.runtime.progress import Listener

if TYPE_CHECKING:
    from medtune.model.merging.record import MergeMeasurement
    from medtune.publishing.export.page import ExportRecord


def export(
    run: Run | StrPath,
    to: StrPath,
    format: Literal["ollama", "gguf", "vllm"],
    *,
    dtype: Literal["f16", "bf16", "q8_0", "f32"] = "f16",
    merged: StrPath | None = None,
    adapter_only: bool = False,
    progress: Listener | None = None,
) -> "ExportRecord":
    """Write the tuned model to the folder `to` for Ollama, llama.cpp or vLLM, and say how it is run.

    `dtype` is what the weights of a GGUF file are stored in. `merged` is a folder that `Run.merge` wrote; without it
    the adapter is merged into `to`/merged first. With `adapter_only` the adapter is written, for use beside its base.
    Raises MedtuneError.

    >>> medtune.export("runs/demo", "for-vllm", "vllm").commands
    ('vllm serve ./merged ...',)
    """
    opened = reopen(run)
    with working(progress):
        from medtune.pipeline.export import ExportRequest, export_stage

        folder = None if merged is None else Path(os.fspath(merged))
        return export_stage(
            RunDir(opened.path), ExportRequest(Path(os.fspath(to)), format, dtype, folder, adapter_only)
        )


def measure(run: Run | StrPath, folder: StrPath, *, progress: Listener | None = None) -> "MergeMeasurement":
    """How far a model in `folder`, such as a quantised merge that was dequantised, is from the one that was evaluated.

    It is asked the same 64 test questions as after a merge. Raises MedtuneError if its weights are packed.

    >>> medtune.load_run("runs/demo").merge("plain", measure=False).bytes > 0
    True
    >>> medtune.measure("runs/demo", "plain").within_bound
    True
    """
    opened = reopen(run)
    with working(progress):
        from medtune.pipeline.merge import measure_folder

        return measure_folder(RunDir(opened.path), Path(os.fspath(folder)))

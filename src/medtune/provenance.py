"""What a run was made of: versions, hardware, commit; and what each stage cost."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from medtune.errors import RunDirError
from medtune.hardware import PeakMemory, describe_hardware, rank, release_memory
from medtune.progress import say, stage_progress
from medtune.run_dir import RunDir, StageName

LIBRARIES = (
    "medtune", "torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "datasets", "tokenizers",
    "huggingface_hub", "sacrebleu", "rouge-score", "bert-score", "sentencex", "numpy",
)  # fmt: skip


def record_environment(run: RunDir) -> None:
    """Write versions, hardware, the configuration's checksum, and the commit of medtune's checkout if it is one."""
    import platform

    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    run.record_config()
    run.update_provenance(versions=versions, hardware=describe_hardware(), commit=_own_commit())


@contextmanager
def stage(run: RunDir, name: StageName) -> Iterator[dict[str, Any]]:
    """Run a stage and, if it ends well, record its seconds and peak memory, with whatever the caller adds."""
    say(f"── {name}")
    release_memory()
    memory = PeakMemory()
    memory.start()
    began = time.monotonic()
    extra: dict[str, Any] = {}
    with stage_progress(name):
        yield extra
        if rank() != 0:
            return
        cost = {
            "seconds": round(time.monotonic() - began, 3),
            "peak_rss_bytes": memory.rss_bytes(),
            "peak_gpu_bytes": memory.gpu_bytes(),
        }
        run.complete(name, cost | extra)


def require_same_base(run: RunDir, identity: str) -> None:
    """Raises RunDirError if a stage of `run` used another base model than the one that `identity` tells.

    A folder can hold another model than before under its name. Stages of older versions recorded nothing.
    """
    for name, record in run.provenance().get("stages", {}).items():
        if record.get("base_identity") not in (None, identity):
            raise RunDirError(
                f"{run.path}: {run.config().model.base} has changed since the {name} stage; put the model that was "
                "there back, or start a new run in another --run-dir"
            )


def _own_commit() -> str | None:
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()

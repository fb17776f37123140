"""What a run was made of: versions, hardware, commit; and what each stage cost."""

from __future__ import annotations

import hashlib
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtune.config.recipes import dump_config, read_config
from medtune.config.schema import Config
from medtune.errors import ConfigError, RunDirError
from medtune.run_dir.stage_records import StageName
from medtune.runtime.distributed import is_main
from medtune.runtime.hardware import PeakMemory, describe_hardware, release_memory
from medtune.runtime.progress import say, stage_progress

if TYPE_CHECKING:
    from medtune.run_dir.directory import RunDir

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
        if not is_main():
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
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def config_record(config: Config) -> dict[str, Any]:
    """`bytes` and `sha256` of the file that holds `config`."""
    content = dump_config(config).encode("utf-8")
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def is_start_of(file: Path, config: Config) -> bool:
    """Whether a file holds a part, from the start, of what it would hold of `config`."""
    whole = dump_config(config).encode("utf-8")
    if file.stat().st_size > len(whole):
        return False
    content = file.read_bytes().rstrip(b"\0")
    return len(content) < len(whole) and whole.startswith(content)


def is_cut_off(file: Path, record: Mapping[str, Any] | None) -> bool:
    """Whether a `config.yaml` has lost its end; the keys that are left may make a valid configuration.

    Without a `record`, of older versions, none has.
    """
    if record is None or file.stat().st_size >= record["bytes"]:
        return False
    try:
        # Every key stands in a whole one.
        return dump_config(read_config(file)) != file.read_text(encoding="utf-8")
    except ConfigError:
        return True

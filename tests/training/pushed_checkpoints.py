"""Checkpoints to push and to fetch, a Hub that somebody else changes, and waiting for what runs in the background."""

import json
import time
from pathlib import Path

import torch

from hub_uploads import UploadServer
from medtune.config.recipes import load_recipe
from medtune.config.recipes.yaml_text import dump_config
from medtune.run_dir.directory import RunDir
from medtune.training.checkpoints.pushing import CheckpointPusher
from medtune.training.checkpoints.sealing import seal_checkpoint

TOKEN, REPO = "hf_secretofmine", "owner/run"
ORIGIN = {"base": "a", "configuration": "b", "rows": "c"}
CONFIG = load_recipe("demo", [f"training.push_checkpoints_to={REPO}"])


def save(run: RunDir, step: int, best: int | None = None, **files: bytes) -> Path:
    folder = run.checkpoints_dir / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    (folder / "trainer_state.json").write_text(json.dumps({"best_global_step": best}))
    torch.save({"state": {0: {"exp_avg": torch.ones(3)}}}, folder / "optimizer.pt")
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_bytes(content)
    seal_checkpoint(run, folder, ORIGIN)
    return folder


def push(path: Path, step: int, *, config=CONFIG, best: int | None = None, **files: bytes) -> RunDir:
    """Have another machine push its checkpoint."""
    run = RunDir(path)
    run.write_text(run.config_file, dump_config(config))
    run.write_text(run.history_file, '{"step": 1}\n')
    run.write_text(run.checkpoints_dir / "plan.json", "{}\n")
    if best is not None:
        save(run, best)
    pusher = CheckpointPusher(run, REPO)
    pusher.push(save(run, step, best, **files))
    pusher.close()
    return run


def change(hub: UploadServer, **files: bytes | None) -> None:
    """Somebody else changes files at the repository's head; names are endings."""
    head = hub.head(REPO)
    for ending, content in files.items():
        for name in [name for name in head if name.replace(".", "_").replace("/", "_").endswith(ending)]:
            head.pop(name) if content is None else head.update({name: content})


def save_unlike(run: RunDir, step: int, best: int | None = None) -> Path:
    """A checkpoint whose files differ from step to step, one of them not for the Hub."""
    folder = run.checkpoints_dir / f"checkpoint-{step}"
    folder.mkdir()
    for name in ("adapter_model.safetensors", "optimizer.pt", "training_args.bin", "adapter_config.json"):
        (folder / name).write_bytes(b"content of " + name.encode() + bytes(str(step), "ascii"))
    (folder / "trainer_state.json").write_text(json.dumps({"best_global_step": best, "step": step}))
    seal_checkpoint(run, folder, {"base": "a"})
    return folder


def wait_until(condition, seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)

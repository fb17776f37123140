"""The newest and the best checkpoint in a private Hub repository: finding, checking and fetching them.

The repository is laid out as a run directory and holds no rows, questions or answers.
"""

import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import TypeVar

from filelock import FileLock

from medtune.config.changes import changed_keys
from medtune.config.recipes import read_config
from medtune.config.schema import Config
from medtune.errors import ConfigError, HubError, HubUnavailableError, Option, Problem
from medtune.run_dir.directory import RunDir
from medtune.runtime.launch import is_main
from medtune.runtime.progress import say
from medtune.storage.hub import NEVER
from medtune.storage.hub_repositories import RepositoryState, fetch_files, open_private_repository, require_write_token
from medtune.storage.writing import replacing_folder
from medtune.training.checkpoints.sealing import (
    PLAN_NAME,
    SEAL_NAME,
    damage_of,
    differing_origin,
    last_checkpoint,
    step_of,
)

# Files of a checkpoint that are pushed. Not training_args.bin, a pickle that resuming does without.
SUFFIXES = frozenset({".json", ".jinja", ".model", ".pt", ".pth", ".safetensors", ".txt"})
# Optimiser, schedule and random state, which transformers reads by torch's loader of tensors and nothing else.
_STATES = frozenset({"*.pt", "*.pth"})
# Seconds between the tries of what a run waits for.
TRIES = (2.0, 5.0, 10.0)
LONGEST_WAIT = 60.0
_FETCHED = ".fetched-"

T = TypeVar("T")


def names_in_repository(run: RunDir) -> dict[str, Path]:
    """Every file of `run` that belongs into its repository, by its name there."""
    files = [run.config_file, run.history_file, run.trackers_file, *run.checkpoints_dir.rglob("*")]
    return {file.relative_to(run.path).as_posix(): file for file in files if file.is_file()}


def remote_steps(state: RepositoryState) -> list[int]:
    """The steps of the checkpoints in a repository, in order."""
    seal = re.compile(rf"{RunDir(Path()).checkpoints_dir.name}/checkpoint-([0-9]+)/{re.escape(SEAL_NAME)}")
    return sorted(int(found[1]) for name in state.files if (found := seal.fullmatch(name)))


def check_repository(run: RunDir, config: Config, *, resume: bool, started: bool = False) -> None:
    """Find out before long work whether checkpoints can be pushed, and whether the repository is this run's to write.

    Raises HubError if there is no token that may write, if the repository is public, cannot be had, or holds a
    checkpoint of another training, or of this one without `resume`; and if the Hub fails, unless the run has `started`
    or has a checkpoint here.
    """
    repo = config.training.push_checkpoints_to
    if repo is None or not is_main() or run.is_complete("train"):
        return
    try:
        state = _patiently(lambda: open_private_repository(repo))
        _patiently(lambda: require_write_token(repo))
        steps = remote_steps(state)
        if not steps:
            return
        if not resume:
            other = " to continue it, or name another repository in training.push_checkpoints_to"
            problem = f"holds a checkpoint of an unfinished training (step {steps[-1]})"
            raise HubError(f"repository {repo}", problem, ("add ", Option("resume"), other))
        with tempfile.TemporaryDirectory() as folder:
            fetched = RunDir(Path(folder))
            _patiently(lambda: fetch_files(repo, state, [_name(fetched, fetched.config_file)], NEVER, fetched.path))
            _require_configuration(repo, fetched, config)
    except HubUnavailableError as error:
        if not started and last_checkpoint(run) is None:
            raise
        say(f"{error}; the run continues, and checkpoints are pushed once it works")


def newest_checkpoint(run: RunDir, config: Config, origin: Mapping[str, str], local: Path | None) -> Path | None:
    """`local`, the newest whole checkpoint that is here, or the repository's, fetched, if that is newer.

    Raises HubError if it is of another training or damaged, or if the Hub fails and there is nothing here to
    resume from. Several processes may call this at once: the first one that a machine has fetches for all.
    """
    repo = config.training.push_checkpoints_to
    if repo is None:
        return local
    run.checkpoints_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(run.checkpoints_dir / ".fetching"):
        for left in run.checkpoints_dir.glob(f"{_FETCHED}*"):
            shutil.rmtree(left)
        local = last_checkpoint(run) or local
        try:
            return _patiently(lambda: _fetch_if_newer(run, repo, config, origin, local))
        except HubUnavailableError as error:
            if local is None:
                raise
            say(f"{error}; resuming from {local.name}, which is here")
            return local


def _fetch_if_newer(
    run: RunDir, repo: str, config: Config, origin: Mapping[str, str], local: Path | None
) -> Path | None:
    state = open_private_repository(repo)
    steps = remote_steps(state)
    if not steps or (local is not None and step_of(local) >= steps[-1]):
        return local
    with tempfile.TemporaryDirectory(dir=run.checkpoints_dir, prefix=_FETCHED) as place:
        fetched = RunDir(Path(place))
        found = [fetched.checkpoints_dir / f"checkpoint-{step}" for step in steps]
        plan = fetched.checkpoints_dir / PLAN_NAME
        wanted = [fetched.config_file, fetched.history_file, plan]
        patterns = [_name(fetched, file) for file in (*wanted, fetched.trackers_file)]
        patterns += [f"{_name(fetched, folder)}/*" for folder in found]
        # Two kinds of file are fetched here alone: states of the trainer, read with care, and an adapter a folder deep.
        never = [pattern for pattern in NEVER if pattern not in {*_STATES, "*/*.safetensors"}]
        fetch_files(repo, state, patterns, never, fetched.path)
        _require_configuration(repo, fetched, config)
        for checkpoint in found:
            _require_sound(repo, checkpoint, origin)
        if missing := [_name(fetched, file) for file in wanted if not file.is_file()]:
            raise HubError(f"repository {repo}", f"{missing[0]} is missing", _way_out(repo))
        # The newest checkpoint last: only with it does the rest count.
        run.write_text(run.checkpoints_dir / PLAN_NAME, plan.read_text(encoding="utf-8", errors="replace"))
        run.write_text(run.history_file, fetched.history_file.read_text(encoding="utf-8", errors="replace"))
        if fetched.trackers_file.is_file():
            run.write_text(run.trackers_file, fetched.trackers_file.read_text(encoding="utf-8", errors="replace"))
        for checkpoint in found:
            with replacing_folder(run.checkpoints_dir / checkpoint.name) as whole:
                for entry in list(checkpoint.iterdir()):
                    entry.rename(whole / entry.name)
    say(f"continuing from {repo}, step {steps[-1]}")
    return run.checkpoints_dir / found[-1].name


def _require_configuration(repo: str, fetched: RunDir, config: Config) -> None:
    try:
        changes = changed_keys(read_config(fetched.config_file), config)
    except (ConfigError, FileNotFoundError):
        raise HubError(f"repository {repo}", "its config.yaml is missing or damaged", _way_out(repo)) from None
    if changes:
        way_out = _way_out(repo)
        raise HubError.together(Problem(f"repository {repo}", f"made with another {one}", way_out) for one in changes)


def _require_sound(repo: str, folder: Path, origin: Mapping[str, str]) -> None:
    from torch.serialization import get_unsafe_globals_in_checkpoint
    from transformers.trainer_pt_utils import safe_globals

    where = f"repository {repo}: {folder.name}"
    if damage := damage_of(folder):
        raise HubError(f"{where} is torn ({damage})", fix=_way_out(repo))
    if differing := differing_origin(folder, origin):
        raise HubError(f"{where} is of a training with another {' and '.join(differing)}", fix=_way_out(repo))
    for file in sorted(file for pattern in _STATES for file in folder.rglob(pattern)):
        try:
            with safe_globals():
                unsafe = get_unsafe_globals_in_checkpoint(file)
        except (ValueError, RuntimeError, UnpicklingError):  # torch.save did not write it
            unsafe = ["no tensors"]
        if unsafe:
            problem = f"{file.name} holds more than tensors ({unsafe[0]}) and was not loaded"
            raise HubError(f"{where}/{problem}", fix=_way_out(repo))


def _way_out(repo: str) -> str:
    return f"delete checkpoints/ in {repo} to start over, or name another repository in training.push_checkpoints_to"


def _name(run: RunDir, file: Path) -> str:
    return file.relative_to(run.path).as_posix()


def _patiently(action: Callable[[], T]) -> T:
    """Return `action()`, tried again a few times while the Hub fails."""
    for seconds in TRIES:
        try:
            return action()
        except HubUnavailableError as error:
            time.sleep(min(max(seconds, error.seconds), LONGEST_WAIT))
    return action()

"""Whole, torn and foreign checkpoints."""

import errno
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from medtune.config.recipes import load_recipe
from medtune.errors import DiskError, RunDirError
from medtune.records import EncodedRow
from medtune.run_dir.directory import RunDir
from medtune.training.checkpoints.sealing import (
    SEAL_NAME,
    last_checkpoint,
    prune_checkpoints,
    require_origin,
    seal_checkpoint,
    step_of,
    training_origin,
    writing_checkpoint,
)

ORIGIN = {"base": "a", "configuration": "b", "rows": "c", "dtype": "bfloat16"}


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "run")


def save(run: RunDir, step: int, *, seal: bool = True) -> Path:
    folder = run.checkpoints_dir / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    for name in ("adapter_model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json"):
        (folder / name).write_bytes(b"content of " + name.encode())
    if seal:
        seal_checkpoint(run, folder, ORIGIN)
    return folder


def test_the_newest_checkpoint_is_the_one_with_the_highest_step(run: RunDir) -> None:
    assert last_checkpoint(run) is None
    folders = [save(run, step) for step in (9, 100, 20)]
    (run.checkpoints_dir / "checkpoint-tmp").mkdir()
    assert last_checkpoint(run) == folders[1]


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-5])


def _flip(file: Path) -> None:
    file.write_bytes(b"X" + file.read_bytes()[1:])


@pytest.mark.parametrize("damage", [Path.unlink, _truncate, _flip])
@pytest.mark.parametrize("name", ["adapter_model.safetensors", "rng_state.pth", SEAL_NAME])
def test_a_torn_checkpoint_is_named_and_passed_over(run: RunDir, capfd, damage, name: str) -> None:
    whole, torn = save(run, 2), save(run, 4)
    damage(torn / name)
    assert last_checkpoint(run) == whole
    assert f"{torn}: torn (" in capfd.readouterr().err


def test_all_torn_is_none(run: RunDir, capfd) -> None:
    save(run, 2, seal=False)
    assert last_checkpoint(run) is None
    assert "not saved to its end" in capfd.readouterr().err


def test_a_checkpoint_that_the_disk_had_no_room_for_leaves_nothing(run: RunDir) -> None:
    whole = save(run, 2)
    folder = run.checkpoints_dir / "checkpoint-4"

    def write() -> None:
        save(run, 4, seal=False)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DiskError, match=r"checkpoint-4: no space left on the device"), writing_checkpoint(folder):
        write()
    assert list(run.checkpoints_dir.iterdir()) == [whole]


def test_older_ones_go_but_the_best_stays(run: RunDir) -> None:
    for step in (2, 4, 6, 8):
        save(run, step)
    save(run, 7, seal=False)
    assert pruned(run, 2, {8: 2, 6: 2, 4: 2, 2: 2}) == [2, 8]
    assert pruned(run, 1, {}) == [8]


@pytest.mark.parametrize(
    ("keep", "left"), [(1, [8]), (2, [2, 8]), (3, [2, 6, 8]), (4, [2, 4, 6, 8])], ids=lambda value: str(value)
)
def test_an_older_one_is_kept_beside_its_own_best_alone(run: RunDir, keep: int, left: list[int]) -> None:
    for step in (2, 4, 6, 8):
        save(run, step)
    assert pruned(run, keep, {8: 8, 6: 2, 4: 2, 2: 2}) == left


def test_the_newest_stays_where_its_best_is_gone(run: RunDir) -> None:
    for step in (4, 6, 8):
        save(run, step)
    assert pruned(run, 3, {8: 2, 6: 4, 4: 4}) == [4, 6, 8]
    assert pruned(run, 3, {8: 2, 6: 2, 4: 2}) == [8]


def pruned(run: RunDir, keep: int, best_steps: Mapping[int, int]) -> list[int]:
    prune_checkpoints(run, keep, lambda folder: best_steps.get(step_of(folder)))
    return sorted(step_of(folder) for folder in run.checkpoints_dir.iterdir())


def test_a_foreign_checkpoint_is_refused(run: RunDir) -> None:
    folder = save(run, 2)
    require_origin(folder, ORIGIN)
    with pytest.raises(RunDirError, match=r"checkpoint-2: of a training with another base and rows; delete"):
        require_origin(folder, {**ORIGIN, "base": "x", "rows": "y"})


def test_another_dtype_is_told_and_goes_on(run: RunDir, capfd) -> None:
    require_origin(save(run, 2), {**ORIGIN, "dtype": "float16"})
    assert "its steps were computed in bfloat16, those to come in float16" in capfd.readouterr().err


def test_the_origin_tells_data_settings_and_base_apart() -> None:
    rows = [EncodedRow("a", [1, 2, 3], [-100, 2, 3])]

    def origin_of(*overrides: str, base: str = "a", rows: list[EncodedRow] = rows) -> dict[str, str]:
        return training_origin(load_recipe("demo", overrides), base, rows, dtype="float32")

    origin = origin_of()
    for same in ("generation.max_new_tokens=7", "training.max_gradient_spike=null"):
        assert origin == origin_of(same)
    others = [
        origin_of("training.learning_rate=1e-3"),
        origin_of(base="abc"),
        origin_of(rows=[replace(rows[0], input_ids=[1, 2, 4])]),
        origin_of(rows=[replace(rows[0], labels=[-100, -100, 3])]),
    ]
    for other, name in zip(others, ("configuration", "base", "rows", "rows"), strict=True):
        assert [key for key in origin if origin[key] != other[key]] == [name]

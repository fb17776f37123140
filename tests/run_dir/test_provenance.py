"""What a run records of itself, and runs whose artefacts were torn, edited or lost after their stage was complete."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable
from datetime import date, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from medtune import __version__
from medtune.config.schema import Config
from medtune.errors import Command, RunDirError
from medtune.pipeline.run import is_done
from medtune.run_dir import provenance
from medtune.run_dir.directory import RunDir
from medtune.run_dir.lock import release_locks
from medtune.run_dir.provenance import LIBRARIES, environment
from medtune.storage.writing import replacing_folder
from older_runs import forget_checksums


@pytest.fixture
def run(tmp_path: Path, config: Config) -> RunDir:
    """A run whose training and comparison are complete."""
    run = RunDir.create(tmp_path / "run", config, resume=False)
    run.record_start(**environment())
    with replacing_folder(run.adapter_dir) as folder:
        for name in ("adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "README.md"):
            (folder / name).write_text(f"content of {name}", encoding="utf-8")
    run.complete("train", {})
    for path in (run.comparison_file, run.controls_file, run.strata_file, run.lengths_file):
        run.write_json(path, [])
    run.write_text(run.comparison_text_file, "# Title\n")
    run.complete("compare", {})
    return run


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-2])


def lengthen(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\n")


def exchange(file: Path) -> None:
    shutil.copyfile(file, file.with_name("other"))
    content = file.with_name("other").read_bytes()
    file.with_name("other").write_bytes(b"X" + content[1:])
    file.with_name("other").replace(file)


def test_the_record_lists_what_the_stage_wrote(run: RunDir) -> None:
    files = run.stage_records["train"]["files"]
    assert list(files) == [
        f"adapter/{name}" for name in ("adapter_config.json", "adapter_model.safetensors", "tokenizer.json")
    ]
    assert files["adapter/tokenizer.json"]["bytes"] == len("content of tokenizer.json")
    assert len(files["adapter/tokenizer.json"]["sha256"]) == 64


@pytest.mark.parametrize(
    ("damage", "how"),
    [
        (Path.unlink, "is missing"),
        (truncate, "has 23 of 25 bytes"),
        (lengthen, "has 26 bytes, not 25"),
        (exchange, "is not as it was written"),
    ],
)
def test_a_stage_whose_file_differs_is_made_again(run: RunDir, capfd, damage: Callable[[Path], None], how: str) -> None:
    assert run.is_complete("train")
    damage(run.adapter_dir / "tokenizer.json")
    assert not run.is_complete("train")
    assert not is_done(run, "train")
    assert capfd.readouterr().err == f"{run.path}: adapter/tokenizer.json {how}; the train stage is made again\n"
    with pytest.raises(RunDirError) as caught:
        run.require("train", Command("train", "X"))
    assert str(caught.value) == (
        f"{run.path}: the train stage is not complete; run `medtune train X` first (adapter/tokenizer.json {how})"
    )


def test_texts_for_people_may_be_edited(run: RunDir, capfd) -> None:
    run.comparison_text_file.write_text("# Title\n\nMy note.\n", encoding="utf-8")
    (run.adapter_dir / "README.md").unlink()
    assert run.is_complete("train")
    assert is_done(run, "compare")
    assert f"{run.comparison_text_file}: edited since it was written, kept; delete it to have it made again" in (
        capfd.readouterr().err
    )
    run.comparison_text_file.unlink()
    assert not is_done(run, "compare")
    assert "comparison.md is missing; the compare stage is made again" in capfd.readouterr().err


def test_a_run_of_an_older_version_is_complete_while_its_files_stand(run: RunDir) -> None:
    forget_checksums(run)
    truncate(run.comparison_file)
    (run.adapter_dir / "tokenizer.json").unlink()
    assert run.is_complete("train")
    assert run.is_complete("compare")
    run.comparison_file.unlink()
    assert not run.is_complete("compare")


def test_people_rate_in_files_that_nothing_is_held_to(run: RunDir) -> None:
    run.write_text(run.human_dir / "sheet.csv", "item\n")
    run.complete("compare", {})
    recorded = {name for record in run.stage_records.values() for name in record["files"]}
    assert not [name for name in recorded if name.startswith("human")]


def test_a_stale_copy_is_not_taken_for_a_newer_one(run: RunDir, config: Config) -> None:
    (run.path / ".provenance.json.77").write_text('{"stages": {}, "versions": {}}\n' * 999, encoding="utf-8")
    release_locks()
    assert RunDir.create(run.path, config, resume=True).is_complete("compare")


@pytest.mark.parametrize("kept", [0, 60, 300, 1000])
def test_a_configuration_that_lost_its_end_is_not_taken_for_a_shorter_one(
    run: RunDir, config: Config, kept: int
) -> None:
    run.config_file.write_bytes(run.config_file.read_bytes()[:kept])
    line = f"{run.config_file}: damaged, cut off; restore it, or start another --run-dir"
    with pytest.raises(RunDirError) as caught:
        _ = RunDir(run.path).config
    assert str(caught.value) == line
    with pytest.raises(RunDirError) as caught:
        RunDir.create(run.path, config, resume=True)
    assert str(caught.value) == line


def test_a_configuration_that_someone_commented_is_not_cut_off(run: RunDir, config: Config) -> None:
    run.config_file.write_bytes(b"# mine\n" + run.config_file.read_bytes())
    assert RunDir(run.path).config == config


def test_a_process_killed_before_its_first_file_leaves_an_unused_folder(tmp_path: Path, config: Config) -> None:
    (tmp_path / ".config.yaml.77").write_text("model:", encoding="utf-8")
    run = RunDir.create(tmp_path, config, resume=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "config.yaml"]
    assert run.config == config


def test_the_next_command_that_locks_clears_what_a_killed_one_left(run: RunDir, config: Config) -> None:
    left = [
        file.with_name(f".{file.name}.77") for file in run.path.rglob("*") if file.parent == run.path and file.is_file()
    ]
    left = [file for file in left if file.name != "..lock.77"]
    left += [run.path / "controls/few_shot/.partial.jsonl.77", run.checkpoints_dir / "checkpoint-7/.sealed.json.77"]
    mine = [run.path / ".notes.77", run.human_dir / ".sheet.csv.77"]
    for file in (*left, *mine):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x", encoding="utf-8")
    (run.path / ".adapter-77").mkdir()
    RunDir.open(run.path).lock()  # held already
    assert all(file.exists() for file in left)
    release_locks()
    RunDir.open(run.path).lock()
    assert not [file for file in left if file.exists()]
    assert not (run.path / ".adapter-77").exists()
    assert all(file.exists() for file in mine)


def test_the_environment_names_versions_and_hardware() -> None:
    found = environment()
    assert found.keys() == {"versions", "hardware", "commit"}
    assert set(LIBRARIES) < found["versions"].keys()
    assert found["versions"]["python"] == platform.python_version()
    assert found["versions"]["torch"] == version("torch")
    assert found["versions"]["medtune"] == __version__
    assert found["hardware"]["cpu_count"]


def test_a_package_that_is_missing_is_recorded_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "LIBRARIES", ("medtune-has-no-such-package",))
    assert environment()["versions"]["medtune-has-no-such-package"] == "not installed"


def test_the_date_in_prompts_is_that_of_the_runs_start(run: RunDir) -> None:
    run.update_provenance(prompt_date=None)  # as an older version left it
    assert run.pinned_config.data.prompt_date is None
    run.record_start(**environment())
    assert run.pinned_config.data.prompt_date == date.fromisoformat(run.provenance["prompt_date"])
    assert date.today() - run.pinned_config.data.prompt_date <= timedelta(days=1)
    run.update_provenance(prompt_date="2024-07-26")
    run.record_start(**environment())
    assert run.pinned_config.data.prompt_date == date(2024, 7, 26)
    run.update_provenance(prompt_date="soon")
    with pytest.raises(RunDirError, match=r"provenance\.json: damaged, prompt_date: "):
        _ = run.pinned_config


def test_a_record_is_read_and_written_once(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def counted(name: str) -> None:
        method = getattr(RunDir, name)

        def call(self: RunDir, *arguments: Any) -> Any:
            if run.provenance_file in arguments:
                calls.append(name)
            return method(self, *arguments)

        monkeypatch.setattr(RunDir, name, call)

    for name in ("read_json", "write_json"):
        counted(name)
    run.complete("compare", {})
    assert calls == ["read_json", "write_json"]
    calls.clear()
    run.record_start(**environment())
    assert calls == ["read_json", "write_json"]
    assert {"versions", "hardware", "commit", "config", "stages"} <= run.provenance.keys()

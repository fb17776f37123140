"""What commands share: options that need a folder, where a run goes, and what to do next."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import typer

from command_line import Medtune, command_runner
from medtune.cli.options import folder_option, open_run, resolve_recipe, say_next, spread
from medtune.errors import ConfigError, RunDirError
from medtune.runtime.progress import lines_on_terminal


@dataclass(frozen=True)
class Tone:
    """What a test's command says how."""

    loud: Annotated[bool, typer.Option("--loud", help="Louder.")] = False
    names: Annotated[list[str] | None, typer.Option("--name", help="To whom.")] = None


def test_a_record_is_an_option_for_each_of_its_fields() -> None:
    got: list[tuple[int, Tone, str]] = []

    def command(times: int, tone: Tone = Tone(), end: str = "!") -> None:
        """Say something."""
        got.append((times, tone, end))

    spread_out = spread(command)
    assert list(inspect.signature(spread_out).parameters) == ["times", "loud", "names", "end"]
    assert spread_out.__doc__ == "Say something."
    app = typer.Typer()
    app.command()(spread_out)
    for arguments in (["3"], ["2", "--loud", "--name", "a", "--name", "b", "--end", "?"]):
        app(arguments, standalone_mode=False)
    assert got == [(3, Tone(), "!"), (2, Tone(True, ["a", "b"]), "?")]


@pytest.mark.parametrize("option", ["--resume", "--set"])
def test_the_next_option_is_not_taken_for_a_folder(option: str) -> None:
    with pytest.raises(typer.BadParameter, match=f"needs a folder, and {option} is none"):
        folder_option(None, None, Path(option))  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [None, Path("out"), Path("-out")])
def test_a_folder_is_taken_as_it_is(value: Path | None) -> None:
    assert folder_option(None, None, value) == value  # type: ignore[arg-type]


def test_a_run_goes_where_it_is_told_or_by_its_recipes_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: demo\n", encoding="utf-8")
    config, path = resolve_recipe(str(file), ["seed=5"], None)
    assert (config.seed, path) == (5, Path("runs/mine"))
    assert resolve_recipe("demo", None, Path("here"))[1] == Path("here")
    with pytest.raises(ConfigError, match="unknown recipe"):
        resolve_recipe("nosuch", None, None)


def test_what_is_no_run_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(RunDirError, match="not a medtune run"):
        open_run(tmp_path)


def test_the_next_commands_can_be_pasted(capfd: pytest.CaptureFixture[str]) -> None:
    with lines_on_terminal():
        say_next(Path("runs/my run"), [Path("runs/my run"), "--merged", Path("out")])
        say_next(Path("merged"), [])
    with_publish, alone = capfd.readouterr().err.splitlines()
    assert with_publish == (
        "next: medtune ask 'runs/my run' \"What causes gout ?\"; medtune publish 'runs/my run' --merged out "
        "--repo OWNER/NAME --dry-run"
    )
    assert alone == 'next: medtune ask merged "What causes gout ?"'


def test_a_stage_by_itself_needs_those_before_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    medtune: Medtune = command_runner(monkeypatch, capsys)
    (tmp_path / "config.yaml").write_text(medtune("config", "demo").out, encoding="utf-8")
    for command, missing in (("train", "data"), ("compare", "baseline"), ("report", "compare")):
        result = medtune(command, tmp_path)
        assert result.status == 2
        assert f"the {missing} stage is not complete" in result.err

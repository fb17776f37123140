"""Arguments and options that several commands share, and what they resolve to."""

from __future__ import annotations

import inspect
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import is_dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medtune.runtime.launch import is_launched, is_main
from medtune.runtime.process import prepare_process
from medtune.runtime.progress import say

if TYPE_CHECKING:
    from medtune.config.schema import Config
    from medtune.run_dir.directory import RunDir
    from medtune.run_dir.layout import StageName


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """`command` with an option for each field of those parameters that are dataclasses, which typer does not know."""
    taken = inspect.signature(command, eval_str=True).parameters
    kinds = {name: one.annotation for name, one in taken.items()}
    records = {name: kind for name, kind in kinds.items() if isinstance(kind, type) and is_dataclass(kind)}
    fields = {name: list(inspect.signature(kind, eval_str=True).parameters.values()) for name, kind in records.items()}

    @wraps(command)
    def called(**values: Any) -> None:
        for name, kind in records.items():
            values[name] = kind(**{field.name: values.pop(field.name) for field in fields[name]})
        command(**values)

    parameters = [field for name, one in taken.items() for field in fields.get(name, [one])]
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {one.name: one.annotation for one in parameters}
    return called


def complete_recipe(incomplete: str) -> list[str]:
    """Names of shipped recipes for a shell's completion; a shell completes files by itself where there is none."""
    from medtune.config.recipes import shipped_recipes

    return [name for name in shipped_recipes() if name.startswith(incomplete)]


_RECIPE_HELP = "A shipped recipe's name (see `medtune recipes`) or a YAML file."
Recipe = Annotated[str, typer.Argument(help=_RECIPE_HELP, autocompletion=complete_recipe)]
_TARGET_HELP = "A run directory, an adapter's folder or Hub id, or a merged folder."
Target = Annotated[str, typer.Argument(metavar="RUN|ADAPTER|MERGED", help=_TARGET_HELP)]
Run = Annotated[Path, typer.Argument(help="A run directory.", show_default=False)]


def folder_option(context: typer.Context, option: typer.CallbackParam, value: Path | None) -> Path | None:
    """`value`, unless the folder was left out and the next option is taken for it. Raises typer.BadParameter."""
    if value is not None and str(value).startswith("--"):
        raise typer.BadParameter(f"needs a folder, and {value} is none")
    return value


RunDirOption = Annotated[
    Path | None,
    typer.Option("--run-dir", help="Where the run's files go.", show_default="runs/NAME", callback=folder_option),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a key; repeatable. Values are YAML."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue what is there: complete stages are skipped.")]

OnCpu = Annotated[bool, typer.Option("--on-cpu", help="Train a large model without a GPU all the same; it takes days.")]


Gpus = Annotated[
    str | None,
    typer.Option("--gpus", metavar="N|all", help="Share the work over several GPUs of this machine, a process each."),
]


def launch_several(gpus: str | None, *, on_cpu: bool) -> None:
    """Do this command in a process for each of the GPUs asked for, and exit with their status.

    Returns for a single one, and in a process that was launched.
    """
    from medtune.runtime.launcher import count_processes, launch

    if gpus is not None and not is_launched() and (count := count_processes(gpus, on_cpu=on_cpu)) > 1:
        raise typer.Exit(launch(sys.argv[1:], count))


def print_once(result: object) -> None:
    """Print what a command has made, in the first of its processes."""
    if is_main():
        print(result)


def resolve_recipe(recipe: str, overrides: list[str] | None, run_dir: Path | None) -> tuple[Config, Path]:
    """A recipe with its overrides, and where its run goes."""
    from medtune.config.recipes import load_recipe, recipe_name

    return load_recipe(recipe, overrides or []), run_dir or Path("runs") / recipe_name(recipe)


def check_place(path: Path, config: Config, *, resume: bool) -> None:
    """Raises RunDirError where no run can go or go on; before what takes seconds to load."""
    from medtune.run_dir.directory import RunDir

    if is_main():
        RunDir(path).check(config, resume=resume)


def open_run(path: Path) -> RunDir:
    """An existing run. Raises RunDirError."""
    from medtune.run_dir.directory import RunDir

    return RunDir.open(path)


def perform_stage(name: StageName, path: Path, *, resume: bool = False, again: bool = False) -> RunDir:
    """One stage of the run at `path`, which is returned. Raises MedtuneError."""
    from medtune.run_dir.directory import RunDir

    # Where the processes of a launch share no files the others get theirs from the first.
    opened = open_run(path) if is_main() else RunDir(path)
    prepare_process()
    from medtune.pipeline.run import perform

    perform(name, opened, resume=resume, again=again)
    return opened


def say_next(asked: Path, published: Sequence[str | Path]) -> None:
    """Say how to ask what a command has made and, with the arguments `published`, how to publish it."""
    publish = f"; medtune publish {shlex.join(map(str, published))} --repo OWNER/NAME --dry-run" if published else ""
    say(f'next: medtune ask {shlex.quote(str(asked))} "What causes gout ?"{publish}', verbatim=True)

"""What to do about a stage that is not complete: its own command, or the one that does all that is left of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medtune.errors import Command, Option, Text
from medtune.run_dir.layout import STAGES, StageName, made_from, stage_named

if TYPE_CHECKING:
    from medtune.run_dir.directory import RunDir


def how_to_complete(run: RunDir, stage: StageName, command: Text = None) -> Text:
    """The fix for a stage that is missing: `command`, or the stage's own.

    Its own is not named where it would be refused for an earlier stage.
    """
    alone = ("run ", command or stage_named(stage).command_for(run.path), " first")
    if damage := run.damage(stage):
        return (*alone, f" ({damage})")
    rest = Command("run", run.config_file, (Option("run_dir", run.path), Option("resume")))
    missing = [one.name for one in STAGES if one.name not in ("report", stage) and _is_missing(run, one.name)]
    if command is None and any(stage in made_from(name) for name in missing):
        return ("run ", rest, ", which does all that is left")
    return (*alone, ", or all that is left with ", rest) if missing else alone


def _is_missing(run: RunDir, name: StageName) -> bool:
    if not run.config_file.is_file() or run.is_complete(name):
        return False
    return not stage_named(name).is_optional(run.config)

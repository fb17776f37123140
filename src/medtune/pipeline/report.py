"""The stages that publish: what a finished comparison becomes for people to read."""

from __future__ import annotations

from medtune.errors import RunDirError
from medtune.pipeline.evaluate import skip
from medtune.run_dir import provenance
from medtune.run_dir.directory import RunDir
from medtune.runtime.progress import say


def report_stage(run_dir: RunDir, *, again: bool = False) -> None:
    """The report page and the model card of a compared run.

    With `again` also where they are there, since ratings or a merge may be newer.
    """
    from medtune.publishing.model_card import write_card
    from medtune.publishing.report import write_report

    run_dir.lock()
    run_dir.require("compare", f"medtune compare {run_dir.path}")
    if not again and skip(run_dir, "report"):
        return
    with provenance.stage(run_dir, "report"):
        write_report(run_dir)
        write_card(run_dir)


def refresh_report(run_dir: RunDir, *, again: bool) -> None:
    """Report and card of a run that has been compared, where they are missing or outdated; with `again` in any case.

    What somebody has edited is kept.
    """
    if run_dir.is_complete("compare") and (again or not run_dir.is_complete("report")):
        report_stage(run_dir, again=again and not run_dir.edited_texts("report"))


def refresh_after_merge(run_dir: RunDir) -> None:
    """Report and card with what the merge says. Where a run lacks what they are made from, the merge is whole still."""
    try:
        refresh_report(run_dir, again=True)
    except RunDirError as error:
        say(f"report and card are as they were, without this merge: {error}")

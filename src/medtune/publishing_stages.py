"""The stages that publish: what a finished comparison becomes for people to read."""

from __future__ import annotations

from medtune import provenance
from medtune.evaluation_stages import skip
from medtune.run_dir import RunDir


def report_stage(run_dir: RunDir, *, again: bool = False) -> None:
    """The report page of a compared run; with `again` also where it is there, since ratings or a merge may be newer."""
    from medtune.publishing.report import write_report

    run_dir.lock()
    run_dir.require("compare", f"medtune compare {run_dir.path}")
    if not again and skip(run_dir, "report"):
        return
    with provenance.stage(run_dir, "report"):
        write_report(run_dir)

"""Runs of versions before this one."""

from __future__ import annotations

from medtune.run_dir.directory import RunDir


def forget_checksums(run: RunDir) -> None:
    """Leave of the records what older versions kept: a file that was edited is then found out when it is read."""
    stages = run.stage_records
    for record in stages.values():
        record.pop("files", None)
    run.update_provenance(stages=stages)

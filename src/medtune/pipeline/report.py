"""The report stage: what a finished comparison becomes for people to read."""

from __future__ import annotations

from typing import Any

from medtune.run_dir.directory import RunDir


def report_stage(run_dir: RunDir, record: dict[str, Any]) -> None:
    """The report page and the model card of a compared run."""
    from medtune.publishing.model_card import write_card
    from medtune.publishing.report import write_report

    write_report(run_dir)
    write_card(run_dir)

"""What the test set of a recipe can show, from a baseline that is there or from a table for MedQuAD."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from medtune.config.schema import Config
from medtune.evaluation.comparison import primary_metrics
from medtune.evaluation.formatting import format_value, listed, metric_label
from medtune.evaluation.power import CORRELATION, LIKELIHOOD_CORRELATION, detectable_by_pilot, detectable_by_table
from medtune.evaluation.result_files import read_measured
from medtune.evaluation.significance import group_sizes
from medtune.pipeline.plan import RowSizes
from medtune.run_dir.directory import RunDir


@dataclass(frozen=True, slots=True)
class Power:
    """Metric → the smallest true difference that `rows` test rows show with 80 % power; `origin` says by what.

    The rows count as `groups` groups of equal size.
    """

    detectable: Mapping[str, float]
    rows: int
    groups: float
    origin: str

    @property
    def sentence(self) -> str:
        """All of it in words."""
        shown = [f"{format_value(metric, value)} ({metric_label(metric)})" for metric, value in self.detectable.items()]
        return (
            f"smallest difference that {self.rows:,} test rows, which count as about {self.groups:.0f} groups, can "
            f"show: {listed(shown)}; with 80 % power, by {self.origin}"
        )


def expected_power(config: Config, rows: RowSizes, run_dir: Path | None = None) -> Power | None:
    """For the primary metrics of a recipe. From the baseline of the run at `run_dir`, where one was measured.

    None where nothing is known of the test rows. Raises RunDirError if the baseline's files are damaged.
    """
    primary = primary_metrics(config.evaluation.metrics, config.evaluation.primary)
    run = RunDir(run_dir) if run_dir is not None else None
    if run is not None and run.config_file.is_file() and run.is_complete("baseline"):
        groups = [row.group for row in run.read_predictions("baseline")]
        measured = [one for one in read_measured(run, "baseline") if one.name in primary]
        found = detectable_by_pilot(
            measured, groups, splits=config.evaluation.resamples, seed=config.seed, tests=len(primary)
        )
        supposed = f"{CORRELATION:g} (likelihood: {LIKELIHOOD_CORRELATION:g})"
        origin = f"the baseline's answers in {run.path}, if those of both models correlate by {supposed}"
        return Power(found, len(groups), group_sizes(groups).effective, origin) if found else None
    if rows.groups is None or rows.questions is None or rows.groups <= 1:
        return None
    found = detectable_by_table(primary, rows.groups, tests=len(primary))
    origin = "how the answers of a small model to MedQuAD differed, so a rough guide"
    return Power(found, rows.questions, rows.groups, origin) if found else None

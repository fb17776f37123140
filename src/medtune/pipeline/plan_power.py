"""What the test set of a recipe can show, from a baseline that is there or from a table for MedQuAD."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path

from medtune.config.schema import Config
from medtune.evaluation.comparison import primary_metrics
from medtune.evaluation.formatting import format_count, format_value, listed, metric_label
from medtune.evaluation.power import CORRELATION, LIKELIHOOD_CORRELATION, detectable_by_pilot, detectable_by_table
from medtune.evaluation.result_files import read_measured
from medtune.evaluation.significance import fewest_groups, group_sizes
from medtune.pipeline.plan import RowSizes
from medtune.run_dir.directory import RunDir

# Differences that tuning seldom brings, of metrics from 0 to 1 and of BLEU.
_LARGE = {"rouge1": 0.1, "rouge2": 0.1, "rougeL": 0.1, "rougeLsum": 0.1, "bertscore_f1": 0.1, "bleu": 10.0}


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


def no_verdict(rows: RowSizes, power: Power | None) -> str | None:
    """Why no verdict is to be expected of a test set, and what to raise; None where one may come of it."""
    groups, detectable = (power.groups, power.detectable) if power else (rows.groups, {})
    if groups is None:
        return None
    fewest = fewest_groups(max(1, len(detectable)))
    large = {name: value for name, value in detectable.items() if value >= _LARGE.get(name, inf)}
    fix = "raise data.split.test or evaluation.max_examples, or take rows on more topics"
    if groups < fewest:
        counted = f"the test rows count as about {format_count(round(groups), 'group')}"
        return f"no verdict is to be expected: {counted}, and a verdict takes {fewest} at least; {fix}"
    if large:
        reason = f"tuning seldom brings a difference of {min(large.values()):.2f}"
        return f"no verdict on {listed(list(map(metric_label, large)))} is to be expected: {reason}; {fix}"
    return None


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
    if "bertscore_f1" in found:  # which was not measured there
        origin += "; BERTScore's is the figure of ROUGE-L, as an upper guess"
    return Power(found, rows.questions, rows.groups, origin) if found else None

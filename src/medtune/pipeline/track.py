"""What a run's trackers get at its end: the scores, the comparison, the report, the configuration and the adapter."""

from pathlib import Path
from typing import Any

from medtune.evaluation.result_files import read_comparison
from medtune.run_dir.directory import RunDir
from medtune.runtime.progress import say


def track_results(run_dir: RunDir, record: dict[str, Any]) -> None:
    """Send what a compared run with its report found and made, and record how many calls failed, by tracker.

    Nothing of it is sent that holds a secret: a line says which file stays here.
    """
    if not (names := run_dir.config.training.report_to):
        return
    from medtune.training.trackers.following import send_results
    from medtune.training.trackers.tracker import Results

    rows = read_comparison(run_dir).rows
    scores = {f"test/{row.metric}/{kind}": getattr(row, kind) for row in rows for kind in ("baseline", "tuned")}
    scores |= {f"test/{row.metric}/difference": row.difference for row in rows}
    files = [run_dir.comparison_file, run_dir.comparison_text_file, run_dir.report_file, run_dir.config_file]
    adapter = run_dir.adapter_dir if _may_leave(run_dir.adapter_dir) else None
    results = Results(
        step=max((entry["step"] for entry in run_dir.read_history()), default=0),
        scores={name: float(value) for name, value in scores.items() if value is not None},
        comparison=run_dir.comparison_text_file.read_text(encoding="utf-8"),
        files={file.name: file for file in files if _may_leave(file)},
        adapter=adapter,
    )
    record["trackers"] = send_results(run_dir, names, results)


def _may_leave(path: Path) -> bool:
    """Whether a file, or all files of a folder, can be sent; what holds a secret is named."""
    from medtune.publishing.secrets import find_secrets

    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    if not all(file.is_file() for file in files) or not files:
        return False
    problem = next((problem for file in files for problem in find_secrets(file.name, file)), None)
    if problem is not None:
        say(f"{path}: not sent to trackers; {problem.what} {problem.problem}")
    return problem is None

"""Which tests a machine may skip, by the reason they give: a fresh one has neither the data nor, maybe, the rights."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable

import pytest

MOST_SKIPPED = {
    "needs the MedQuAD tables in ../shared/data": 39,
    "needs a user namespace to mount a tmpfs in (`unshare -rm`)": 4,
    "needs axe-core from npm": 4,
    "needs root and Slurm (apt-get install slurmctld slurmd slurm-client munge)": 2,
    "needs root and network namespaces (`ip netns add`)": 2,
    "needs MEDTUNE_LLAMA_CPP_PYTHON, a Python with llama_cpp": 23,
    "needs SkyPilot in an environment of its own (.venv-skypilot)": 1,
    "/proc/self/clear_refs cannot be written here": 1,
}


def surplus_skips(reasons: Iterable[str]) -> dict[str, int]:
    """How many tests were skipped for each reason that allows fewer."""
    counts = Counter(reason.removeprefix("Skipped: ") for reason in reasons)
    return {reason: count for reason, count in counts.items() if count > MOST_SKIPPED.get(reason, 0)}


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With CI set, more skipped tests than are allowed fail the run."""
    if not os.environ.get("CI") or hasattr(session.config, "workerinput"):
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    surplus = surplus_skips(report.longrepr[2] for report in reporter.stats.get("skipped", []))
    for reason, count in surplus.items():
        reporter.write_line(f"{count} tests skipped, and CI allows {MOST_SKIPPED.get(reason, 0)}: {reason}", red=True)
    if surplus:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED

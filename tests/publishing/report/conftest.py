"""One compared run for all tests of the report, and the page of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from medtune.publishing.report import ReportData, figures, read_report, render_report
from medtune.run_dir.directory import RunDir
from report_runs import compared_run


@pytest.fixture(scope="session")
def shared_run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """To be read, and not changed."""
    return compared_run(tmp_path_factory.mktemp("report") / "run")


@pytest.fixture(scope="session")
def data(shared_run: RunDir) -> ReportData:
    return read_report(shared_run)


@pytest.fixture(scope="session")
def page(data: ReportData) -> str:
    return render_report(data)


@pytest.fixture(scope="session")
def drawn(shared_run: RunDir) -> dict[str, str]:
    """Every chart of the shared run as SVG, by name."""
    return figures(shared_run)


@pytest.fixture
def own_run(tmp_path: Path) -> RunDir:
    """A run that the test may change."""
    return compared_run(tmp_path / "run")

"""`medtune human`: which options reach the work, and what is said after it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from command_line import Medtune
from medtune.run_dir.directory import RunDir


@pytest.fixture
def export(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the work gives back, and in `got` what it was given."""
    names = {"page": Path("h/rate.html"), "sheet": Path("h/sheet.csv"), "key": Path("h/key.json")}
    made = SimpleNamespace(items=7, identical=0, got=[], **names)

    def export_sheet(*given: Any) -> SimpleNamespace:
        made.got.append(given[1:])
        return made

    monkeypatch.setattr("medtune.evaluation.human.export.export_sheet", export_sheet)
    return made


def test_what_raters_get_is_printed_and_what_they_must_not_is_said(
    medtune: Medtune, run: RunDir, export: SimpleNamespace
) -> None:
    result = medtune("human", "export", run.path)
    assert export.got == [(50, None, None)]
    assert result.out.splitlines() == ["h/rate.html", "h/sheet.csv"]
    assert "7 items to rate; give raters rate.html or sheet.csv and nothing else" in result.err
    assert "h/key.json opens the ratings: keep it, and the run, from the raters" in result.err
    assert "the same text twice" not in result.err


def test_options_reach_the_sheet_and_equal_answers_are_counted(
    medtune: Medtune, run: RunDir, export: SimpleNamespace
) -> None:
    export.identical = 2
    result = medtune("human", "export", run.path, "--n", "12", "--seed", "3", "--out", "elsewhere")
    assert export.got == [(12, 3, Path("elsewhere"))]
    assert "2 of them hold the same text twice; they count as ties once they are rated" in result.err


def test_ratings_are_unblinded_by_the_key_that_is_found(medtune: Medtune, monkeypatch: pytest.MonkeyPatch) -> None:
    got: dict[str, Any] = {}
    results = "medtune.evaluation.human.results"
    monkeypatch.setattr(
        f"{results}.find_key", lambda files, key: got.update(files=files, key=key) or Path("found.json")
    )
    monkeypatch.setattr(f"{results}.score_files", lambda files, key: ("scores of", files, key))
    monkeypatch.setattr(f"{results}.write_scores", lambda *given: got.update(written=given) or given[-1])
    monkeypatch.setattr("medtune.evaluation.human.rating_tables.print_scores", lambda scores, console: print("tables"))
    result = medtune("human", "score", "a.csv", "b.json", "--key", "run", "--out", "s.json")
    assert (result.status, result.out) == (0, "tables\ns.json\n")
    files = [Path("a.csv"), Path("b.json")]
    found = Path("found.json")
    written = ("scores of", files, found), found, Path("s.json")
    assert got == {"files": files, "key": Path("run"), "written": written}


def test_help_names_commands_and_options(medtune: Medtune) -> None:
    assert "export" in medtune("human", "--help").out
    assert "--n" in medtune("human", "export", "--help").out
    assert "--key" in medtune("human", "score", "--help").out

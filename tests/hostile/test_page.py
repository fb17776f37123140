"""The page of hostile input is what the tables say."""

from __future__ import annotations

from pathlib import Path

from hostile import page

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_page_is_current() -> None:
    assert (DOCS / page.NAME).read_text(encoding="utf-8") == page.page(), f"run `make docs`: {page.NAME} is stale"


def test_every_class_has_three_cases_or_more() -> None:
    assert {title: len(cases) for title, cases in page.CASES.items() if len(cases) < 3} == {}


def test_every_line_names_its_subject_and_is_one_line() -> None:
    for cases in page.CASES.values():
        for case in cases:
            for line in getattr(case, "lines", ()):
                assert line.isprintable()
                assert ": " in line or " has " in line, line

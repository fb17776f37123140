"""The page of hostile input is what the tables say."""

from __future__ import annotations

import re
from pathlib import Path

from hostile import page
from hostile.cases import matches

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


def test_every_case_is_on_the_page_under_what_it_says() -> None:
    text = page.page()
    for cases in page.CASES.values():
        outcomes = {
            what: shared for shared, inputs in page.grouped((page.said(c), c.what) for c in cases) for what in inputs
        }
        assert outcomes.keys() == {case.what for case in cases}
        for case in cases:
            assert matches(page.said(case), re.sub(" ?… ?", "…", outcomes[case.what]))
            assert case.what.replace("|", "\\|") in text


def test_texts_that_are_alike_share_a_row_with_dots_where_they_differ() -> None:
    pairs = [("a.csv: row 1 is a list", "x"), ("b.csv: row 12 is a list", "y"), ("a.csv: empty", "z")]
    assert page.grouped(pairs) == [("… row … is a list", ["x", "y"]), ("a.csv: empty", ["z"])]

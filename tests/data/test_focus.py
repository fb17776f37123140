from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtune.data.cleaning import Cleaned
from medtune.data.focus import TEMPLATES, fill_focus, focus_from_question
from medtune.data.splits import focus_key
from medtune.records import QAPair


@pytest.mark.parametrize(
    ("question", "focus"),
    [
        ("What is (are) gout ?", "gout"),
        ("What are the symptoms of Lowe syndrome ?", "Lowe syndrome"),
        ("What are the treatments for gout ?", "gout"),
        ("What causes Hepatitis (B, C or D) ?", "Hepatitis (B, C or D)"),
        ("What are the genetic changes related to ADNP syndrome ?", "ADNP syndrome"),
        ("What are the stages of Wilms Tumor ?", "Wilms Tumor"),
        ("What are the complications of Diabetes ?", "Diabetes"),
        ("What is the outlook for stroke ?", "stroke"),
        ("what research (or clinical trials) is being done for Batten Disease ?", "Batten Disease"),
        ("What to do for Gas ?", "Gas"),
        ("How many people are affected by gout ?", "gout"),
        ("How to diagnose gout ?", "gout"),
        ("How to prevent gout ?", "gout"),
        ("Who is at risk for Lymphocytic Choriomeningitis (LCM)? ?", "Lymphocytic Choriomeningitis (LCM)"),
        ("Is X-linked  ichthyosis inherited ?", "X-linked ichthyosis"),
        ("Do you have information about Asthma", "Asthma"),
        ("WHAT CAUSES gout?", "gout"),
        # None of the templates
        ("What is gout ?", ""),
        ("Is gout painful ?", ""),
        ("So what causes gout ?", ""),
        ("What causesgout ?", ""),
        # Templates without a topic, as six of MedQuAD's rows are
        ("What is (are) ?", ""),
        ("How to prevent ? ?", ""),
        ("Is inherited ?", ""),
        ("", ""),
    ],
)
def test_the_focus_of_a_question(question: str, focus: str) -> None:
    assert focus_from_question(question) == focus


@given(
    st.sampled_from(TEMPLATES),
    st.from_regex(r"[abc1é(][abc ()\-,'é1]{0,30}", fullmatch=True),
    st.sampled_from(["", "?", " ?", " ? ?"]),
)
def test_every_template_gives_back_its_topic(template: tuple[str, str], topic: str, mark: str) -> None:
    before, behind = template
    topic = " ".join(topic.split())
    question = f"{before} {topic} {behind}".rstrip() + mark
    assert focus_from_question(question) == topic


def test_a_long_question_takes_no_long_time() -> None:
    began = time.perf_counter()
    for before, _ in TEMPLATES:
        focus_from_question(f"{before} " + "a ? " * 20_000 + "!")
    assert time.perf_counter() - began < 2


def pair(question: str, focus: str = "") -> QAPair:
    return QAPair(question, "", question, "A.", focus=focus)


def test_the_focus_is_read_only_where_no_row_gives_one() -> None:
    bare = [pair("What causes gout ?"), pair("Why ?")]
    filled, origin = fill_focus(bare)
    assert [(row.question, row.focus) for row in filled] == [("What causes gout ?", "gout"), ("Why ?", "")]
    assert origin == "read from the questions"
    assert bare[0].focus == ""
    given_rows = [pair("What causes gout ?"), pair("Why ?", focus="Asthma")]
    assert fill_focus(given_rows) == (given_rows, "given")
    assert fill_focus([pair("Why ?")]) == ([pair("Why ?")], "absent")
    assert fill_focus([]) == ([], "absent")


def test_medquads_questions_name_their_focus(medquad_cleaned: Cleaned) -> None:
    rows = medquad_cleaned.pairs
    filled, _ = fill_focus([replace(row, focus="") for row in rows])
    right = sum(focus_key(read.focus) == focus_key(row.focus) for read, row in zip(filled, rows, strict=True))
    assert right == 15_575
    assert sum(not row.focus for row in filled) == 37

"""Test questions to pick from, and what is nearest to a question."""

import pytest

from medtune.evaluation.nearest_questions import NearestQuestions
from medtune.inference.serving.chat.run_questions import RunQuestions, typed
from medtune.records import QAPair, Turn


def row(number, question, qtype="causes", **fields):
    return QAPair(f"row-{number}", qtype, question, f"answer {number}", group=f"g{number}", **fields)


@pytest.fixture
def questions():
    test = (
        row(1, "What causes gout ?"),
        row(2, "How to treat asthma ?", "treatment", focus="Asthma"),
        row(3, "And at night ?", turns=(Turn("user", "Hello"), Turn("assistant", "Hello."))),
    )
    train = (
        row(4, "What causes gout in toes ?"), row(5, "What causes asthma ?"),
        row(6, "How to treat gout ?", "treatment"), row(7, "Is it far ?", "other"),
    )  # fmt: skip
    return RunQuestions(test, NearestQuestions(train))


def test_a_search_wants_every_word_of_question_type_or_topic(questions):
    assert questions.search("", 2) == [0, 1]
    assert questions.search("ASTHMA treatment", 9) == [1]
    assert questions.search("gout night", 9) == []


def test_a_typed_question_is_a_test_row_where_it_is_the_same(questions):
    assert questions.find(" what  causes GOUT ? ").id == "row-1"
    assert questions.find("And at night ?") is None  # it came after other turns
    assert questions.find("What causes gout") is None


def test_nearest_rows_are_of_the_type_or_of_all_where_there_is_none(questions):
    assert [near.id for near in questions.nearest_to(questions.rows[0])] == ["row-4", "row-5"]
    assert questions.nearest_to(typed("treat gout"))[0].id == "row-6"
    assert RunQuestions().nearest_to(typed("gout")) == []


def test_what_is_no_run_says_why_there_are_no_rows(tmp_path):
    found = RunQuestions.of(str(tmp_path))
    assert found.rows == ()
    assert found.missing.startswith("An adapter or a merged model comes without rows")


def test_a_run_without_its_rows_says_so_and_can_still_be_asked(tmp_path):
    (tmp_path / "config.yaml").write_text("nonsense: [", encoding="utf-8")
    assert RunQuestions.of(str(tmp_path)).missing.startswith("The run's rows cannot be read: ")

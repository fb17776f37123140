"""A sheet that grows as it is rated, and is scored by `medtune human score`."""

import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from medtune.errors import DataError
from medtune.evaluation.human.blinding import ChatOrigin
from medtune.evaluation.human.rating_tables import read_scores
from medtune.evaluation.human.results import read_key, score_files, write_scores
from medtune.evaluation.human.rubric import RATING_COLUMNS
from medtune.evaluation.human.spreadsheet import read_spreadsheet
from medtune.inference.serving.chat.blind_sheet import BlindSheet
from medtune.records import Prediction

ORIGIN = ChatOrigin("demo", 160)


def answer(text, row="", question="What causes gout ?"):
    return Prediction(row, question, "It is so." if row else "", text, 3, group=row or question)


def rate_in_full(sheet, rater, item, preference, rating="4"):
    sheet.rate(rater, item, {**dict.fromkeys(RATING_COLUMNS, rating), "preference": preference, "comment": "=hm"})


@pytest.fixture
def sheet(tmp_path):
    return BlindSheet(tmp_path, ORIGIN)


def test_nothing_is_written_before_there_is_an_item(sheet, tmp_path):
    assert list(tmp_path.iterdir()) == []
    assert sheet.ratings_files == []


def test_the_ratings_of_several_raters_are_scored_unchanged(sheet):
    for number in range(8):
        own = number % 4 == 0
        row, question = ("", f"mine {number} ?") if own else (f"row-{number}", f"test {number} ?")
        rater = "Anna Ö" if number % 2 else "ben"
        item, tuned = sheet.add(rater, answer("plain", row, question), answer("other", row, question))
        assert {item.answer_a, item.answer_b} == {"plain", "other"}
        assert (item.answer_a if tuned == "a" else item.answer_b) == "other"
        rate_in_full(sheet, rater, item, tuned)
    files, key = sheet.ratings_files, sheet.folder / "key.json"
    scores = score_files(files, key)
    assert (scores.win_rate.wins, scores.win_rate.losses) == (8, 0)
    assert {name: count.complete for name, count in scores.raters.items()} == {"Anna Ö": 4, "ben": 4}
    assert (scores.is_chat, scores.own_questions) == (True, 2)
    assert scores.comments[0].text == "=hm"
    assert read_scores(scores)[1] == (
        "Raters chose the questions, in a chat: 2 of 8 rated items are questions of their own, without a reference, "
        "and 6 test questions that they picked. They are neither the test set nor a random sample of it."
    )
    assert "2 raters on a sheet of 8 items: 8 of 8 judgements given, 8 of them in full." in read_scores(scores)
    assert json.loads(write_scores(scores, key).read_text(encoding="utf-8"))["own_questions"] == 2


def test_each_side_is_the_tuned_models_equally_often(sheet):
    sides = [sheet.add("Anna", answer("plain"), answer("other"))[1] for _ in range(40)]
    assert sides.count("a") == sides.count("b") == 20
    assert all(sides[start : start + 4].count("a") == 2 for start in range(0, 40, 4))
    other = BlindSheet(sheet.place, ORIGIN)
    assert [other.add("Anna", answer("plain"), answer("other"))[1] for _ in range(40)] != sides


def test_nothing_that_a_rater_gets_says_which_is_which(sheet):
    item, _ = sheet.add("Anna", answer("plain", "row-1"), answer("other", "row-1"))
    rate_in_full(sheet, "Anna", item, "a")
    (file,) = sheet.ratings_files
    text = file.read_text(encoding="utf-8-sig")
    assert "tuned" not in text
    assert "base" not in text
    assert "row-1" not in text
    key = read_key(sheet.folder / "key.json")
    assert (key.seed, key.chat, key.items["1"].row) == (None, ORIGIN, "row-1")


def test_equal_answers_are_rated_at_once_and_tie(sheet):
    item, _ = sheet.add("Anna", answer(" same\n"), answer("same"))
    given = sheet.rate("Anna", item, {"accuracy_b": "2"})
    assert given == {"accuracy_a": "2", "accuracy_b": "2", "preference": "tie"}
    scores = score_files(sheet.ratings_files, sheet.folder / "key.json")
    assert (scores.win_rate.ties, scores.win_rate.identical) == (1, 1)


def test_a_rating_can_be_changed_and_taken_back(sheet):
    item, _ = sheet.add("Anna", answer("plain"), answer("other"))
    sheet.rate("Anna", item, {"accuracy_a": "2", "clarity_a": "7", "preference": "c"})
    sheet.rate("Anna", item, {"accuracy_a": "3", "accuracy_b": "1"})
    assert sheet.rate("Anna", item, {"accuracy_b": ""}) == {"accuracy_a": "3"}
    (row,) = read_spreadsheet(sheet.ratings_files[0]).rows
    assert (row["accuracy_a"], row["accuracy_b"], row["clarity_a"], row["preference"]) == ("3", "", "", "")


@pytest.mark.parametrize("name", ["", "  ", "x" * 61, "a\x1b[2J"])
def test_a_name_that_is_none_is_refused_before_anything_is_written(sheet, tmp_path, name):
    with pytest.raises(DataError, match="rater's name"):
        sheet.add(name, answer("plain"), answer("other"))
    assert list(tmp_path.iterdir()) == []


def test_names_that_make_one_file_name_get_two_files(sheet):
    for name in ("A. B", "A, B", "../../A", "a. b"):
        sheet.add(name, answer("plain"), answer("other"))
    names = [file.name.split("-", 2)[2] for file in sheet.ratings_files]
    assert names == ["A-B.csv", "A-B-2.csv", "-A.csv"]
    assert {file.parent for file in sheet.ratings_files} == {sheet.folder}


def test_a_folder_that_is_there_is_left_alone(sheet):
    sheet.add("Anna", answer("plain"), answer("other"))
    other = BlindSheet(sheet.place, ORIGIN)
    other.add("Anna", answer("plain"), answer("other"))
    assert other.folder.name == f"{sheet.folder.name}-2"


def rate_and_die(place: str) -> None:
    sheet = BlindSheet(Path(place), ORIGIN)
    item, _ = sheet.add("Anna", answer("plain"), answer("other"))
    sheet.rate("Anna", item, {"accuracy_a": "5"})
    sheet.rate("Anna", item, {"preference": "b"})
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_kill_loses_no_rating(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=rate_and_die, args=(str(tmp_path),))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    (folder,) = tmp_path.iterdir()
    scores = score_files(list(folder.glob("ratings-*.csv")), folder / "key.json")
    assert scores.raters["Anna"].items == 1
    assert scores.win_rate.n == 1

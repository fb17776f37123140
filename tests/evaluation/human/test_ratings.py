from __future__ import annotations

import csv
from pathlib import Path

import pytest

from medtune.errors import DataError
from medtune.evaluation.human.ratings import Judgement, read_judgements
from medtune.evaluation.human.rubric import RATING_COLUMNS

SHEET = "bcdfghjk"
ITEMS = ["1", "2", "3"]
FULL = dict.fromkeys(RATING_COLUMNS, 4)


def read(*files: Path) -> list[Judgement]:
    return read_judgements(files, SHEET, ITEMS)


def problems(*files: Path) -> list[str]:
    with pytest.raises(DataError) as caught:
        read(*files)
    return [line.replace(f"{files[0].parent}/", "") for line in str(caught.value).splitlines()]


def test_a_filled_sheet(fill) -> None:
    path = fill(
        "anna.csv", {"1": FULL | {"preference": "A", "comment": "B is cut off"}, "2": {}, "3": {"clarity_b": 2}}
    )
    assert read(path) == [
        Judgement("anna", "1", FULL, "a", "B is cut off"),
        Judgement("anna", "3", {"clarity_b": 2}),
    ]
    assert [judgement.is_complete for judgement in read(path)] == [True, False]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_as_spreadsheets_save_it(fill, delimiter: str, encoding: str) -> None:
    row = {"item": "1.0", "accuracy_a": " 5.0 ", "clarity_a": "4,0", "preference": " TIE ", "comment": "'=fine"}
    path = fill("ö.csv", {"1": row}, delimiter=delimiter, encoding=encoding)
    assert read(path) == [Judgement("ö", "1", {"accuracy_a": 5, "clarity_a": 4}, "tie", "=fine")]


def test_the_raters_name(fill) -> None:
    exported = fill(f"ratings-{SHEET}-ben.csv", {"1": {"preference": "B"}})
    named = fill("sheet.csv", {"1": {"preference": "B", "rater": "Cleo"}, "2": {"preference": "A", "rater": ""}})
    assert [(found.rater, found.item) for found in read(exported, named)] == [
        ("Cleo", "1"),
        ("Cleo", "2"),
        ("ben", "1"),
    ]


def test_one_rater_in_two_spellings_is_one_rater(fill) -> None:
    first = fill("1.csv", {"1": {"preference": "B", "rater": "Cleo"}})
    second = fill("2.csv", {"2": {"preference": "B", "rater": "CLEO"}})
    assert {found.rater for found in read(first, second)} == {"Cleo"}


def test_files_of_one_name_need_raters_names(fill) -> None:
    first, second = (fill(f"{folder}/sheet.csv", {"1": {"preference": "B"}}) for folder in ("x", "y"))
    assert str(second) in problems(first, second)[0]
    assert problems(first, second)[0].endswith("fill in the rater column")


def test_a_row_without_a_name_among_several(fill) -> None:
    rows = {
        "1": {"preference": "B", "rater": "Cleo"},
        "2": {"preference": "B", "rater": "Dan"},
        "3": {"preference": "A"},
    }
    assert problems(fill("both.csv", rows)) == [
        "both.csv: several raters' rows, and some without a name; fill in the rater column"
    ]


def test_an_earlier_export_of_the_same_work_joins_the_later_one(fill) -> None:
    early = fill("early.csv", {"1": {"clarity_a": 3, "comment": "hm", "rater": "a"}, "2": {"rater": "a"}})
    late = fill(
        "late.csv", {"1": {"clarity_a": 3, "preference": "tie", "rater": "a"}, "2": {"clarity_a": 1, "rater": "a"}}
    )
    joined = [Judgement("a", "1", {"clarity_a": 3}, "tie", "hm"), Judgement("a", "2", {"clarity_a": 1})]
    assert read(early, late) == read(late, early) == joined


def test_two_answers_of_one_rater_to_one_question(fill) -> None:
    first = fill("1.csv", {"2": {"clarity_a": 3, "preference": "A", "rater": "a"}})
    second = fill("2.csv", {"2": {"clarity_a": 4, "preference": "B", "rater": "a"}})
    assert problems(first, second) == [
        "2.csv: item 2: a gives clarity_a 4 here and 3 elsewhere; take one of them out",
        "2.csv: item 2: a gives preference b here and a elsewhere; take one of them out",
    ]


def test_one_file_named_twice_is_no_second_rater(fill) -> None:
    path = fill("anna.csv", {"1": {"preference": "A"}})
    assert len(read(path, path)) == 1


def test_what_is_off_the_scale_is_reported_together(fill) -> None:
    rows = {
        "1": {"accuracy_a": 0, "accuracy_b": 6, "clarity_a": 4.5, "clarity_b": "good"},
        "2": {"preference": "C"},
        "9": {"clarity_a": 1},
        "": {"clarity_a": 1},
        "3": {"clarity_a": "²"},
    }
    scale = "must be 1 to 5, or empty"
    assert problems(fill("anna.csv", rows)) == [
        f"anna.csv: item 1: accuracy_a is '0'; {scale}",
        f"anna.csv: item 1: accuracy_b is '6'; {scale}",
        f"anna.csv: item 1: clarity_a is '4.5'; {scale}",
        f"anna.csv: item 1: clarity_b is 'good'; {scale}",
        "anna.csv: item 2: preference is 'C'; must be A, B or tie, or empty",
        "anna.csv: item '9' is not on the sheet, which has 1 to 3",
        "anna.csv: item '' is not on the sheet, which has 1 to 3",
        f"anna.csv: item 3: clarity_a is '²'; {scale}",
    ]


def test_many_problems_are_counted(fill, tmp_path: Path) -> None:
    path = tmp_path / "anna.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["sheet", "item", "preference"], *([SHEET, "1", f"x{i}"] for i in range(30))])
    assert len(problems(path)) == 21
    assert problems(path)[-1] == "and 10 further problems like these"


@pytest.mark.parametrize("sheet", ["zzzzzzzz", ""])
def test_another_sheet(fill, sheet: str) -> None:
    assert problems(fill("anna.csv", {"1": {"clarity_a": 1}, "2": {"clarity_a": 9}}, sheet=sheet)) == [
        f"anna.csv: belongs to sheet {sheet!r}, the key to 'bcdfghjk'; give the key of that sheet"
    ]


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        (["item", "clarity_a"], "no column sheet; give a filled sheet or the page's export"),
        (["rows"], "no column sheet and no column item; give a filled sheet or the page's export"),
        (["sheet", "item", "question"], "no column of ratings; give a filled sheet or the page's export"),
        (["sheet", "item", "clarity_a", "Clarity A"], "two columns clarity_a; take one of them out"),
    ],
)
def test_columns_that_lack_or_come_twice(tmp_path: Path, columns: list[str], problem: str) -> None:
    path = tmp_path / "anna.csv"
    path.write_text(",".join(columns) + "\n" + ",".join("1" for _ in columns) + "\n")
    assert problems(path) == [f"anna.csv: {problem}"]


def test_nothing_rated(fill) -> None:
    assert problems(fill("anna.csv", {"1": {}, "2": {}})) == [
        "anna.csv: nothing is rated; fill in ratings from 1 to 5 first"
    ]

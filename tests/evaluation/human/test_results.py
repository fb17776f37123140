from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from medtune.errors import DataError, RunDirError
from medtune.evaluation.human.blinding import Key, key_json
from medtune.evaluation.human.rating_tables import read_scores
from medtune.evaluation.human.results import find_key, read_key, score_files, write_scores

MakeKey = Callable[..., Key]
Fill = Callable[..., Path]


@pytest.fixture
def key_file(tmp_path: Path, make_key: MakeKey) -> Path:
    path = tmp_path / "run" / "human" / "key.json"
    path.parent.mkdir(parents=True)
    path.write_text(key_json(make_key("abba")), encoding="utf-8")
    return path


def test_a_key_is_found_by_its_name_its_folder_its_run_and_beside_the_sheets(key_file: Path) -> None:
    sheet = key_file.with_name("anna.csv")
    for named in (key_file, key_file.parent, key_file.parents[1], None):
        assert find_key([sheet], named) == key_file
    with pytest.raises(RunDirError, match=r"holds no key\.json"):
        find_key([sheet], key_file.parents[2])
    with pytest.raises(RunDirError, match=r"no key\.json beside"):
        find_key([key_file.parents[2] / "anna.csv"], None)


def test_a_key_is_read_back_and_a_damaged_one_is_named(key_file: Path, make_key: MakeKey) -> None:
    assert read_key(key_file) == make_key("abba")
    key_file.write_bytes(b"\xff\xfe{")
    with pytest.raises(DataError, match=r"key\.json: .*restore it from where it was written"):
        read_key(key_file)


def test_scores_go_beside_the_key_and_later_ones_replace_them(key_file: Path, fill: Fill) -> None:
    for rows in ({"1": {"preference": "A"}}, {"1": {"preference": "A"}, "2": {"preference": "A"}}):
        scores = score_files([fill("anna.csv", rows)], key_file)
        path = write_scores(scores, key_file)
        assert path == key_file.with_name("scores.json")
        written = json.loads(path.read_text(encoding="utf-8"))
        assert written["reading"] == read_scores(scores)
        assert written["win_rate"]["items"] == len(rows)
    assert (written["win_rate"]["wins"], written["win_rate"]["losses"]) == (1, 1)


def test_scores_never_replace_the_key(key_file: Path, fill: Fill) -> None:
    scores = score_files([fill("anna.csv", {"1": {"preference": "A"}})], key_file)
    before = key_file.read_bytes()
    with pytest.raises(RunDirError, match="is the key; name another file"):
        write_scores(scores, key_file, key_file.parent / ".." / "human" / "key.json")
    with pytest.raises(RunDirError, match="cannot be written"):
        write_scores(scores, key_file, key_file / "scores.json")
    assert key_file.read_bytes() == before

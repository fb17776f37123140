"""Folders of `save_to_disk`: one data set or several splits, read without any code of theirs."""

from __future__ import annotations

from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

from medtune.config.sources import ColumnsSection
from medtune.data.sources import read_source
from medtune.errors import DataError


def rows(*names: str) -> Dataset:
    return Dataset.from_dict({"Question": [f"{name} ?" for name in names], "Answer": [f"{name}." for name in names]})


def test_one_data_set(tmp_path: Path) -> None:
    """Known to be refused by other tools: https://github.com/huggingface/datasets/pull/3705."""
    rows("a", "b").with_format("numpy").save_to_disk(tmp_path / "saved")
    read = read_source(str(tmp_path / "saved"), ColumnsSection())
    assert [(pair.question, pair.answer) for pair in read.pairs] == [("a ?", "a."), ("b ?", "b.")]
    assert read.folder_of == "a saved data set"


def test_splits_are_read_in_order_chosen_by_name_and_named_in_a_column(tmp_path: Path) -> None:
    """As in https://github.com/huggingface/alignment-handbook/pull/53."""
    DatasetDict(train=rows("a", "b"), test=rows("c")).save_to_disk(tmp_path / "saved")

    def read(split: str | None = None, column: str | None = None) -> list[tuple[str, str]]:
        found = read_source(str(tmp_path / "saved"), ColumnsSection(split=column), hub_split=split)
        return [(pair.answer, pair.split) for pair in found.pairs]

    assert read() == [("a.", ""), ("b.", ""), ("c.", "")]
    assert read("test") == [("c.", "")]
    assert read("test + train", column="split") == [("c.", "test"), ("a.", "train"), ("b.", "train")]
    with pytest.raises(DataError) as caught:
        read("dev")
    assert str(caught.value) == (
        f"{tmp_path / 'saved'}: no split 'dev'; it has train, test; choose with --set data.hub_split=train"
    )


def test_a_damaged_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    rows("a").save_to_disk(folder)
    (arrow,) = folder.glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[:40])
    with pytest.raises(DataError) as caught:
        read_source(str(folder), ColumnsSection())
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{folder}: not a readable folder of save_to_disk (")
    (folder / "state.json").write_text("[]")
    with pytest.raises(DataError, match="not a readable folder of save_to_disk"):
        read_source(str(folder), ColumnsSection())

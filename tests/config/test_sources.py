"""Where rows are, how tables are written, and how rows are split: what is allowed, and what is said of the rest."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from medtune.config.schema import parse_config
from medtune.config.sources import SourceSection, SplitSection, TableSection
from medtune.errors import ConfigError
from recipe_files import with_key


def problem(path: str, value: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(with_key(path, value), origin="here.yaml")
    (line,) = str(caught.value).splitlines()
    return line


def test_shares_that_leave_nothing_to_train_on() -> None:
    line = problem("data.split", {"validation": 0.3, "test": 0.7})
    assert line.startswith("here.yaml: data.split: validation and test together must leave at least 0.1 of the rows")


@pytest.mark.parametrize("shares", [{"validation": 0.3, "test": 0.6}, {"validation": 0.1, "test": 0.8}])
def test_shares_that_leave_a_tenth(shares: dict[str, float]) -> None:
    assert SplitSection(**shares).test == shares["test"]
    with pytest.raises(ValidationError):
        SplitSection(**{**shares, "test": shares["test"] + 0.01})


@pytest.mark.parametrize("name", ["utf-8", "UTF8", "cp1252", "latin-1", "utf-16", None])
def test_encodings_go_by_their_names_in_python(name: str | None) -> None:
    assert TableSection(encoding=name).encoding == name


@pytest.mark.parametrize("name", ["utf-9", "base64", "rot13", "a\0b"])
def test_an_encoding_that_is_unknown_or_not_of_text_is_refused(name: str) -> None:
    line = problem("data.table.encoding", name)
    assert line.startswith(
        "here.yaml: data.table.encoding: must be an encoding of text that Python knows, such as utf-8"
    )


@pytest.mark.parametrize("separator", ["", ";;"])
def test_a_separator_is_one_character(separator: str) -> None:
    assert TableSection(separator="|").separator == "|"
    assert problem("data.table.separator", separator).startswith("here.yaml: data.table.separator")


def test_a_source_is_called_by_its_name_or_else_by_where_it_is() -> None:
    assert SourceSection(source="owner/rows").label == "owner/rows"
    assert SourceSection(source="owner/rows", name="mine").label == "mine"

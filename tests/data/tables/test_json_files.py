"""Shapes of JSON that hold rows."""

from __future__ import annotations

import pytest

from medtune.data.tables.json_files import read_json, read_json_lines
from medtune.errors import DataError

ROWS = [{"question": "q", "answer": "a"}, {"question": "r", "answer": "b"}]
ARRAY = '[{"question": "q", "answer": "a"}, {"question": "r", "answer": "b"}]'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ARRAY, ()),
        (f'{{"version": "1", "data": {ARRAY}}}', ("rows from its list 'data'",)),
        ('{"question": ["q", "r"], "answer": ["a", "b"]}', ("a list for each column",)),
        ('{"question": {"0": "q", "1": "r"}, "answer": {"0": "a", "1": "b"}}', ("a list for each column",)),
        (ARRAY[1:-1].replace("}, ", "}\n"), ("an object a line and not one array",)),
    ],
    ids=["array", "object around a list", "lists of cells", "pandas", "an object a line"],
)
def test_rows_are_found(text: str, said: tuple[str, ...]) -> None:
    """Arrays are what Alpaca's and LLaMA-Factory's files hold: https://github.com/hiyouga/LlamaFactory/issues/3018."""
    table = read_json("rows.json", text)
    assert (list(table.rows), table.notes) == (ROWS, said)


def test_an_array_in_a_jsonl_file() -> None:
    table = read_json_lines("rows.jsonl", ARRAY.replace(", {", ",\n{"))
    assert (list(table.rows), table.notes) == (ROWS, ("one array and not an object a line",))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "not JSON (Expecting value); an array of objects"),
        ("7", "holds a int; an array of objects"),
        ("[1, 2]", "row 0 is a int; each row must be an object"),
        ('[{"a": 1}, 2]', "row 1 is a int; each row must be an object"),
        ('{"train": [{"a": 1}], "test": [{"a": 2}]}', "holds several lists of objects, 'train' and 'test'; save"),
        ('{"a": {"b": {"c": 1}}}', "holds an object without a list of rows"),
        ('{"a": [1, 2], "b": [3]}', "holds an object without a list of rows"),
        ('{"a": 1}\n{"a":', "line 2 is not JSON (Expecting value)"),
    ],
)  # fmt: skip
def test_what_holds_no_rows_is_refused(text: str, expected: str) -> None:
    with pytest.raises(DataError) as caught:
        list(read_json("rows.json", text).rows)
    assert str(caught.value).startswith(f"rows.json: {expected}")

"""One cell's turns, in the forms that tools write them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from medtune.data.turn_lists import LeftOutError, as_list, read_turns
from medtune.records import Turn

ASKED, SAID = Turn("user", "What is gout?"), Turn("assistant", "Arthritis of a joint.")
LIST = [{"role": "user", "content": ASKED.content}, {"role": "assistant", "content": SAID.content}]


@pytest.mark.parametrize(
    "cell",
    [
        LIST,
        tuple(LIST),
        json.dumps(LIST),
        f"  {LIST}\n",  # as pandas writes a list
        {"role": ["user", "assistant"], "content": [ASKED.content, SAID.content]},
        [{"human": ASKED.content, "gpt": SAID.content}],
        [{"speaker": " Patient ", "text": ASKED.content}, {"from": "Doctor", "value": SAID.content}],
    ],
)
def test_every_form_is_the_same_turns(cell: Any) -> None:
    assert list(read_turns(cell, "messages")) == [ASKED, SAID]


@pytest.mark.parametrize("cell", [None, "", "text", "[", "[]", "{}", [], [1], ["user"], [{}], [{"q": "a"}], 7, b"[]"])
def test_what_holds_no_list_of_turns(cell: Any) -> None:
    assert as_list(cell) is None
    with pytest.raises(LeftOutError, match="left_out_no_turns"):
        list(read_turns(cell, "messages"))


def test_text_is_a_question_in_a_column_of_prompts_alone() -> None:
    assert list(read_turns("Why?", " Prompt ")) == [Turn("user", "Why?")]
    with pytest.raises(LeftOutError):
        list(read_turns("Why?", "conversation"))
    with pytest.raises(LeftOutError):
        list(read_turns("  ", "prompt"))


def test_pythons_syntax_is_read_and_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert as_list("[{'role': 'user', 'content': print('ran')}]") is None
    text = "[{'role': 'user', 'content': 'q'}]"
    assert as_list(text) == [{"role": "user", "content": "q"}]
    monkeypatch.setattr("medtune.data.turn_lists._MAX_LITERAL_CHARACTERS", len(text) - 1)
    assert as_list(text) is None


@pytest.mark.parametrize("inside", ["-" * 100_000, "(" * 100_000, "{1:" * 50_000, "[" * 300_000])
def test_a_cell_made_to_break_a_parser_is_no_list(inside: str) -> None:
    assert as_list(f"[{inside}1]") is None


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, ""),
        ([{"type": "text", "text": "One."}, "Two.", {"text": "Three."}], "One.\nTwo.\nThree."),
        ({"type": "input_text", "text": "One."}, "One."),
    ],
)
def test_parts_of_text_are_joined_as_lines(content: Any, text: str) -> None:
    assert list(read_turns([{"role": "user", "content": content}], "messages")) == [Turn("user", text)]


@pytest.mark.parametrize(
    ("turn", "rule", "detail"),
    [
        ({"role": "tool", "content": "{}"}, "left_out_tools", ""),
        ({"role": "Function_Response", "content": "{}"}, "left_out_tools", ""),
        ({"role": "assistant", "content": None, "tool_calls": [{}]}, "left_out_tools", ""),
        ({"role": "assistant", "content": None, "function_call": {"name": "f"}}, "left_out_tools", ""),
        ({"role": "narrator", "content": "Meanwhile."}, "left_out_roles", "'narrator'"),
        ({"role": "user", "content": [{"type": "image_url", "text": "x"}]}, "left_out_parts", "'image_url'"),
        ({"role": "user", "content": [7]}, "left_out_parts", "'int'"),
        ({"role": "user", "content": 7}, "left_out_parts", "int"),
    ],
)
def test_what_no_text_can_be_is_left_out_by_its_rule(turn: dict[str, Any], rule: str, detail: str) -> None:
    with pytest.raises(LeftOutError) as caught:
        list(read_turns([LIST[0], turn], "messages"))
    assert (caught.value.rule, caught.value.detail) == (rule, detail)


def test_no_tool_calls_are_none() -> None:
    (turn,) = read_turns(
        [{"role": "assistant", "content": "Gout.", "tool_calls": [], "function_call": None}], "messages"
    )
    assert turn == Turn("assistant", "Gout.")


@pytest.mark.parametrize(
    ("marks", "learned"), [({"weight": 0}, False), ({"weight": 1}, True), ({"train": False}, False), ({}, True)]
)
def test_openais_weight_and_axolotls_train_mark_answers_alone(marks: dict[str, Any], learned: bool) -> None:
    turns = list(read_turns([{**turn, **marks} for turn in LIST], "messages"))
    assert [turn.learned for turn in turns] == [True, learned]

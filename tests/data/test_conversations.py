"""Conversations in the forms that people have: each read as turns, put right or left out, and told.

Broken orders stop other trainers in the chat template: https://github.com/unslothai/unsloth/issues/334
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medtune.config.schema import ColumnsSection
from medtune.data.conversations import Conversations, read_conversations
from medtune.data.sources import check_source
from medtune.errors import DataError
from medtune.records import QAPair, Turn
from row_files import read, refused, write, write_parquet

SYSTEM, ASK, SAY = ("system", "Be brief."), ("user", "What is gout?"), ("assistant", "Arthritis of a joint.")
AGAIN, MORE = ("user", "And how is it treated?"), ("assistant", "By rest and a medicine.")
TURNS = (Turn(*ASK), Turn(*SAY))


def messages(*turns: tuple[str, Any], role: str = "role", content: str = "content") -> list[dict[str, Any]]:
    return [{role: name, content: text} for name, text in turns]


def converse(*rows: dict[str, Any], **columns: str) -> Conversations:
    found = read_conversations(rows, ColumnsSection(**columns), "rows")
    assert found is not None
    return found


def last(found: Conversations) -> tuple[str, str]:
    return found.records[0]["Question"], found.records[0]["Answer"]


FORMS = {
    "messages": {"messages": messages(ASK, SAY, AGAIN, MORE)},
    "another case": {" Messages ": messages(ASK, SAY, AGAIN, MORE)},
    "ShareGPT": {
        "conversations": messages(
            ("human", ASK[1]), ("gpt", SAY[1]), ("human", AGAIN[1]), ("gpt", MORE[1]), role="from", content="value"
        )
    },
    "ShareGPT's other names": {
        "conversation": messages(
            ("user", ASK[1]), ("chatgpt", SAY[1]), ("User", AGAIN[1]), ("bard", MORE[1]), role="from", content="value"
        )
    },
    "prompt and completion": {"prompt": messages(ASK, SAY, AGAIN), "completion": messages(MORE)},
    "JSON in a cell": {"messages": json.dumps(messages(ASK, SAY, AGAIN, MORE))},
    "a list that pandas wrote": {"messages": str(messages(ASK, SAY, AGAIN, MORE))},
    "a table of lists": {
        "messages": {"role": ["user", "assistant"] * 2, "content": [text for _, text in (ASK, SAY, AGAIN, MORE)]}
    },
    "an object an exchange": {
        "conversation": [{"human": ASK[1], "assistant": SAY[1]}, {"human": AGAIN[1], "assistant": MORE[1]}]
    },
    "content in parts": {
        "messages": messages(ASK, SAY, ("user", [{"type": "text", "text": AGAIN[1]}]), MORE),
    },
}


@pytest.mark.parametrize("row", FORMS.values(), ids=FORMS)
def test_every_form_is_read_as_the_same_turns(row: dict[str, Any]) -> None:
    found = converse(row)
    assert last(found) == (AGAIN[1], MORE[1])
    assert found.turns == [TURNS]
    assert found.counts == {"conversations": 1, "answers_in_conversations": 2}


def test_a_system_turn_is_the_first_turn_and_is_told() -> None:
    found = converse({"messages": messages(("developer", "Be brief."), ASK, SAY)})
    assert found.turns == [(Turn("system", "Be brief."),)]
    assert found.lines == (
        "1 conversations in messages, 1 answers, 1 with a system turn of their own in place of data.system_prompt",
    )


def test_a_prompt_may_be_text_before_a_list() -> None:
    assert last(converse({"prompt": "Why?", "completion": messages(SAY)})) == ("Why?", SAY[1])


@pytest.mark.parametrize(
    ("turns", "exchange", "before", "rule"),
    [
        ((ASK, ("user", "Please."), SAY), ("What is gout?\n\nPlease.", SAY[1]), (), "joined_neighbours"),
        ((ASK, ASK, SAY), (ASK[1], SAY[1]), (), "joined_neighbours"),
        ((ASK, SAY, AGAIN), (ASK[1], SAY[1]), (), "cut_unanswered_end"),
        ((ASK, SAY, AGAIN, ("assistant", " ")), (ASK[1], SAY[1]), (), "cut_unanswered_end"),
        ((("assistant", "Hello."), ASK, SAY), (ASK[1], SAY[1]), (), "cut_opening_answer"),
        ((SYSTEM, ("assistant", "Hello."), ASK, SAY), (ASK[1], SAY[1]), (Turn(*SYSTEM),), "cut_opening_answer"),
    ],
)
def test_a_broken_order_is_put_right_where_that_is_unambiguous(turns, exchange, before, rule) -> None:
    found = converse({"messages": messages(*turns)})
    assert (last(found), found.turns) == (exchange, [before])
    assert found.counts[rule] == 1
    assert found.lines[-1].startswith("conversations changed: 1 with ")


def test_an_empty_system_turn_is_none() -> None:
    found = converse({"messages": messages(("system", ""), ASK, SAY)})
    assert found.turns == [()]
    assert found.counts == {"conversations": 1, "answers_in_conversations": 1}


@pytest.mark.parametrize(
    ("turns", "says"),
    [
        (messages(ASK), "1 with no question with an answer"),
        (messages(SAY), "1 with no question with an answer"),
        (messages(ASK, ("assistant", ""), AGAIN, MORE), "1 with an empty turn before the last"),
        (messages(("user", ""), SAY, AGAIN, MORE), "1 with an empty turn before the last"),
        (messages(ASK, SAY, SYSTEM, AGAIN, MORE), "1 with a system turn between others"),
        (messages(ASK, ("tool", "{}"), SAY), "1 with calls of tools"),
        (messages(ASK, ("function_call", "f()"), SAY), "1 with calls of tools"),
        ([*messages(ASK), {"role": "assistant", "content": None, "tool_calls": [{}]}], "1 with calls of tools"),
        (messages(ASK, ("narrator", "Meanwhile."), SAY), "1 with a role that is none of system, user and assistant "
         "('narrator')"),
        (messages(("user", [{"type": "image_url", "image_url": {}}]), SAY), "1 with a part that is no text "
         "('image_url')"),
        ("no list", "1 with no list of turns"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_put_right_is_left_out_with_its_reason(turns: Any, says: str) -> None:
    found = converse({"messages": messages(ASK, SAY)}, {"messages": turns})
    assert len(found.records) == 1
    assert found.lines[-1] == f"conversations left out: {says}"
    with pytest.raises(DataError) as caught:
        read_conversations([{"messages": turns}], ColumnsSection(messages="messages"), "rows")
    assert str(caught.value) == (
        f"rows: none of its 1 conversations can be read: {says}; medtune reads turns of system, user and assistant, "
        "each a text"
    )


@pytest.mark.parametrize("inside", ["-" * 100_000, "(" * 100_000, "{1:" * 50_000, "not " * 100_000, "[" * 300_000])
def test_a_cell_made_to_break_a_parser_is_no_list(inside: str) -> None:
    assert read_conversations([{"messages": f"[{inside}1]"}], ColumnsSection(), "rows") is None


def test_answers_of_weight_0_are_read_and_not_learned() -> None:
    """OpenAI's `weight` and axolotl's `train`."""
    turns = messages(ASK, SAY, AGAIN, MORE)
    turns[1]["weight"] = 0
    assert [turn.learned for turn in converse({"messages": turns}).turns[0]] == [True, False]
    turns[3]["train"] = False
    with pytest.raises(DataError, match="no question with an answer"):
        converse({"messages": turns})


@pytest.mark.parametrize(
    "row",
    [
        {"Question": "q", "Answer": "a", "messages": messages(ASK, SAY)},
        {"question": "q", "answer": "a"},
        {"prompt": "q", "completion": "a"},
        {"chat": "User: hello"},
        {"messages": None},
    ],
)
def test_columns_of_questions_and_answers_are_no_conversations(row: dict[str, Any]) -> None:
    assert read_conversations([row], ColumnsSection(), "rows") is None


def test_a_column_of_another_name_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", json.dumps({"talk": messages(ASK, SAY)}))
    assert read(path, ColumnsSection(messages="Talk")).pairs[0].question == ASK[1]
    assert refused(path, ColumnsSection(messages="talks")) == (
        "no column 'talks'; it has talk; name yours with --set data.columns.messages=…"
    )


def test_labels_stay_and_ids_are_of_all_turns(tmp_path: Path) -> None:
    rows = [
        {"messages": messages(ASK, SAY, AGAIN, MORE), "qtype": "treatment", "focus": "gout"},
        {"messages": messages(("user", "What is flu?"), SAY, AGAIN, MORE), "qtype": "treatment", "focus": "flu"},
    ]
    path = write(tmp_path / "rows.jsonl", "\n".join(map(json.dumps, rows)))
    first, second = read(path).pairs
    assert first == QAPair(first.id, "treatment", AGAIN[1], MORE[1], focus="gout", turns=TURNS)
    assert first.id[:12] != second.id[:12]
    check_source(str(path), columns=ColumnsSection())


def test_lists_of_a_parquet_file(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "rows.parquet", {"messages": [messages(ASK, SAY, AGAIN, MORE)]})
    assert read(path).pairs[0].turns == TURNS

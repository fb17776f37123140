"""Markup in rows: found, removed or kept, counted, and told.

Sets whose answers bring an end token of their own are common: https://github.com/hiyouga/LlamaFactory/issues/420
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from medtune.data.cleaning import clean_pairs
from medtune.data.row_markup import RowMarkup, find_markup
from medtune.records import QAPair, Turn

PLAIN = QAPair("plain", "causes", "What is gout ?", "A painful arthritis of the joints.")
ANSWER = PLAIN.answer


def found(answer: str, question: str = PLAIN.question, **keys: Any) -> RowMarkup:
    settings: dict[str, Any] = {"markup": "remove", "html": "text"} | keys
    return find_markup([replace(PLAIN, question=question, answer=answer), PLAIN], **settings)


@pytest.mark.parametrize(
    ("answer", "counts"),
    [
        (f"{ANSWER}<|eot_id|>", {"end_tokens_removed": 1}),
        (f"<think>\n\n</think>\n\n{ANSWER}", {"reasoning_removed": 1}),
        (f"### Response:\n{ANSWER}</s>", {"end_tokens_removed": 1, "role_markers_removed": 1}),
        (f"Assistant: {ANSWER}", {"role_markers_removed": 1}),
        (f"<p>{ANSWER}</p>", {"html_to_text": 1}),
        (f"<p>{ANSWER}&lt;|im_end|&gt;</p>", {"end_tokens_removed": 1, "html_to_text": 1}),
        (f"{ANSWER}</s><s>[INST] Why ?", {"end_tokens_removed": 1, "cut_at_end_token": 1}),
        (f"[INST] {PLAIN.question} [/INST] {ANSWER}", {"written_out_prompts_removed": 1}),
    ],
)
def test_markup_is_removed_and_counted_by_kind(answer: str, counts: dict[str, int]) -> None:
    result = found(answer)
    assert result.counts == counts
    row, plain = result.pairs
    assert (row.answer, row.raw_answer, row.raw_question) == (ANSWER, answer, PLAIN.question)
    assert plain is PLAIN


def test_it_is_kept_and_counted_where_that_is_asked_for() -> None:
    answer = f"<p>{ANSWER}</p></s>"
    result = found(answer, markup="keep", html="keep")
    assert result.pairs[0].answer == answer
    assert result.counts == {"end_tokens_kept": 1, "html_kept": 1}
    assert result.lines == (
        "not text of their own: end tokens in 1 row; learned as plain text; --set data.markup=remove leaves them out",
        "HTML in 1 row is kept; --set data.html=text makes it plain text",
    )


def test_each_kind_is_told_in_a_line() -> None:
    assert found(f"<think>a</think><p>{ANSWER}</p></s>User: more").lines == (
        "not text of their own: end tokens in 1 row, reasoning in 1 row; left out of what is learned and measured; "
        "--set data.markup=keep keeps them",
        "1 row had more text behind an end token, which is left out",
        "HTML in 1 row made plain text, paragraphs and list items as lines; --set data.html=keep keeps it",
    )
    assert find_markup([PLAIN], "remove", "text") == RowMarkup([PLAIN], {}, ())


def test_questions_and_turns_are_looked_at_too() -> None:
    turns = (Turn("system", "Be kind.</s>"), Turn("user", "User: Hello?"), Turn("assistant", "<think>a</think>Yes."))
    (row,) = find_markup([replace(PLAIN, question="[INST] Why ? [/INST]", turns=turns)], "remove", "text").pairs
    assert row.question == "Why ?"
    assert [turn.content for turn in row.turns] == ["Be kind.", "Hello?", "Yes."]


@pytest.mark.parametrize("answer", ["<think>The cap cut it", "</s>", "<p></p>", "<think>\n</think>"])
def test_a_row_of_nothing_else_is_dropped_as_empty_with_its_raw_text(answer: str) -> None:
    cleaned = clean_pairs(found(answer).pairs)
    assert [(rule, pair.id, pair.raw_answer) for rule, pair in cleaned.dropped] == [("dropped_empty", "plain", answer)]


def test_a_conversation_with_an_emptied_turn_is_dropped() -> None:
    turns = (Turn("user", "Hello?"), Turn("assistant", "<think>never closed"))
    cleaned = clean_pairs(find_markup([replace(PLAIN, turns=turns)], "remove", "text").pairs)
    assert cleaned.counts["dropped_empty"] == 1

"""What is left of an answer or a question once reasoning, prompts, role markers and end tokens are out of it."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtune.data.markup import separate_answer, separate_question

QUESTION = "What is gout?"
LLAMA = (
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe careful.<|eot_id|><|start_header_id|>user"
    f"<|end_header_id|>\n\n{QUESTION}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
)
CHATML = f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"


# Answers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "answer", "kinds"),
    [
        ("<think>\n\n</think>\n\nGout hurts.", "Gout hurts.", {"reasoning"}),
        ("<think>Uric acid?</think>Gout hurts.", "Gout hurts.", {"reasoning"}),
        ("<THINKING>a</THINKING> Gout <think>b</think>hurts.", "Gout hurts.", {"reasoning"}),
        ("<think>The cap cut it", "", {"reasoning"}),
        ("The prompt opened it.</think>\n\nGout hurts.", "Gout hurts.", {"reasoning"}),
        ("analysisThe user asks.assistantfinalGout hurts.", "Gout hurts.", {"reasoning"}),
        ("Gout hurts.<|eot_id|>", "Gout hurts.", {"end token"}),
        ("Gout hurts.</s></s><pad>", "Gout hurts.", {"end token"}),
        ("</s></s>Gout hurts.", "Gout hurts.", {"end token"}),
        ("Gout hurts.<end_of_turn>\n<start_of_turn>user\nWhy?", "Gout hurts.", {"end token"}),
        ("Gout hurts.<\uff5cend\u2581of\u2581sentence\uff5c>", "Gout hurts.", {"end token"}),
        (f"{QUESTION} Gout hurts.", "Gout hurts.", {"prompt"}),
        (f"{QUESTION}\n\n{QUESTION}\nGout hurts.", "Gout hurts.", {"prompt"}),
        (f"Question: {QUESTION}\nAnswer: Gout hurts.", "Gout hurts.", {"prompt", "role marker"}),
        (QUESTION, "", {"prompt"}),
        (f"{LLAMA}Gout hurts.<|eot_id|>", "Gout hurts.", {"prompt", "end token"}),
        (f"{CHATML}<think>\n\n</think>\n\nGout hurts.<|im_end|>", "Gout hurts.", {"prompt", "end token", "reasoning"}),
        (f"<s>[INST] {QUESTION} [/INST] Gout hurts.</s>", "Gout hurts.", {"prompt", "end token"}),
        (f"system\n\nBe careful.user\n\n{QUESTION}assistant\n\nGout hurts.", "Gout hurts.", {"prompt"}),
        ("assistant: Gout hurts.", "Gout hurts.", {"role marker"}),
        ("**Answer:** Gout hurts.", "Gout hurts.", {"role marker"}),
        ("### Response:\nGout hurts.", "Gout hurts.", {"role marker"}),
        ("assistant\n\nGout hurts.", "Gout hurts.", {"role marker"}),
        ("<|start_header_id|>assistant<|end_header_id|>\n\nGout hurts.", "Gout hurts.", {"role marker"}),
        ("<start_of_turn>model\nGout hurts.", "Gout hurts.", {"role marker"}),
    ],
)
def test_what_is_not_the_answer_is_left_out(text: str, answer: str, kinds: set[str]) -> None:
    assert separate_answer(text, QUESTION) == (answer, kinds)


@pytest.mark.parametrize(
    "text",
    [
        "Gout hurts.",
        "  Gout hurts.\n",
        "",
        "Gout: what is gout?",
        "They asked: What is gout? Gout hurts.",
        "The answer: rest.",
        "An assistant: a helper.",
        "Answer",
        "I think <1 mg/dL> helps, and > 5 does not.",
        "Take it thrice.\nAnswer: yes.",
    ],
)
def test_an_answer_alone_stays_to_the_last_blank(text: str) -> None:
    assert separate_answer(text, QUESTION) == (text, frozenset())


def test_a_term_that_was_asked_for_may_begin_the_answer() -> None:
    assert separate_answer("Gout is a disease.", "Gout") == ("Gout is a disease.", frozenset())
    assert separate_answer("Gout\n\nA disease.", "Gout") == ("A disease.", {"prompt"})
    assert separate_answer("Gout: a disease.", "Gout") == ("a disease.", {"prompt"})


MARKS = ["<think>", "</think>", "<|eot_id|>", "</s>", "<s>", "<|im_start|>user\n", "assistant:"]
PIECES = [*MARKS, QUESTION, "Gout.", "\n"]


@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
def test_what_is_left_is_an_answer(text: str) -> None:
    answer, kinds = separate_answer(text, QUESTION)
    assert len(answer) <= len(text)
    assert (answer == text) == (not kinds)
    assert separate_answer(answer, QUESTION) == (answer, frozenset())


@pytest.mark.parametrize("end", ["", "\n", " a"])
@pytest.mark.parametrize("piece", [*MARKS, "user", "*", QUESTION])
def test_a_text_of_nothing_else_takes_no_time(piece: str, end: str) -> None:
    began = time.monotonic()
    separate_answer(f"{piece}{end}" * 50_000, QUESTION)
    assert time.monotonic() - began < 5


# Questions -----------------------------------------------------------------------------------------------------------

ALPACA = "Below is an instruction that describes a task. Write a response that appropriately completes the request."


@pytest.mark.parametrize(
    ("text", "question", "kinds"),
    [
        ("What is gout?</s>", QUESTION, {"end token"}),
        ("<|begin_of_text|>What is gout?<|eot_id|>", QUESTION, {"end token"}),
        ("<s>[INST] What is gout? [/INST]", QUESTION, {"end token", "role marker"}),
        (CHATML, QUESTION, {"end token", "role marker"}),
        ("<start_of_turn>user\nWhat is gout?<end_of_turn>\n", QUESTION, {"end token", "role marker"}),
        (f"{ALPACA}\n\n### Instruction:\nWhat is gout?\n\n### Response:", QUESTION, {"role marker"}),
        ("### Question: What is gout?\n### Answer:\n", QUESTION, {"role marker"}),
        ("User: What is gout?\nAssistant:", QUESTION, {"role marker"}),
        ("**Question:** What is gout?", QUESTION, {"role marker"}),
        ("[INST] <<SYS>>\nBe brief.\n<</SYS>>\nWhat is gout? [/INST]", "Be brief.\n\n\nWhat is gout?", {"role marker"}),
        ("</s>", "", {"end token"}),
    ],
)
def test_the_marks_of_a_chat_are_left_out_of_a_question(text: str, question: str, kinds: set[str]) -> None:
    assert separate_question(text) == (question, kinds)


@pytest.mark.parametrize(
    "text", ["", " What is gout?\n", "Is <5 mg/dL low?", "What may the user: ask?", "An answer: yes?"]
)
def test_a_question_alone_stays_to_the_last_blank(text: str) -> None:
    assert separate_question(text) == (text, frozenset())


@pytest.mark.parametrize(
    "piece", [*MARKS, "### ", "[INST]", "*", "\n", "below is an instruction that describes a task"]
)
def test_a_question_of_nothing_else_takes_no_time(piece: str) -> None:
    began = time.monotonic()
    separate_question(piece * 20_000)
    assert time.monotonic() - began < 5

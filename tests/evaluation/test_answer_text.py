"""What is left of a text once reasoning, prompts, role markers and end tokens are out of it."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtune.data.prompts import PromptRenderer
from medtune.evaluation.answer_text import Separated, separate_answer, separate_rows
from medtune.records import Prediction, QAPair
from tiny_model import build_tokenizer

QUESTION = "What is gout?"
LLAMA = (
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe careful.<|eot_id|><|start_header_id|>user"
    f"<|end_header_id|>\n\n{QUESTION}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
)
CHATML = f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
# Qwen 3 writes a thought before each answer, an empty one where the row has none, and nothing after its prompt.
QWEN_3 = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}<think>\n\n</think>\n\n"
    "{% endif %}{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


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


def test_an_empty_thought_of_the_template_is_no_part_of_what_a_tuned_model_says() -> None:
    """Training rows of such a template have it behind the prompt: the tuned model writes it, and the base does not."""
    tokenizer = build_tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], QWEN_3, eos_token="<|im_end|>")
    renderer = PromptRenderer(tokenizer)
    (row,) = renderer.encode_pairs([QAPair("1", "", QUESTION, "Gout hurts.")])
    learned = tokenizer.decode(row.input_ids[row.prompt_length :], skip_special_tokens=True)
    assert learned == "<think>\n\n</think>\n\nGout hurts."
    assert separate_answer(learned, QUESTION) == ("Gout hurts.", {"reasoning"})


def test_rows_and_their_counts() -> None:
    rows = [
        Prediction("1", QUESTION, f"{QUESTION} Gout hurts.", "<think></think>It hurts.</s>"),
        Prediction("2", QUESTION, "Pain.", "Pain.</s>", references=("Pain.", "Answer: Ache.")),
        Prediction("3", QUESTION, QUESTION, "Pain."),
    ]
    separated = separate_rows(rows)
    assert [row.prediction for row in separated.rows] == ["It hurts.", "Pain.", "Pain."]
    # A reference is never empty.
    assert [row.all_references for row in separated.rows] == [("Gout hurts.",), ("Pain.", "Ache."), (QUESTION,)]
    assert [row.references for row in separated.rows] == [(), ("Pain.", "Ache."), ()]
    assert separated.details == {
        "not_answer": {
            "answers": {"reasoning": 1, "end token": 2},
            "references": {"prompt": 1, "role marker": 1},
        }
    }


def test_nothing_is_said_of_answers_alone() -> None:
    rows = [Prediction("1", QUESTION, "Gout hurts.", " It hurts.\n")]
    assert separate_rows(rows).rows == rows
    assert separate_rows(rows).details == Separated(rows).details == {}

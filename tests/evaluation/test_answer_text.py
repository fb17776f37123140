"""What is left of a text once reasoning, prompts, role markers and end tokens are out of it."""

from __future__ import annotations

from medtune.data.markup import separate_answer
from medtune.data.prompts import PromptRenderer
from medtune.evaluation.answer_text import Separated, separate_rows
from medtune.records import Prediction, QAPair
from tiny_model import build_tokenizer

QUESTION = "What is gout?"
# Qwen 3 writes a thought before each answer, an empty one where the row has none, and nothing after its prompt.
QWEN_3 = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}<think>\n\n</think>\n\n"
    "{% endif %}{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


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

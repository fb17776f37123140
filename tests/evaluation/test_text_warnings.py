from __future__ import annotations

from typing import Any

from comparisons import compare
from medtune.evaluation.comparison_sentences import reading_of
from medtune.evaluation.text_warnings import text_warnings
from medtune.records import Prediction, Score


def score(**details: Any) -> Score:
    return Score(1.0, 4, "one way", 4, None, details=details)


def test_scores_of_plain_answers_need_no_word() -> None:
    assert text_warnings({"the baseline": {"bleu": score(precisions=[1, 1, 1, 1])}}) == []
    assert text_warnings({}) == []


def test_letters_that_no_tokenizer_read() -> None:
    def unread(tokenizer: str) -> Score:
        return score(tokenizer=tokenizer, share_of_letters_unread=0.99)

    scores = {
        "bleu": unread("intl"),
        "rouge1": unread("a-z0-9"),
        "compat_bleu": unread("13a"),
        "compat_rouge1": unread("a-z0-9"),
        "compat_rouge2": unread("a-z0-9"),
    }
    lost = "99% of the letters in the references are beyond the"
    # Once, since all systems have the same references.
    assert text_warnings({"the baseline": scores, "the tuned model": scores}) == [
        f"Warning: do not go by bleu: {lost} tokenizer intl; set evaluation.bleu_tokenizer to auto.",
        f"Warning: do not go by rouge1: {lost} tokenizer a-z0-9; set evaluation.rouge_tokenizer to unicode-words.",
        f"Warning: do not go by compat_bleu, compat_rouge1 and compat_rouge2: {lost} tokenizers 13a and a-z0-9; "
        "write-ups in English use no other.",
    ]


def test_a_package_that_is_not_installed() -> None:
    assert text_warnings({"": {"bleu": score(tokenizer_not_installed="ko-mecab")}}) == [
        "Warning: bleu compares characters and not words, because ko-mecab is not installed; "
        "`pip install 'sacrebleu[ko]'` and evaluate all again."
    ]


def test_text_that_was_no_answer() -> None:
    def found(answers: dict[str, int], references: dict[str, int]) -> dict[str, Score]:
        return {"bleu": score(not_answer={"answers": answers, "references": references})}

    systems = {
        "the baseline": found({"reasoning": 1200, "end token": 1}, {"prompt": 1}),
        "the tuned model": found({}, {"prompt": 1}),
        "the control random_answer": found({"prompt": 2}, {"prompt": 1}),
    }
    assert text_warnings(systems) == [
        "Warning: text that is not the answer was left out before scoring: reasoning in 1,200 answers and end token in "
        "1 answer of the baseline; prompt in 2 answers of the control random_answer; prompt in 1 reference. "
        "The files of predictions keep it."
    ]
    assert text_warnings({"": found({"reasoning": 1}, {})}) == [
        "Warning: text that is not the answer was left out before scoring: reasoning in 1 answer. The files of "
        "predictions keep it."
    ]


def test_a_comparison_tells_them() -> None:
    rows = [Prediction(str(number), "Q?", "Подагра вызывает боль.", "<think></think>Боль.") for number in range(4)]
    warnings = reading_of(compare(rows, rows, metrics=["rouge1"])).warnings
    assert any("do not go by compat_rouge1" in warning for warning in warnings)
    both = "reasoning in 4 answers of the baseline; reasoning in 4 answers of the tuned model."
    assert any(both in warning for warning in warnings)

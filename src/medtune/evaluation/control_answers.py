"""Controls: answers to the same questions without tuning, which the tuned model has to beat.

Overlap scores reward the references' register, and a training answer about another disease has that register. A tuned
model that scores no higher than such an answer has learned how answers sound.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import islice

from medtune.data.prompts import PromptRenderer
from medtune.data.splits import seeded_order
from medtune.errors import DataError
from medtune.records import ControlName, Prediction, QAPair

DESCRIPTIONS: Mapping[ControlName, str] = {
    "few_shot": "the untouched base model with three worked examples of the same question type in its prompt",
    "random_answer": "a random training answer of the same question type",
    "nearest_question": "the answer of the nearest training question of the same type (TF-IDF)",
    "cut_reference": "the reference answer itself, cut at the cap",
}
# Not a rival, but the score of a perfect answer under the cap.
CEILING: ControlName = "cut_reference"
EXAMPLES = 3


def random_answers(train: Sequence[QAPair], test: Sequence[QAPair], seed: int) -> list[str]:
    """For each test row the answer of a random training row of its question type, or of any where there is none."""
    by_type = _by_type(train)
    return [_from_random_place(by_type, row, seed)[0].answer for row in test]


def nearest_answers(train: Sequence[QAPair], test: Sequence[QAPair]) -> list[str]:
    """For each test row the answer of the training question of its type that is nearest by TF-IDF cosine.

    Words and pairs of words, weighted over the training questions; of several as near, the first in a fixed order.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    by_type = _by_type(train)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    try:
        vectorizer.fit([row.question for row in train])
    except ValueError:  # not one word in all questions
        fix = "leave nearest_question out of evaluation.controls"
        raise DataError("the training questions hold no words", fix=fix) from None
    vectors = {qtype: vectorizer.transform([row.question for row in rows]) for qtype, rows in by_type.items()}
    questions = vectorizer.transform([row.question for row in test])
    answers = []
    for place, row in enumerate(test):
        key = row.qtype if row.qtype in by_type else ""
        similarity = (vectors[key] @ questions[place].T).toarray().ravel()
        answers.append(by_type[key][int(similarity.argmax())].answer)
    return answers


def worked_examples(
    train: Sequence[QAPair],
    test: Sequence[QAPair],
    *,
    turn_tokens: Callable[[QAPair], int | None],
    room: Mapping[str, float],
    seed: int,
) -> dict[str, list[QAPair]]:
    """For each test row's id up to three random training rows of its type, none of its own group.

    `turn_tokens` gives the tokens that a training row takes in a prompt, None if it cannot be an example. `room` maps a
    test row's id to the tokens that its examples may take together; each gets a third of it at the most.
    """
    eligible = _by_type([row for row in train if turn_tokens(row) is not None])
    chosen: dict[str, list[QAPair]] = {}
    for row in test:
        share = room[row.id] / EXAMPLES
        others = (
            other
            for other in _from_random_place(eligible, row, seed)
            if (not row.group or other.group != row.group) and (turn_tokens(other) or 0) <= share
        )
        chosen[row.id] = list(islice(others, EXAMPLES))
    return chosen


def _by_type(rows: Sequence[QAPair]) -> dict[str, list[QAPair]]:
    """Rows of each question type, shuffled; under the empty name all of them."""
    by_type: dict[str, list[QAPair]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: seeded_order(0, row.id)):
        by_type[""].append(row)
        if row.qtype:
            by_type[row.qtype].append(row)
    return dict(by_type)


def _from_random_place(by_type: Mapping[str, list[QAPair]], row: QAPair, seed: int) -> list[QAPair]:
    """Shuffled rows of the type of `row`, or of any where there is none, from a place that depends on it and `seed`."""
    rows = by_type.get(row.qtype) or by_type.get("", [])
    start = int.from_bytes(seeded_order(seed, row.id)[:8]) % max(1, len(rows))
    return [*rows[start:], *rows[:start]]


def tokens_as_examples(renderer: PromptRenderer, pairs: Sequence[QAPair], cap: int) -> dict[QAPair, int | None]:
    """How many tokens each row takes as a worked example; None where its answer is longer than the cap allows."""
    word = QAPair("", "", "a", "a")
    overhead = len(renderer.prompt_ids("a", [word])) - len(renderer.prompt_ids("a"))
    questions = renderer.count_tokens([pair.question for pair in pairs])
    answers = renderer.count_tokens([pair.answer for pair in pairs])
    return {
        pair: None if answer >= cap else overhead + question + answer
        for pair, question, answer in zip(pairs, questions, answers, strict=True)
    }


def room_for_examples(
    renderer: PromptRenderer, pairs: Sequence[QAPair], cap: int, positions: int | None
) -> dict[str, float]:
    """Tokens that each question leaves for worked examples, beside the longer of its reference and the cap.

    `positions` is how many tokens the model can read; None where that is not known.
    """
    if positions is None:
        return dict.fromkeys((pair.id for pair in pairs), math.inf)
    prompts = renderer.prompts([pair.question for pair in pairs])
    answers = renderer.count_tokens([pair.answer for pair in pairs])
    return {
        pair.id: positions - len(prompt) - max(cap, answer + 1)
        for pair, prompt, answer in zip(pairs, prompts, answers, strict=True)
    }


def capped_answers(
    renderer: PromptRenderer, pairs: Sequence[QAPair], texts: Sequence[str], cap: int
) -> list[Prediction]:
    """`texts` as answers to `pairs`, cut at `cap` tokens, the end token included, as a model's answers are."""
    counts = renderer.count_tokens(texts)
    return [
        Prediction(
            id=pair.id,
            question=pair.question,
            reference=pair.answer,
            prediction=text if tokens < cap else renderer.cut_to(text, cap),
            new_tokens=min(tokens + 1, cap),
            finish_reason="stop" if tokens < cap else "length",
            group=pair.group,
            qtype=pair.qtype,
        )
        for pair, text, tokens in zip(pairs, texts, counts, strict=True)
    ]

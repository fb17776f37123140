"""Controls: other answers to the same questions, nearly all without tuning, which the tuned model has to beat.

Overlap scores reward the references' register, and a training answer about another disease has that register. A tuned
model that scores no higher than such an answer has learned how answers sound. And whoever has training answers can look
the nearest ones up instead of tuning, or as well.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from medtune.config.schema import Config
from medtune.data.prompts import PromptRenderer
from medtune.data.splits import seeded_order
from medtune.data.turns import all_exchanges
from medtune.evaluation.nearest_questions import NearestQuestions, rows_by_type
from medtune.records import ControlName, Prediction, QAPair

DESCRIPTIONS: Mapping[ControlName, str] = {
    "few_shot": "the untouched base model with three worked examples of the same question type in its prompt",
    "random_answer": "a random training answer of the same question type",
    "nearest_question": "the answer of the nearest training question of the same type (TF-IDF)",
    "cut_reference": "the reference answer itself, cut at the cap",
    "retrieval": "the untouched base model with the nearest training questions and their answers in its prompt",
    "tuned_retrieval": "the tuned model with the nearest training questions and their answers in its prompt",
}
# Not a rival, but the score of a perfect answer under the cap.
CEILING: ControlName = "cut_reference"
# Not a rival either: the tuned model itself, with more in its prompt.
ON_TOP: ControlName = "tuned_retrieval"
# Those that a model writes, after worked examples in its prompt.
WRITTEN: frozenset[ControlName] = frozenset({"few_shot", "retrieval", "tuned_retrieval"})
EXAMPLES = 3


def random_answers(train: Sequence[QAPair], test: Sequence[QAPair], seed: int) -> list[str]:
    """For each test row the answer of a random training row of its question type, or of any where there is none."""
    by_type = rows_by_type(train)
    return [_from_random_place(by_type, row, seed)[0].answer for row in test]


def nearest_answers(nearest: NearestQuestions, test: Sequence[QAPair]) -> list[str]:
    """For each test row the answer of the training question of its type that is nearest by TF-IDF cosine."""
    return [next(nearest.ranked(row)).answer for row in test]


def most_examples(name: ControlName, config: Config) -> int:
    """How many worked examples a question of this control gets, where they fit."""
    return EXAMPLES if name == "few_shot" else config.evaluation.retrieved


def examples_for(
    name: ControlName,
    nearest: NearestQuestions,
    test: Sequence[QAPair],
    *,
    turn_tokens: Callable[[QAPair], int | None],
    room: Mapping[str, float],
    config: Config,
) -> dict[str, list[QAPair]]:
    """The worked examples of this control: `worked_examples`, or the `nearest_examples`."""
    if name == "few_shot":
        return worked_examples(nearest.train, test, turn_tokens=turn_tokens, room=room, seed=config.seed)
    return nearest_examples(nearest, test, turn_tokens=turn_tokens, room=room, most=config.evaluation.retrieved)


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
    eligible = rows_by_type([row for row in train if turn_tokens(row) is not None])
    chosen = {}
    for row in test:
        share = room[row.id] / EXAMPLES
        candidates = (other for other in _from_random_place(eligible, row, seed) if (turn_tokens(other) or 0) <= share)
        chosen[row.id] = _first_that_fit(candidates, row, turn_tokens, room[row.id], EXAMPLES)
    return chosen


def nearest_examples(
    nearest: NearestQuestions,
    test: Sequence[QAPair],
    *,
    turn_tokens: Callable[[QAPair], int | None],
    room: Mapping[str, float],
    most: int,
) -> dict[str, list[QAPair]]:
    """For each test row's id up to `most` of the nearest training rows of its type, none of its own group.

    The nearest comes last, next to the question, and is the first to get room: one that takes more than is left makes
    way for the next. `turn_tokens` and `room` are those of `worked_examples`.
    """
    return {row.id: _first_that_fit(nearest.ranked(row), row, turn_tokens, room[row.id], most)[::-1] for row in test}


def _first_that_fit(
    candidates: Iterable[QAPair], row: QAPair, turn_tokens: Callable[[QAPair], int | None], room: float, most: int
) -> list[QAPair]:
    """The first candidates of other groups than that of `row` that can be examples, and fit in `room` together."""
    chosen: list[QAPair] = []
    for other in candidates:
        if len(chosen) == most:
            break
        tokens = turn_tokens(other)
        if tokens is not None and tokens <= room and not (row.group and other.group == row.group):
            chosen.append(other)
            room -= tokens
    return chosen


def _from_random_place(by_type: Mapping[str, list[QAPair]], row: QAPair, seed: int) -> list[QAPair]:
    """Shuffled rows of the type of `row`, or of any where there is none, from a place that depends on it and `seed`."""
    rows = by_type.get(row.qtype) or by_type.get("", [])
    start = int.from_bytes(seeded_order(seed, row.id)[:8]) % max(1, len(rows))
    return [*rows[start:], *rows[:start]]


def tokens_as_examples(renderer: PromptRenderer, pairs: Sequence[QAPair], cap: int) -> dict[QAPair, int | None]:
    """How many tokens each row takes as a worked example; None where its answer is longer than the cap allows.

    A conversation is an example as a whole, less its system turn.
    """
    counted = iter(renderer.count_tokens([text for pair in pairs for texts in all_exchanges(pair) for text in texts]))
    tokens: dict[QAPair, int | None] = {}
    for pair in pairs:
        exchanges = [(next(counted), next(counted)) for _ in all_exchanges(pair)]
        total = len(exchanges) * renderer.exchange_tokens + sum(map(sum, exchanges))
        tokens[pair] = None if exchanges[-1][1] >= cap else total
    return tokens


def room_for_examples(
    renderer: PromptRenderer, pairs: Sequence[QAPair], cap: int, positions: int | None
) -> dict[str, float]:
    """Tokens that each question leaves for worked examples, beside the longer of its reference and the cap.

    `positions` is how many tokens the model can read; None where that is not known.
    """
    if positions is None:
        return dict.fromkeys((pair.id for pair in pairs), math.inf)
    prompts = renderer.pair_prompts(pairs)
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
            references=pair.references,
        )
        for pair, text, tokens in zip(pairs, texts, counts, strict=True)
    ]

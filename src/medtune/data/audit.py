"""The audit of a data set and its split: counts, lengths, duplicates, conflicts, leakage and truncation."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from medtune.config.schema import Config
from medtune.data.cleaning import normalize_question
from medtune.data.leakage import Leakage, deal_again, leakage_table, leaking_test_rows
from medtune.data.prepare import Prepared
from medtune.data.splits import PARTS, TEMPLATE_QUESTIONS, TEMPLATE_TOPICS, focus_key
from medtune.records import QAPair, Split

VERSION = 1
LENGTH_CAPS = (128, 256, 512, 1024)
EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Truncation:
    """What `max_length` does to the training rows under `policy`.

    `cut` and `dropped` count rows, `no_room` those whose prompt alone is too long, `tokens` all tokens of the training
    rows, and `tokens_lost` those of their answers that training will not see.
    """

    max_length: int
    policy: str
    rows: int
    cut: int
    dropped: int
    no_room: int
    tokens: int
    tokens_lost: int


@dataclass(frozen=True, slots=True)
class TokenLengths:
    """Lengths in tokens of `tokenizer`, one of each kind for every row that cleaning kept, in order.

    `rows` are whole rows as `row_is` says: prompt, answer and end token of a chat model, or question and answer.
    """

    tokenizer: str
    row_is: str
    questions: list[int]
    answers: list[int]
    rows: list[int]
    truncation: Truncation


def audit_rows(prepared: Prepared, lengths: TokenLengths, config: Config) -> dict[str, Any]:
    """Everything that `data/audit.json` says, in plain values.

    Counts are of all rows that cleaning kept; leakage is that of the split as it is trained on, `data.train_limit`
    included, beside a random one of the same rows and sizes.
    """
    rows, split = prepared.rows, prepared.split
    leakage = Leakage(rows, prepared.similar)
    dealt = deal_again(split, config.seed)
    return {
        "version": VERSION,
        "source": prepared.provenance["source"],
        "cleaning": {name: prepared.report[name] for name in ("source", "test_source") if name in prepared.report},
        "split": {**prepared.report["split"], "rows": prepared.report["rows"], "types": _types(split)},
        "counts": _counts(rows),
        "duplicates": _duplicates(prepared),
        "conflicting_answers": _conflicts(rows),
        "lengths": _lengths(lengths, config),
        "truncation": asdict(lengths.truncation),
        "leakage": leakage_table(leakage, split, dealt),
        "leaking_test_rows": leaking_test_rows(leakage, split),
    }


def _counts(rows: Sequence[QAPair]) -> dict[str, Any]:
    groups = Counter(pair.group for pair in rows)
    return {
        "rows": len(rows),
        "questions": len({pair.question for pair in rows}),
        "questions_normalized": len({normalize_question(pair.question) for pair in rows}),
        "answers": len({pair.answer for pair in rows}),
        "documents": len({pair.document_id for pair in rows} - {""}),
        "focuses": len({focus_key(pair.focus) for pair in rows} - {""}),
        "rows_without_focus": sum(not pair.focus for pair in rows),
        "groups": len(groups),
        "largest_group": max(groups.values()),
        "types": _tally(pair.qtype for pair in rows),
        "sources": _tally(pair.source for pair in rows if pair.source),
    }


def _types(split: Split) -> dict[str, dict[str, int]]:
    return {part: _tally(pair.qtype for pair in getattr(split, part)) for part in PARTS}


def _tally(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))


def _duplicates(prepared: Prepared) -> dict[str, Any]:
    rows, similar = prepared.rows, prepared.similar
    near = similar.neighbours()
    copies = Counter(similar.answer_of)
    alike = [answer in near or copies[answer] > 1 for answer in similar.answer_of]
    questions = _gather((pair.answer, normalize_question(pair.question)) for pair in rows)
    several = [asked for asked in questions.values() if len(asked) > 1]
    return {
        "rows_dropped": sum(rule == "dropped_duplicate" for rule, _ in prepared.dropped),
        "answers_to_several_questions": len(several),
        "most_questions_of_one_answer": max(map(len, questions.values())),
        "rows_with_near_duplicate_answer": sum(alike),
        "share_with_near_duplicate_answer": round(sum(alike) / len(rows), 4),
        "template_rows": sum(pair.template for pair in rows),
        "template_rule": f"{TEMPLATE_TOPICS} topics, or {TEMPLATE_QUESTIONS} questions",
    }


def _conflicts(rows: Sequence[QAPair]) -> dict[str, Any]:
    answers = _gather((normalize_question(pair.question), pair.answer) for pair in rows)
    several = {question: given for question, given in answers.items() if len(given) > 1}
    ids = defaultdict(list)
    for pair in rows:
        if (question := normalize_question(pair.question)) in several:
            ids[question].append(pair)
    most = sorted(several, key=lambda question: (-len(several[question]), question))
    examples = [(ids[question], len(several[question])) for question in most[:EXAMPLES]]
    exact = _gather((pair.question, pair.answer) for pair in rows)
    return {
        "questions": len(several),
        "questions_exact": sum(len(given) > 1 for given in exact.values()),
        "rows": sum(map(len, ids.values())),
        "most_answers": max(map(len, several.values()), default=0),
        "examples": [
            {"question": pairs[0].question, "answers": count, "ids": sorted(pair.id for pair in pairs)}
            for pairs, count in examples
        ],
    }


def _gather(items: Iterable[tuple[str, Hashable]]) -> dict[str, set[Hashable]]:
    found: dict[str, set[Hashable]] = defaultdict(set)
    for key, value in items:
        found[key].add(value)
    return found


def _lengths(lengths: TokenLengths, config: Config) -> dict[str, Any]:
    answer_caps = sorted({*LENGTH_CAPS, config.generation.max_new_tokens})
    row_caps = sorted({*LENGTH_CAPS, config.training.max_length})
    return {
        "tokenizer": lengths.tokenizer,
        "row_is": lengths.row_is,
        "question": _distribution(lengths.questions, LENGTH_CAPS),
        "answer": _distribution(lengths.answers, answer_caps),
        "row": _distribution(lengths.rows, row_caps),
    }


def _distribution(tokens: Sequence[int], caps: Iterable[int]) -> dict[str, Any]:
    """Mean and nearest-rank percentiles of lengths in tokens, and the share of them over each cap."""
    ordered = sorted(tokens)
    rank: Callable[[float], int] = lambda share: ordered[max(0, math.ceil(share * len(ordered)) - 1)]  # noqa: E731
    return {
        "mean": round(sum(ordered) / len(ordered), 1),
        "median": rank(0.5),
        "p90": rank(0.9),
        "max": ordered[-1],
        "over": {str(cap): round(sum(n > cap for n in ordered) / len(ordered), 4) for cap in caps},
    }

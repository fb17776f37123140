from __future__ import annotations

import base64
import gzip
import json
import random
from dataclasses import replace
from itertools import accumulate
from typing import Any

from medtune.publishing.report import ReportData, render_report
from medtune.publishing.report import answers as answers_module
from medtune.publishing.report.answers import answer_row, examples, pack_answers, question_types
from medtune.records import Prediction

ZIPF = list(accumulate(1 / rank for rank in range(1, 30_001)))


def unpacked(packed: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(gzip.decompress(base64.b64decode(packed)))
    return rows


def with_rows(data: ReportData, rows: list[tuple[str, str, str]]) -> ReportData:
    """`data` with other answers: reference, baseline, tuned."""
    made = {
        side: [
            Prediction(f"row-{n}", f"What is matter {n} ?", texts[0], texts[place], 300, "stop", 1.0, 300)
            for n, texts in enumerate(rows)
        ]
        for place, side in ((1, "baseline"), (2, "tuned"))
    }
    scores = {side: {"rougeL": [0.2] * len(rows), "bertscore_f1": [0.8] * len(rows)} for side in made}
    return replace(data, predictions=made, row_scores=scores)  # type: ignore[arg-type]


def prose(chance: random.Random, characters: int, vocabulary: list[str]) -> str:
    """Words by Zipf's law, as in a natural language, from more of them than a few answers use."""
    return " ".join(chance.choices(vocabulary, cum_weights=ZIPF, k=characters // 6))[:characters]


def test_rows_come_back_whole(data: ReportData) -> None:
    packed = pack_answers(data)
    rows = unpacked(packed.packed)
    assert (packed.rows, packed.total, packed.cut_texts, len(rows)) == (12, 12, 0, 12)
    before, after = data.predictions["baseline"][1], data.predictions["tuned"][1]
    assert rows[1] == {
        "id": before.id,
        "type": before.qtype,
        "n": 2,
        "question": before.question,
        "reference": before.reference,
        "baseline": before.prediction,
        "tuned": after.prediction,
        "cut": {},
        "tokens": [before.reference_tokens, 24, 24],
        "capped": [True, True],
        "rougeL": [round(data.row_scores[model]["rougeL"][1], 4) for model in ("baseline", "tuned")],
    }
    assert question_types(data) == ["causes", "symptoms", "treatment"]


def test_a_page_of_1600_rows_stays_under_5_megabytes(data: ReportData) -> None:
    """Answers of MedQuAD's mean length, of words that pack worse than English does."""
    chance = random.Random(0)
    letters = "etaoinshrdlucmfwypvbgk"
    vocabulary = ["".join(chance.choices(letters, k=chance.randint(2, 11))) for _ in range(30_000)]
    texts = [prose(chance, 1_300, vocabulary) for _ in range(1_600)]
    rows = [(texts[n], texts[n - 7][:900], texts[n - 3]) for n in range(1_600)]
    # What only stands once must not profit from standing thrice.
    rows = [(a, prose(chance, 700, vocabulary), c) for a, _, c in rows]
    large = with_rows(data, rows)
    page = render_report(large)
    assert len(page.encode()) < 5_000_000
    packed = pack_answers(large)
    assert (packed.rows, packed.cut_texts) == (1_600, 0)


def test_an_answer_of_ten_megabytes_is_bounded(data: ReportData) -> None:
    huge = "word and " * 1_200_000
    page_of = with_rows(data, [(huge, huge, "short"), ("a", "b", "c")])
    packed = pack_answers(page_of)
    rows = unpacked(packed.packed)
    assert packed.characters == 30_000
    assert packed.cut_texts == 1
    assert len(rows[0]["reference"]) == 30_000
    assert rows[0]["cut"] == {"reference": len(huge), "baseline": len(huge)}
    assert rows[1]["cut"] == {}
    assert len(render_report(page_of)) < 300_000


def test_rows_that_do_not_fit_are_cut_and_then_sampled(data: ReportData, monkeypatch) -> None:
    chance = random.Random(1)
    noise = [tuple("".join(chance.choices("abcdefghij klmnop", k=3_000)) for _ in range(3)) for _ in range(64)]
    many = with_rows(data, noise)  # type: ignore[arg-type]
    whole = pack_answers(many)
    assert (whole.rows, whole.cut_texts) == (64, 0)
    monkeypatch.setattr(answers_module, "MAX_PACKED_BYTES", 200_000)
    cut = pack_answers(many)
    assert (cut.rows, cut.characters, cut.cut_texts) == (64, 1_000, 64)
    monkeypatch.setattr(answers_module, "MAX_PACKED_BYTES", 50_000)
    sampled = pack_answers(many)
    assert (sampled.rows, sampled.total) == (16, 64)
    assert [row["n"] for row in unpacked(sampled.packed)] == list(range(1, 64, 4))


def test_control_characters_are_spelled_out(data: ReportData) -> None:
    rows = with_rows(data, [("a\0b\x1b[31m", "\ud800", "line\nbreak\ttab")])
    row = answer_row(rows, 0, 100)
    assert (row["reference"], row["baseline"], row["tuned"]) == (r"a\x00b\x1b[31m", r"\ud800", "line\nbreak\ttab")


def test_examples_are_the_ends_and_the_middle(data: ReportData) -> None:
    scored = replace(
        data,
        row_scores={
            "baseline": {"rougeL": [0.5] * 12},
            "tuned": {"rougeL": [0.5 + place / 100 for place in (3, -9, 8, 0, 1, 2, 4, 5, 6, 7, -1, -2)]},
        },
    )
    assert [(example.row["n"], example.why) for example in examples(scored)] == [
        (3, "the largest gain of ROUGE-L F1"),
        (6, "the median of ROUGE-L F1"),
        (2, "the largest loss of ROUGE-L F1"),
    ]
    assert [example.why for example in examples(replace(data, row_scores={"baseline": {}, "tuned": {}}))] == [
        "the first row"
    ]

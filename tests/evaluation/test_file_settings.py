"""Settings for any tool's predictions are a recipe's: same names, same values, and refused in the same words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from medtune.config.evaluation import EvaluationSection, FileSettings
from medtune.errors import ConfigError
from medtune.evaluation.file_settings import checked_settings
from medtune.evaluation.metrics import METRIC_NAMES


def test_every_setting_is_a_key_of_a_recipe() -> None:
    assert FileSettings.__annotations__.keys() < EvaluationSection.model_fields.keys()


def test_what_is_not_given_is_a_recipes_default() -> None:
    default = EvaluationSection()
    for settings in ({}, dict.fromkeys(FileSettings.__annotations__), {"metrics": []}):
        found = checked_settings(settings, primary=[])
        assert found.metrics == METRIC_NAMES
        assert (found.bleu_tokenizer, found.rouge_tokenizer, found.answers, found.resamples) == (
            default.bleu_tokenizer, default.rouge_tokenizer, default.answers, default.resamples
        )  # fmt: skip


def test_what_is_given_counts() -> None:
    settings = {"metrics": ("bleu", "rougeL"), "bleu_tokenizer": "char", "answers": "raw", "resamples": np.int64(300)}
    found = checked_settings(settings, ["rougeL"])
    assert (found.metrics, found.bleu_tokenizer, found.answers, found.resamples, found.primary) == (
        ("bleu", "rougeL"), "char", "raw", 300, ("rougeL",)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "primary", "expected"),
    [
        ({"metrics": "bleu"}, None, "--metric 'bleu': must be a list"),
        ({"metrics": [3]}, None, "--metric [3]: input should be a valid string"),
        ({"bertscore_model": ""}, None, "--bertscore-model '': string should have at least 1 character"),
        ({"rouge_tokenizer": 3}, None, "--rouge-tokenizer 3: must be 'auto', 'a-z0-9' or 'unicode-words'"),
        ({"resamples": True}, None, "--resamples True: must be a whole number from 200 to 100,000"),
        ({}, "bleu", "--primary 'bleu': must be a list"),
        ({"metrics": ["bleu"]}, {"rougeL"}, "--primary {'rougeL'}: primary names rougeL, which metrics does not"),
    ],
)
def test_what_no_recipe_may_say_is_refused_by_its_option(settings: dict[str, Any], primary: Any, expected: str) -> None:
    with pytest.raises(ConfigError) as refused:
        checked_settings(settings, primary)
    assert str(refused.value).startswith(expected)


def test_all_problems_are_reported_together() -> None:
    with pytest.raises(ConfigError) as refused:
        checked_settings({"answers": "all", "bleu_tokenizer": "spm"})
    assert [line.split(":")[0] for line in str(refused.value).splitlines()] == [
        "--bleu-tokenizer 'spm'",
        "--answers 'all'",
    ]


def test_another_key_is_an_error_of_the_caller() -> None:
    with pytest.raises(TypeError, match="unknown settings: retrieved"):
        checked_settings({"retrieved": 3})

"""A key that is nearly right, or another tool's, leads to the one that was meant."""

from __future__ import annotations

from typing import Any

import pytest

from medtune.config.schema import Config
from medtune.config.suggestions import OTHER_TOOLS, keys_for_option, suggest_key


@pytest.mark.parametrize(
    ("path", "suggestion"),
    [
        ("lr", "did you mean training.learning_rate?"),
        ("training.lr", "did you mean training.learning_rate?"),
        ("epochs", "did you mean training.epochs?"),
        ("revision", "did you mean model.revision or data.revision?"),
        ("batch_size", "did you mean training.effective_batch_rows or generation.batch_size?"),
        ("split", "did you mean data.split or data.columns.split?"),
        ("generation.learning_rate", "did you mean training.learning_rate?"),
        ("learning_rte", "did you mean training.learning_rate?"),
        ("lora.r", "did you mean lora.rank?"),
        ("data.columns.topic", "did you mean data.columns.focus?"),
        (
            "lora.zzz",
            "known keys here: rank, alpha, dropout, targets, layers, rank_pattern, alpha_pattern, rslora, dora, init, "
            "modules_to_save",
        ),
    ],
)
def test_the_key_that_was_meant_is_named_whole(path: str, suggestion: str) -> None:
    assert suggest_key(Config, path.split(".")) == suggestion


@pytest.mark.parametrize("path", sorted(set(OTHER_TOOLS.values())))
def test_what_is_suggested_exists(path: str) -> None:
    *sections, key = path.split(".")
    section: Any = Config
    for name in sections:
        section = section.model_fields[name].annotation
    assert key in section.model_fields


@pytest.mark.parametrize(
    ("option", "keys"),
    [
        ("--lr", ["training.learning_rate"]),
        ("--learning-rate", ["training.learning_rate"]),
        ("--epochs", ["training.epochs"]),
        ("--seed", ["seed"]),
        ("--batch-size", ["training.effective_batch_rows", "generation.batch_size"]),
        ("--training", []),
        ("--split", ["data.columns.split"]),
        ("-x", []),
    ],
)
def test_an_option_that_is_a_key_leads_to_the_key(option: str, keys: list[str]) -> None:
    assert keys_for_option(Config, option) == keys

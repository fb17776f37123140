"""A key that is nearly right, or another tool's, leads to the one that was meant."""

from __future__ import annotations

import pytest

from medtune.config.schema import Config
from medtune.config.suggestions import OTHER_TOOLS, suggest_key


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
    section, key = path.split(".")
    annotation = Config.model_fields[section].annotation
    assert annotation is not None
    assert key in annotation.model_fields  # type: ignore[attr-defined]

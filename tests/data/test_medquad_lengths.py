"""MedQuAD's lengths, which come with the package, against what was counted of its rows."""

import pytest

from medtune.config.recipes import load_recipe
from medtune.data import medquad_lengths as medquad


def test_an_epoch_of_llamas_recipe_has_as_many_tokens_as_were_counted():
    """docs/performance.md: 4,078,356 tokens of LLaMA-3's vocabulary in 13,258 rows, cut at 1,024."""
    config = load_recipe("llama3-8b-80gb")
    assert config.data.source == medquad.SOURCE
    assert medquad.training_tokens(config) == pytest.approx(4_078_356, rel=0.03)
    assert medquad.tested(config) == 500


def test_limits_steps_and_dropped_rows_make_it_less():
    whole = medquad.training_tokens(load_recipe("llama3-8b-t4"))
    limited = medquad.training_tokens(load_recipe("llama3-8b-t4", ["data.train_limit=1000", "training.epochs=2"]))
    assert limited == pytest.approx(whole * 2000 / (0.8 * medquad.ROWS), rel=0.01)
    stepped = medquad.training_tokens(load_recipe("llama3-8b-t4", ["training.max_steps=10"]))
    assert stepped == pytest.approx(whole * 160 / (0.8 * medquad.ROWS), rel=0.01)
    assert medquad.training_tokens(load_recipe("llama3-8b-t4", ["training.overlong=drop"])) < whole
    assert (
        medquad.training_tokens(load_recipe("llama3-8b-t4", ["training.overlong=drop", "training.max_length=16"])) == 0
    )


def test_lengths_are_sorted_and_their_longest_is_the_longest_row():
    assert list(medquad.ROW_TOKENS) == sorted(medquad.ROW_TOKENS)
    assert len(medquad.ROW_TOKENS) == 41

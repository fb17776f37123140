"""The sizes that the package brings along, against the models that they describe."""

from __future__ import annotations

import pytest

from llama_8b import LLAMA_3_8B
from medtune.config.recipes import load_recipe, shipped_recipes
from medtune.model.known import known_model
from medtune.model.loading import DEMO_MODEL, model_without_weights


@pytest.mark.parametrize("recipe", [name for name in shipped_recipes() if name != "demo"])
def test_every_shipped_recipe_has_a_known_model_of_that_many_parameters(recipe: str) -> None:
    section = load_recipe(recipe).model
    known = known_model(section)
    assert known is not None
    model = model_without_weights(known.folder, "bfloat16", section.base)
    assert sum(weight.numel() for weight in model.parameters()) == known.parameters


def test_llamas_shape_is_the_one_that_plans_are_tested_with() -> None:
    known = known_model(load_recipe("llama3-8b-t4").model)
    assert known is not None
    model = model_without_weights(known.folder, "bfloat16", "llama")
    assert {key: getattr(model.config, key) for key in LLAMA_3_8B} == LLAMA_3_8B


def test_other_models_and_other_commits_are_not_known() -> None:
    assert known_model(load_recipe("demo").model) is None
    assert known_model(load_recipe("llama3-8b-t4", ["model.revision=abc"]).model) is None
    assert load_recipe("demo").model.base == DEMO_MODEL

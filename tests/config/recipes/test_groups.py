"""Every shipped recipe is in one group, and what its description promises is planned for."""

import re
from itertools import chain

import pytest

from medtune.config.recipes import load_recipe, shipped_recipes
from medtune.config.recipes.groups import GROUPS, OTHER_SETS, brief_lines, recipe_lines
from medtune.pipeline.plan import assumed_sizes, base_folder, forecast
from medtune.pipeline.plan_tables import answer_parts
from medtune.runtime.gpus import described_gpu
from medtune.training.plan.peaks import GIB

PROMISED = {name: int(m[1]) for name, text in shipped_recipes().items() if (m := re.search(r"GPU from (\d+) GB", text))}


def test_every_recipe_is_in_one_group():
    assert sorted(chain.from_iterable(GROUPS.values())) == list(shipped_recipes())
    assert len(recipe_lines()) == len(shipped_recipes()) + len(GROUPS) + 1
    assert len(brief_lines()) == len(GROUPS) + 1


@pytest.mark.parametrize("name", PROMISED)
def test_a_recipe_fits_the_gpu_that_it_names(name):
    """With a GB to spare for what torch and CUDA take themselves; as planned, not measured."""
    config, gib = load_recipe(name), PROMISED[name] - 1
    found = forecast(config, base_folder(config), described_gpu(str(gib)), assumed_sizes(config))
    assert sum(answer_parts(found).values()) <= gib * GIB


def test_recipes_that_nobody_compared_with_the_hub_say_so():
    from importlib.resources import files

    for name in (*PROMISED, *GROUPS[OTHER_SETS]):
        text = (files("medtune.config.recipes") / f"{name}.yaml").read_text(encoding="utf-8")
        assert text.splitlines()[1].startswith("# Not checked against the Hub: ")

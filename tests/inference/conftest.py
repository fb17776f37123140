"""A model that stops by itself now and then, and prompts of different lengths."""

import pytest

from medtune.data.prompts import PromptRenderer


@pytest.fixture(scope="module")
def prompts(tiny):
    renderer = PromptRenderer(tiny.tokenizer, "Be kind.")
    return [renderer.prompt_ids("What causes " + "gout " * (1 + i * i % 13) + f"{i} ?") for i in range(11)]


@pytest.fixture(scope="module")
def model(tiny):
    model = tiny.load()
    # A random model seldom stops: make the end token likely enough that some answers end by themselves.
    model.lm_head.weight.data[5] *= 1.5
    return model

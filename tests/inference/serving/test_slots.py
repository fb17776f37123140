"""Rows that join and leave while others go on get the tokens that each would get alone."""

import pytest
from slot_checks import require_alone, require_continuation, wanted_tokens

from medtune.inference.serving.slots import GrowingSlots


@pytest.fixture(scope="module")
def model(tiny):
    return tiny.load()


@pytest.fixture(scope="module")
def wanted(model, prompts):
    return wanted_tokens(model, prompts)


@pytest.mark.parametrize("seed", range(4))
def test_rows_do_not_notice_who_joins_and_who_leaves(model, prompts, wanted, seed):
    require_alone(GrowingSlots(model, 2), prompts, wanted, seed)


def test_drawn_tokens_are_what_the_model_goes_on_from(model, prompts):
    require_continuation(GrowingSlots(model, 2), model, prompts[0])


def test_a_prompt_does_not_join_where_a_window_slides(model, prompts, monkeypatch):
    assert GrowingSlots(model, 2).can_join
    monkeypatch.setattr(model.config, "sliding_window", 64, raising=False)
    monkeypatch.setattr(model.config, "layer_types", ["sliding_attention"] * 2, raising=False)
    assert not GrowingSlots(model, 2).can_join

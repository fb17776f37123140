"""Rows that join and leave static buffers get the tokens that each would get alone."""

import pytest
import torch
from slot_checks import CAP, require_alone, require_continuation, wanted_tokens

from medtune.inference.serving.static_slots import StaticSlots


@pytest.fixture(scope="module")
def model(tiny):
    return tiny.load()


@pytest.fixture(scope="module")
def wanted(model, prompts):
    return wanted_tokens(model, prompts)


def make(model, prompts):
    # Hardly any slack: the rows are moved to the beginning of the buffers every few steps.
    span = max(map(len, prompts)) + CAP
    return StaticSlots(model, 2, rows=6, span=span, slack=4, steps_per_look=4, graphs=False)


@pytest.mark.parametrize("seed", range(4))
def test_rows_do_not_notice_who_joins_and_who_leaves(model, prompts, wanted, seed):
    require_alone(make(model, prompts), prompts, wanted, seed)


def test_drawn_tokens_are_what_the_model_goes_on_from(model, prompts):
    require_continuation(make(model, prompts), model, prompts[0])


@pytest.mark.gpu
def test_cuda_graphs_do_not_notice_either(tiny, prompts):
    model = tiny.load().to("cuda")
    wanted = wanted_tokens(model, prompts)
    span = max(map(len, prompts)) + CAP
    slots = StaticSlots(model, 2, rows=6, span=span, slack=4, steps_per_look=4, graphs=True)
    waiting, live, answers = list(range(len(prompts))), [], {}
    with torch.no_grad():
        while waiting or live:
            joining = [waiting.pop() for _ in range(min(len(waiting), 6 - len(live), 2))]
            if joining:
                for number, token in zip(joining, slots.join([prompts[n] for n in joining], None), strict=True):
                    answers[number] = [token]
                live += joining
            for number, tokens in zip(live, slots.run(4, None), strict=True):
                answers[number] = (answers[number] + tokens)[:CAP]
            going = [at for at, n in enumerate(live) if len(answers[n]) < CAP]
            live = [live[at] for at in slots.keep(going)]
    assert [answers[number] for number in range(len(prompts))] == wanted
    slots.release()

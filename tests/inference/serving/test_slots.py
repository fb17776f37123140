"""Rows that join and leave while others go on get the tokens that each would get alone."""

import random

import pytest
import torch
from greedy_reference import one_by_one

from medtune.inference.serving.slots import GrowingSlots
from medtune.inference.serving.static_slots import StaticSlots

CAP = 20


@pytest.fixture(scope="module")
def model(tiny):
    return tiny.load()


@pytest.fixture(scope="module")
def wanted(model, prompts):
    return [one_by_one(model, prompt, cap=CAP, ends=[]) for prompt in prompts]


def make(kind, model, prompts):
    if kind == "growing":
        return GrowingSlots(model, 2)
    # Hardly any slack: the rows are moved to the beginning of the buffers every few steps.
    span = max(map(len, prompts)) + CAP
    return StaticSlots(model, 2, rows=6, span=span, slack=4, steps_per_look=4, graphs=False)


@pytest.mark.parametrize("kind", ["growing", "static"])
@pytest.mark.parametrize("seed", range(4))
def test_rows_do_not_notice_who_joins_and_who_leaves(model, prompts, wanted, kind, seed):
    slots, chance = make(kind, model, prompts), random.Random(seed)
    waiting, live, done = list(range(len(prompts))), [], {}
    chance.shuffle(waiting)
    answers = {}
    with torch.no_grad():
        while waiting or live:
            joining = [waiting.pop() for _ in range(min(len(waiting), 6 - len(live), chance.randint(0, 3)))]
            if joining:
                for number, token in zip(joining, slots.join([prompts[n] for n in joining], None), strict=True):
                    answers[number] = [token]
                live += joining
            if not live:
                continue
            steps = min([chance.randint(1, 4), *(CAP - len(answers[number]) for number in live)])
            for number, tokens in zip(live, slots.run(steps, None) if steps else [[]] * len(live), strict=True):
                answers[number] += tokens
            # Some leave before their end, as cancelled ones do.
            going = [at for at, n in enumerate(live) if len(answers[n]) < CAP and chance.random() > 0.1]
            gone = {n for at, n in enumerate(live) if at not in going}
            done |= {n: answers[n] for n in gone}
            live = [live[at] for at in slots.keep(going)]
    assert len(done) == len(prompts)
    assert any(len(answer) == CAP for answer in done.values())
    for number, answer in done.items():
        assert answer == wanted[number][: len(answer)]


@pytest.mark.parametrize("kind", ["growing", "static"])
def test_drawn_tokens_are_what_the_model_goes_on_from(model, prompts, kind):
    slots = make(kind, model, prompts)

    def second_best(logits):
        return logits.topk(2).indices[:, 1]

    with torch.no_grad():
        (first,) = slots.join(prompts[:1], second_best)
        (more,) = slots.run(3, second_best)
        row = list(prompts[0])
        for token in [first, *more]:
            assert token == int(second_best(model(torch.tensor([row])).logits[:, -1]))
            row.append(token)
    slots.release()


def test_a_prompt_does_not_join_where_a_window_slides(model, prompts, monkeypatch):
    assert GrowingSlots(model, 2).can_join
    monkeypatch.setattr(model.config, "sliding_window", 64, raising=False)
    monkeypatch.setattr(model.config, "layer_types", ["sliding_attention"] * 2, raising=False)
    assert not GrowingSlots(model, 2).can_join


@pytest.mark.gpu
def test_cuda_graphs_do_not_notice_either(tiny, prompts):
    model = tiny.load().to("cuda")
    wanted = [one_by_one(model, prompt, cap=CAP, ends=[]) for prompt in prompts]
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

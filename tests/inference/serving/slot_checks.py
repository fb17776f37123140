"""Rows that join slots and leave them, and the tokens that each would get alone."""

import random

import torch
from greedy_reference import one_by_one

CAP = 20


def wanted_tokens(model, prompts):
    """Of each prompt by itself."""
    return [one_by_one(model, prompt, cap=CAP, ends=[]) for prompt in prompts]


def require_alone(slots, prompts, wanted, seed):
    """Rows must not notice who joins and who leaves."""
    chance = random.Random(seed)
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


def require_continuation(slots, model, prompt):
    """Drawn tokens must be what the model goes on from."""

    def second_best(logits):
        return logits.topk(2).indices[:, 1]

    with torch.no_grad():
        (first,) = slots.join([prompt], second_best)
        (more,) = slots.run(3, second_best)
        row = list(prompt)
        for token in [first, *more]:
            assert token == int(second_best(model(torch.tensor([row])).logits[:, -1]))
            row.append(token)
    slots.release()

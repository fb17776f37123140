"""Greedy decoding as it is defined: one prompt at a time, the whole row again for every token, no cache."""

import torch

CAP = 24
END = [5]


def one_by_one(model, prompt, *, cap=CAP, ends=END):
    device = next(model.parameters()).device
    tokens = list(prompt)
    for _ in range(cap):
        with torch.no_grad():
            logits = model(torch.tensor([tokens], device=device), use_cache=False).logits
        tokens.append(int(logits[0, -1].argmax()))
        if tokens[-1] in ends:
            break
    return tokens[len(prompt) :]


def spy_on_rows(model, monkeypatch):
    """A list that gets the number of rows and of tokens a row of every forward pass."""
    forward, seen = model.forward, []

    def spied(*args, **inputs):
        seen.append(tuple(inputs["input_ids"].shape))
        return forward(*args, **inputs)

    monkeypatch.setattr(model, "forward", spied)
    return seen

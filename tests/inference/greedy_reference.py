"""Greedy decoding as it is defined, one prompt at a time, the whole row again for every token, no cache; and ours."""

import torch

from medtune.inference.decoders.greedy import Greedy
from medtune.inference.generation import answer_batches, plan_batches
from medtune.records import Answer
from medtune.run_dir.partial_results import BatchWork

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


def generate_answers(model, tokenizer, prompts, *, end_token_ids, max_new_tokens, batch_size):
    """Our own answers, in batches, in the order of `prompts`."""
    work = BatchWork(plan_batches(prompts, batch_size), Answer)
    answer_batches(model, tokenizer, prompts, Greedy.of(tokenizer, end_token_ids, max_new_tokens), work)
    return work.in_order()

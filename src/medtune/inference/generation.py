"""Greedy answers in length-sorted, left-padded batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from medtune.hardware import free_bytes, input_device
from medtune.progress import say
from medtune.records import Answer

MAX_BATCH = {"cpu": 32, "cuda": 256}


@torch.inference_mode()
def generate_answers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[list[int]],
    *,
    end_token_ids: Sequence[int],
    max_new_tokens: int,
    batch_size: int,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> list[Answer]:
    """One greedy answer for each prompt of token ids, in the order of `prompts`.

    An answer ends at the first of `end_token_ids` ("stop") or after `max_new_tokens` ("length"). Rows do not see each
    other: in float32 the tokens are those of one-by-one generation.
    """
    answers: dict[int, Answer] = {}
    device = input_device(model)
    # Longest first: what does not fit in memory fails at once, and rows of a batch need little padding.
    order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
    ends = frozenset(end_token_ids)
    start = 0
    while start < len(order):
        chosen = order[start : start + batch_size]
        longest = max(len(prompts[i]) for i in chosen)
        padding = [longest - len(prompts[i]) for i in chosen]
        ids = [[tokenizer.pad_token_id] * pad + prompts[i] for pad, i in zip(padding, chosen, strict=True)]
        mask = [[0] * pad + [1] * (longest - pad) for pad in padding]
        try:
            output = model.generate(
                input_ids=torch.tensor(ids, device=device),
                attention_mask=torch.tensor(mask, device=device),
                generation_config=greedy_config(tokenizer, end_token_ids, max_new_tokens),
            )
        except torch.OutOfMemoryError:
            if batch_size == 1:
                raise
            batch_size = max(1, len(chosen) // 2)
            torch.cuda.empty_cache()
            say(f"out of memory with {len(chosen)} questions at once; going on with {batch_size}")
            continue
        start += len(chosen)
        for i, tokens in zip(chosen, output[:, longest:].tolist(), strict=True):
            answers[i] = _answer(tokenizer, tokens, ends)
        on_rows(len(chosen))
    return [answers[i] for i in range(len(prompts))]


def greedy_config(tokenizer: Any, end_token_ids: Sequence[int], max_new_tokens: int) -> Any:
    """Greedy decoding and nothing else: sampling defaults that a model ships with must not leak in."""
    from transformers import GenerationConfig

    return GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=list(end_token_ids),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )


def choose_batch_size(model: Any, *, longest_prompt: int, max_new_tokens: int) -> int:
    """The most questions whose key-value cache and logits fit in half of the memory that is free on the device."""
    device = str(input_device(model))
    text = model.config.get_text_config()
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = model.get_input_embeddings().weight.element_size()
    cache = 2 * text.num_hidden_layers * heads * head_dim * width * (longest_prompt + max_new_tokens)
    # A step's logits exist in the model's dtype and in float32.
    logits = text.vocab_size * (width + 4)
    limit = MAX_BATCH["cpu" if device == "cpu" else "cuda"]
    return max(1, min(limit, int(free_bytes(device) // 2 // (cache + logits))))


def _answer(tokenizer: Any, tokens: list[int], ends: frozenset[int]) -> Answer:
    length = next((place for place, token in enumerate(tokens) if token in ends), None)
    body = tokens if length is None else tokens[:length]
    text = tokenizer.decode(body, skip_special_tokens=True, clean_up_tokenization_spaces=False).strip()
    if length is None:
        return Answer(text, len(tokens), "length")
    return Answer(text, length + 1, "stop")

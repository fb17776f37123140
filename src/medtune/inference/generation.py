"""Greedy answers in length-sorted, left-padded batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from medtune.hardware import free_bytes, input_device
from medtune.inference.decoding import Decoder, DynamicDecoder, Greedy
from medtune.inference.memory import answer_sizes, batch_that_fits
from medtune.inference.static_decoding import StaticDecoder, static_cache_obstacle
from medtune.progress import say
from medtune.records import Answer


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
    # Longest first: what does not fit in memory fails at once, and rows of a batch need little padding.
    order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
    ends = frozenset(end_token_ids)
    decoder = _choose_decoder(_unwrapped(model), Greedy(ends, max_new_tokens, tokenizer.pad_token_id))
    start = 0
    try:
        while start < len(order):
            chosen = order[start : start + batch_size]
            rows = _decode_if_it_fits(decoder, [prompts[i] for i in chosen])
            if rows is None:
                decoder.release()
                torch.cuda.empty_cache()
                batch_size = len(chosen) // 2
                say(f"out of memory with {len(chosen)} questions at once; going on with {batch_size}")
                continue
            start += len(chosen)
            for i, tokens in zip(chosen, rows, strict=True):
                answers[i] = _answer(tokenizer, tokens, ends)
            on_rows(len(chosen))
    finally:
        decoder.release()
    return [answers[i] for i in range(len(prompts))]


def _decode_if_it_fits(decoder: Decoder, prompts: Sequence[list[int]]) -> list[list[int]] | None:
    # The caller frees memory once this has returned: until then the exception holds on to every tensor of the attempt.
    try:
        return decoder.decode(prompts)
    except torch.OutOfMemoryError:
        if len(prompts) == 1:
            raise
        return None


def _choose_decoder(model: Any, greedy: Greedy) -> Decoder:
    obstacle = static_cache_obstacle(model)
    if obstacle is None:
        return StaticDecoder(model, greedy, graphs=True)
    if input_device(model).type == "cuda":
        say(f"answers come without static cache and CUDA graphs: {obstacle}")
    return DynamicDecoder(model, greedy)


def _unwrapped(model: Any) -> Any:
    """The causal language model in a PeftModel, adapters included: for LoRA, PEFT's own forward pass adds nothing."""
    from peft import PeftModel

    return model.get_base_model() if isinstance(model, PeftModel) else model


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
    """The most questions whose key-value cache and logits fit in half of the memory that is free on the device.

    On a GPU that half also holds what a forward pass over prompts needs at a time.
    """
    device = input_device(model)
    width = model.get_input_embeddings().weight.element_size()
    sizes = answer_sizes(model.config, width, longest_prompt=longest_prompt, max_new_tokens=max_new_tokens)
    is_gpu = device.type == "cuda"
    static = is_gpu and static_cache_obstacle(_unwrapped(model)) is None
    return batch_that_fits(sizes, free_bytes(str(device)), is_gpu=is_gpu, static=static)


def _answer(tokenizer: Any, tokens: list[int], ends: frozenset[int]) -> Answer:
    length = next((place for place, token in enumerate(tokens) if token in ends), None)
    body = tokens if length is None else tokens[:length]
    text = tokenizer.decode(body, skip_special_tokens=True, clean_up_tokenization_spaces=False).strip()
    if length is None:
        return Answer(text, len(tokens), "length")
    return Answer(text, length + 1, "stop")

"""Greedy answers in length-sorted, left-padded batches."""

from collections.abc import Callable, Collection, Sequence
from itertools import chain
from typing import Any

import torch

from medtune.errors import ModelError
from medtune.inference.batch_size import answer_sizes, batch_that_fits
from medtune.inference.decoders.greedy import Decoder, DynamicDecoder, Greedy
from medtune.inference.decoders.static import StaticDecoder, static_cache_obstacle
from medtune.records import Answer
from medtune.run_dir.partial_results import AnswerTokens, BatchWork, Result
from medtune.runtime.hardware import free_bytes, input_device, release_memory
from medtune.runtime.progress import say


def generate_tokens(
    model: Any, prompts: Sequence[list[int]], greedy: Greedy, *, batch_size: int, on_rows: Callable[[int], None]
) -> list[list[int]]:
    """As `answer_batches`, the new tokens themselves of each prompt, an end token included."""
    work = BatchWork(plan_batches(prompts, batch_size), AnswerTokens)
    decoder = _choose_decoder(unwrapped(model), greedy, graphs=True)
    _decode_batches(decoder, prompts, work, lambda tokens: AnswerTokens(tuple(tokens)), on_rows)
    return [list(answer.ids) for answer in work.in_order()]


def plan_batches(prompts: Sequence[list[int]], batch_size: int) -> list[list[int]]:
    """Which of `prompts` are answered together.

    Longest first: what does not fit in memory fails at once, and rows of a batch need little padding.
    """
    return _batches(sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i)), batch_size)


def answer_batches(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[list[int]],
    greedy: Greedy,
    work: BatchWork[Answer],
    on_rows: Callable[[int], None] = lambda rows: None,
    *,
    graphs: bool = True,
) -> None:
    """One greedy answer for each of the `prompts` of token ids in the batches that `work` has to do.

    An answer ends at the first end token ("stop") or after `max_new_tokens` ("length"). Rows do not see each other: in
    float32 the tokens are those of one-by-one generation. A batch for which memory does not suffice is halved, and so
    are those after it. `graphs` lets a GPU replay steps as CUDA graphs, which weights that come and go do not allow.
    Raises ModelError if memory does not suffice for a prompt by itself.
    """

    def result_of(tokens: list[int]) -> Answer:
        return answer_of(tokenizer, tokens, greedy.end_token_ids)

    _decode_batches(_choose_decoder(unwrapped(model), greedy, graphs=graphs), prompts, work, result_of, on_rows)


def _decode_batches(
    decoder: Decoder,
    prompts: Sequence[list[int]],
    work: BatchWork[Result],
    result_of: Callable[[list[int]], Result],
    on_rows: Callable[[int], None],
) -> None:
    _reserve(decoder, work, prompts)
    try:
        while work.to_do:
            chosen = work.to_do.popleft()
            rows = _decode_if_it_fits(decoder, [prompts[i] for i in chosen])
            if rows is None:
                decoder.release()
                release_memory()
                _halve_batches(work, chosen, decoder.greedy.max_new_tokens, len(prompts[chosen[0]]))
                _reserve(decoder, work, prompts)
                continue
            work.finish(chosen, [result_of(tokens) for tokens in rows])
            on_rows(len(chosen))
    finally:
        decoder.release()


def _batches(rows: Sequence[int], size: int) -> list[list[int]]:
    return [list(rows[start : start + size]) for start in range(0, len(rows), size)]


def _reserve(decoder: Decoder, work: BatchWork[Result], prompts: Sequence[list[int]]) -> None:
    # For all that was planned together, done or not: a resumed run must not get other buffers than it had.
    if work.planned:
        decoder.reserve(max(map(len, work.planned)), max(len(prompts[i]) for rows in work.planned for i in rows))


def _halve_batches(work: BatchWork[Result], failed: list[int], cap: int, prompt: int) -> None:
    """Answer the rows of a batch that did not fit, and all after it, half as many at once."""
    size = len(failed) // 2
    if size == 0:
        raise ModelError(
            f"out of memory with one question at once (generation.batch_size 1), its prompt of {prompt} tokens and "
            f"generation.max_new_tokens {cap}",
            fix="lower that, or free memory on the device",
        )
    say(f"out of memory with {len(failed)} questions at once; continuing with {size}")
    work.replan(_batches([*failed, *chain.from_iterable(work.to_do)], size))


def _decode_if_it_fits(decoder: Decoder, prompts: Sequence[list[int]]) -> list[list[int]] | None:
    # The caller frees memory once this has returned: until then the exception holds on to every tensor of the attempt.
    try:
        return decoder.decode(prompts)
    except torch.OutOfMemoryError:
        return None


def _choose_decoder(model: Any, greedy: Greedy, *, graphs: bool) -> Decoder:
    obstacle = static_cache_obstacle(model)
    if obstacle is None:
        return StaticDecoder(model, greedy, graphs=graphs)
    if input_device(model).type == "cuda":
        say(f"answers come without static cache and CUDA graphs: {obstacle}")
    return DynamicDecoder(model, greedy)


def unwrapped(model: Any) -> Any:
    """The causal language model in a PeftModel, adapters included: for LoRA, PEFT's own forward pass adds nothing."""
    from peft import PeftModel

    return model.get_base_model() if isinstance(model, PeftModel) else model


def choose_batch_size(model: Any, *, longest_prompt: int, max_new_tokens: int) -> int:
    """The most questions whose key-value cache and logits fit in half of the memory that is free on the device.

    On a GPU that half also holds what a forward pass over prompts needs at a time.
    """
    device = input_device(model)
    width = model.get_input_embeddings().weight.element_size()
    sizes = answer_sizes(model.config, width, longest_prompt=longest_prompt, max_new_tokens=max_new_tokens)
    is_gpu = device.type == "cuda"
    static = is_gpu and static_cache_obstacle(unwrapped(model)) is None
    return batch_that_fits(sizes, free_bytes(str(device)), is_gpu=is_gpu, static=static)


def answer_of(tokenizer: Any, tokens: Sequence[int], ends: Collection[int]) -> Answer:
    """The text of an answer's tokens up to the first that ends it, and how it ended."""
    length = next((place for place, token in enumerate(tokens) if token in ends), None)
    body = tokens if length is None else tokens[:length]
    text = tokenizer.decode(body, skip_special_tokens=True, clean_up_tokenization_spaces=False).strip()
    if length is None:
        return Answer(text, len(tokens), "length")
    return Answer(text, length + 1, "stop")

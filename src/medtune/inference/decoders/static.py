"""Greedy decoding with a static cache: fixed buffers, steps without the host, and fewer rows as answers end."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from medtune.inference.batch_size import PROMPT_TOKENS
from medtune.inference.decoders.decode_step import DecodeStep
from medtune.inference.decoders.greedy import Decoder, Greedy, best_tokens, last_logits, pad_left
from medtune.model.attention import HEAD_DIMS, NAME
from medtune.model.kernels import has_triton
from medtune.runtime.hardware import input_device

# Rows a step can have; each number that a batch comes through costs the capture of a graph, some tenths of a second.
ROW_COUNTS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
# The host looks at the tokens this often; a row that has ended costs that many steps at most.
STEPS_PER_LOOK = 16
# Their attention layers hand extra arguments to the attention function, as tests/inference verifies for each.
COVERED_MODELS = ("gemma", "granite", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "smollm3")


def static_cache_obstacle(model: Any) -> str | None:
    """Why `model` cannot be decoded with a static cache and CUDA graphs where it is; None if it can."""
    from transformers import DynamicCache

    text, device = model.config.get_text_config(), input_device(model)
    devices = set((getattr(model, "hf_device_map", None) or {}).values())
    if device.type != "cuda":
        return f"it runs on {device.type}"
    if len(devices) > 1:
        return f"the model is spread over {len(devices)} devices"
    if text._attn_implementation != NAME:
        return f"its attention is {text._attn_implementation}"
    if text.model_type not in COVERED_MODELS:
        return f"not made for {text.model_type} models"
    if any(DynamicCache(config=model.config).is_sliding):
        return "the model has sliding-window attention"
    if (rope := (getattr(text, "rope_parameters", None) or {}).get("rope_type")) in ("dynamic", "longrope"):
        return f"{rope} rotary positions depend on the longest row"
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    if head_dim not in HEAD_DIMS:
        return f"no kernel for heads of {head_dim}"
    if not has_triton():
        return "Triton is not installed"
    major, minor = torch.cuda.get_device_capability(device)
    return None if major >= 8 else f"the kernel needs compute capability 8.0, this is {major}.{minor}"


class StaticDecoder(Decoder):
    """Decodes batches in buffers that stay, with their graphs, for as long as batches fit into them.

    `graphs` is for GPUs; without, the same steps are launched kernel by kernel, on any device.
    """

    def __init__(self, model: Any, greedy: Greedy, *, graphs: bool, steps_per_look: int = STEPS_PER_LOOK) -> None:
        super().__init__(model, greedy)
        self.graphs = graphs
        self.steps_per_look = steps_per_look
        self._step: DecodeStep | None = None
        self._reserved = (0, 0)

    def reserve(self, rows: int, width: int) -> None:
        """As `Decoder.reserve`. How many rows the buffers have decides how many a step of a smaller batch takes, and
        with it the last bits of their numbers."""
        self._reserved = (rows, width)

    def decode(self, prompts: Sequence[list[int]]) -> list[list[int]]:
        """As `Decoder.decode`. Buffers are made for what is reserved, and again for a batch that is larger."""
        # Inference mode would leave its mark on the buffers and on the generator's state that a capture registers.
        with torch.no_grad(), self._on_device():
            width, produced, ends = max(map(len, prompts)), 1, self.greedy.end_token_ids
            step = self._fitting_step(len(prompts), width)
            answers = [[token] for token in self._read_prompts(step, prompts, width)]
            owners: list[int | None] = list(range(len(prompts)))
            while produced < self.greedy.max_new_tokens:
                owners = [None if owner is None or answers[owner][-1] in ends else owner for owner in owners]
                going = len(owners) - owners.count(None)
                if not going:
                    break
                owners, moves = close_ranks(owners, row_count(going, step.rows))
                if moves:
                    step.move_rows(moves, width + produced - 1)
                steps = min(self.steps_per_look, self.greedy.max_new_tokens - produced)
                for owner, tokens in zip(owners, step.run(len(owners), steps), strict=True):
                    if owner is not None:
                        answers[owner] += self._up_to_end(tokens)
                produced += steps
            return answers

    def release(self) -> None:
        """Let go of buffers and graphs."""
        if self._step is not None:
            self._step.release()
            self._step = None

    def _fitting_step(self, rows: int, width: int) -> DecodeStep:
        rows, width = max(rows, self._reserved[0]), max(width, self._reserved[1])
        positions = width + self.greedy.max_new_tokens
        if self._step is None or rows > self._step.rows or positions > self._step.positions:
            self.release()
            self._step = DecodeStep(self.model, rows, positions, steps_per_look=self.steps_per_look, graphs=self.graphs)
        return self._step

    def _read_prompts(self, step: DecodeStep, prompts: Sequence[list[int]], width: int) -> list[int]:
        """Fill the cache, each row ending at position `width`; returns each row's first new token."""
        step.begin(width, [len(prompt) for prompt in prompts])
        for rows in prompt_passes([len(prompt) for prompt in prompts]):
            ids, mask, positions = pad_left(prompts[rows], self.greedy.pad_token_id, self.device)
            step.cache.write_to(rows, slice(width - ids.shape[1], width))
            step.tokens[rows] = best_tokens(last_logits(self.model, ids, mask, positions, step.cache))
        tokens: list[int] = step.tokens[: len(prompts)].tolist()
        return tokens

    def _up_to_end(self, tokens: list[int]) -> list[int]:
        end = next((place for place, token in enumerate(tokens) if token in self.greedy.end_token_ids), len(tokens))
        return tokens[: end + 1]

    def _on_device(self) -> AbstractContextManager[Any]:
        # Triton and graph captures use the current device, which need not be the model's.
        return torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()


def prompt_passes(lengths: Sequence[int]) -> Iterator[slice]:
    """Share out neighbouring prompts over passes of at most `PROMPT_TOKENS` tokens, padding included, or one prompt."""
    first = 0
    for row in range(1, len(lengths) + 1):
        if row == len(lengths) or max(lengths[first : row + 1]) * (row + 1 - first) > PROMPT_TOKENS:
            yield slice(first, row)
            first = row


def row_count(going: int, capacity: int) -> int:
    """How many rows a step takes for `going` of them, in buffers of `capacity` rows."""
    return min([capacity, *(count for count in ROW_COUNTS if count >= going)])


def close_ranks(owners: Sequence[int | None], rows: int) -> tuple[list[int | None], list[tuple[int, int]]]:
    """Fit all rows that have an owner into the first `rows` rows.

    Returns the owners of these, and the moves, (from, to), of rows beyond them into rows without an owner.
    """
    kept = [*owners[:rows], *[None] * (rows - len(owners))]
    free = [row for row, owner in enumerate(kept) if owner is None]
    movers = [row for row in range(rows, len(owners)) if owners[row] is not None]
    moves = list(zip(movers, free, strict=False))
    for source, target in moves:
        kept[target] = owners[source]
    return kept, moves

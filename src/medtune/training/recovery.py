"""A step that ran out of GPU memory, made ready to be computed once more in less of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from medtune.hardware import release_memory
from medtune.model.fused_layers import fused_layers_of

# Of all layers, how many more compute again after each time that memory ran out: one part in so many.
PARTS = 8


def spare_memory(model: Any, trained: Sequence[torch.nn.Parameter]) -> str | None:
    """Forget what is left of a step that ran out of memory, and have more layers of `model` compute again.

    Returns what was done, for people, or None if there is nothing left to spare. The step's gradient stays what it
    would have been.
    """
    for parameter in trained:
        parameter.grad = None
    layers = fused_layers_of(model)
    for store in {layer.store for layer in layers if layer.store is not None}:
        store.forget()
    # What is free lies in gaps between what the step kept; given back, it can be had in one piece.
    release_memory()
    keeping = [layer for layer in layers if not layer.recompute]
    if not keeping:
        return None
    more = keeping[: -(-len(layers) // PARTS)]
    for layer in more:
        layer.recompute = True
    return f"{len(layers) - len(keeping) + len(more)} of {len(layers)} layers are computed again from now on"

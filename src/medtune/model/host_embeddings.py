"""Embeddings in host memory: 1 GiB less on the GPU for LLaMA-3-8B, whose table no step changes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from medtune.model.host_store import page_locked
from medtune.model.kernels import has_triton


def move_embeddings_to_host(model: Any) -> None:
    """Keep the table of input embeddings page-locked on the host; rows travel to the GPU as they are looked up.

    Does nothing where it is there already. Raises HostMemoryError.
    """
    embedding = model.get_input_embeddings()
    if embedding.weight.shape[1] == 0:
        return
    device = embedding.weight.device
    table = page_locked(tuple(embedding.weight.shape), embedding.weight.dtype)
    table.copy_(embedding.weight.data)
    # The parameter stays, without columns: accelerate moves every parameter to the GPU once more before training.
    embedding.weight.data = embedding.weight.data.new_empty((len(table), 0))

    def forward(ids: Tensor) -> Tensor:
        if has_triton() and ids.is_cuda:
            from medtune.model.kernels.gpu import gather_rows

            return gather_rows(table, ids)
        return torch.nn.functional.embedding(ids.cpu(), table).to(device, non_blocking=True)

    embedding.forward = forward

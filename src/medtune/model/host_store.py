"""What waits in host memory: layer inputs between forward and backward pass, and the table of embeddings.

Copies of layer inputs run on a stream of their own beside the computation: out while the next layer computes, back
while the layer behind it does.
"""

from __future__ import annotations

import weakref
from collections import deque
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from medtune.errors import ModelError
from medtune.model.kernels import has_triton

# Enough for the GPU never to wait for the host, and each costs the size of an input.
LAYERS_AHEAD = 3


class HostMemoryError(ModelError):
    """Host memory cannot be page-locked."""


def page_locked(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """An empty host tensor that GPUs can read and write directly. Raises HostMemoryError.

    Registered by itself: torch's own allocator of such memory rounds sizes up to a power of two.
    """
    tensor = torch.empty(shape, dtype=dtype)
    size = tensor.numel() * tensor.element_size()
    runtime: Any = torch.cuda.cudart()
    status = runtime.cudaHostRegister(tensor.data_ptr(), size, 0)
    if int(status) != 0:
        raise HostMemoryError(
            f"{size / 2**30:.2f} GiB of host memory cannot be page-locked (CUDA error {int(status)})",
            fix="set training.host_memory_gib lower, or free host memory",
        )
    weakref.finalize(tensor.untyped_storage(), runtime.cudaHostUnregister, tensor.data_ptr())
    return tensor


class HostStore:
    """A stack of tensors in host memory: what was put last is read first."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)
        self.free: list[Tensor] = []
        self.stack: list[Stored] = []
        self.passed: deque[torch.cuda.Event] = deque()

    def put(self, x: Tensor) -> Stored:
        """Start copying `x` out."""
        self._keep_pace()
        buffer = self._buffer(x)
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            buffer[: x.numel()].copy_(x.reshape(-1), non_blocking=True)
        x.record_stream(self.stream)
        stored = Stored(self, buffer, x.shape)
        self.stack.append(stored)
        return stored

    def forget(self) -> None:
        """Take back the buffers of a pass that will not be finished."""
        self.stream.synchronize()
        self.free.extend(stored.buffer for stored in self.stack)
        self.stack.clear()
        self.passed.clear()

    def _keep_pace(self) -> None:
        """Let the host run some layers ahead and no more: it would allocate for copies that are still to be made."""
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self.device))
        self.passed.append(event)
        if len(self.passed) > LAYERS_AHEAD:
            self.passed.popleft().synchronize()

    def _buffer(self, x: Tensor) -> Tensor:
        fitting = [buffer for buffer in self.free if buffer.numel() >= x.numel() and buffer.dtype == x.dtype]
        if fitting:
            buffer = min(fitting, key=Tensor.numel)
            self.free = [other for other in self.free if other is not buffer]
            return buffer
        # Smaller ones would never be used again; a copy from one of them may still be under way.
        self.stream.synchronize()
        self.free = []
        return page_locked((x.numel(),), x.dtype)


@dataclass(slots=True, eq=False)
class Stored:
    """A tensor in a HostStore."""

    store: HostStore
    buffer: Tensor
    shape: torch.Size
    fetched: Tensor | None = None

    def fetch(self) -> Tensor:
        """Start copying it back, into the tensor that is returned."""
        if self.fetched is None:
            store = self.store
            with torch.cuda.stream(store.stream):
                self.fetched = torch.empty(self.shape, dtype=self.buffer.dtype, device=store.device)
                self.fetched.view(-1).copy_(self.buffer[: self.fetched.numel()], non_blocking=True)
        return self.fetched

    def get(self) -> Tensor:
        """The tensor, back on its device; the one before it starts on its way."""
        store = self.store
        store._keep_pace()
        fetched = self.fetch()
        current = torch.cuda.current_stream(store.device)
        current.wait_stream(store.stream)
        fetched.record_stream(current)
        store.stack = [other for other in store.stack if other is not self]
        store.free.append(self.buffer)
        if store.stack:
            # Not before the layers after it have been computed: more than one would be back at once.
            store.stream.wait_stream(current)
            store.stack[-1].fetch()
        self.fetched = None
        return fetched


def move_embeddings_to_host(model: Any, device: str | None = None) -> None:
    """Keep the table of input embeddings page-locked on the host; rows travel to `device` as they are looked up.

    Without a `device` that is where the table is. For LLaMA-3-8B it takes 1 GiB; no step changes it. Does nothing where
    it is in host memory already. Raises HostMemoryError.
    """
    embedding = model.get_input_embeddings()
    if embedding.weight.shape[1] == 0:
        return
    target = embedding.weight.device if device is None else torch.device(device)
    table = page_locked(tuple(embedding.weight.shape), embedding.weight.dtype)
    table.copy_(embedding.weight.data)
    # The parameter stays, without columns: accelerate moves every parameter to the GPU once more before training.
    embedding.weight.data = embedding.weight.data.new_empty((len(table), 0), device=target)

    def forward(ids: Tensor) -> Tensor:
        if has_triton() and ids.is_cuda:
            from medtune.model.kernels.gpu import gather_rows

            return gather_rows(table, ids)
        return torch.nn.functional.embedding(ids.cpu(), table).to(target, non_blocking=True)

    embedding.forward = forward

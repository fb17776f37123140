"""Layer inputs in host memory: the same numbers, and bounded memory on the GPU.

Without a GPU the bookkeeping is tested, with copies that are made at once.
"""

import gc
import types
from contextlib import contextmanager

import pytest
import torch
from packed_models import adapted, error, gradients_of, packed_loss, some_rows

from medtune.model.fused.layers import fuse_layers
from medtune.model.host_store import LAYERS_AHEAD, HostMemoryError, HostStore, page_locked

ROWS = some_rows()
MIB = 2**20


class Runtime:
    """CUDA's two calls that register host memory."""

    def __init__(self, status=0):
        self.status, self.registered, self.released = status, [], []

    def cudaHostRegister(self, address, size, flags):
        self.registered.append((address, size, flags))
        return self.status

    def cudaHostUnregister(self, address):
        self.released.append(address)


def test_page_locked_memory_is_released_with_its_last_user(monkeypatch):
    runtime = Runtime()
    monkeypatch.setattr(torch.cuda, "cudart", lambda: runtime)
    tensor = page_locked((3, 5), torch.float16)
    address = tensor.data_ptr()
    assert (tensor.shape, tensor.dtype) == ((3, 5), torch.float16)
    assert runtime.registered == [(address, 30, 0)]
    # A tensor of the same memory that is no view: the memory has to last, not the tensor.
    other = torch.empty(0, dtype=torch.float16).set_(tensor.untyped_storage())
    del tensor
    gc.collect()
    assert runtime.released == []
    del other
    gc.collect()
    assert runtime.released == [address]


def test_memory_that_cannot_be_locked_is_an_error(monkeypatch):
    runtime = Runtime(status=2)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: runtime)
    with pytest.raises(HostMemoryError, match=r"0\.25 GiB of host memory cannot be page-locked \(CUDA error 2\)"):
        page_locked((2**26,), torch.float32)
    gc.collect()
    assert runtime.released == []


@pytest.fixture
def copies_at_once(monkeypatch, plain_memory):
    """A HostStore on the CPU: streams and events that have nothing to wait for."""

    class Stream:
        def __init__(self, device=None):
            self.waited_for = 0

        def wait_stream(self, stream):
            self.waited_for += 1

        def synchronize(self):
            pass

    class Event:
        made = recorded = waited_for = 0

        def __init__(self):
            Event.made += 1

        def record(self, stream):
            Event.recorded += 1

        def synchronize(self):
            Event.waited_for += 1

    @contextmanager
    def stream(_):
        yield

    current = Stream()
    for name, value in {
        "Stream": Stream, "Event": Event, "stream": stream, "current_stream": lambda device: current
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: None)
    return types.SimpleNamespace(store=HostStore(torch.device("cpu")), asked=plain_memory, event=Event)


def stored_inputs(sizes, dtype=torch.float32):
    return [torch.randn(size, generator=torch.Generator().manual_seed(n)).to(dtype) for n, size in enumerate(sizes)]


def test_what_was_put_last_is_read_first(copies_at_once):
    store = copies_at_once.store
    inputs = stored_inputs([(4, 6), (4, 6), (2, 3), (5, 6)])
    held = [store.put(x.clone()) for x in inputs]
    for x, stored in reversed(list(zip(inputs, held, strict=True))):
        assert torch.equal(stored.get(), x)
    assert store.stack == []
    assert [stored.fetched for stored in held] == [None] * 4


def test_one_tensor_at_a_time_is_fetched_ahead(copies_at_once):
    store = copies_at_once.store
    held = [store.put(x) for x in stored_inputs([(4, 6)] * 4)]
    assert [stored.fetched is not None for stored in held] == [False] * 4
    held[3].get()
    assert [stored.fetched is not None for stored in held] == [False, False, True, False]
    ahead = held[2].fetched
    assert held[2].get() is ahead
    assert [stored.fetched is not None for stored in held] == [False, True, False, False]


def test_host_buffers_are_used_again(copies_at_once):
    store, asked = copies_at_once.store, copies_at_once.asked
    for passes, size in enumerate([(4, 6), (4, 6), (3, 6), (4, 6)]):
        inputs = stored_inputs([size] * 3)
        held = [store.put(x) for x in inputs]
        assert len({stored.buffer.data_ptr() for stored in held}) == 3, passes
        for x, stored in reversed(list(zip(inputs, held, strict=True))):
            assert torch.equal(stored.get(), x)
    # Those of the first pass have served all others, smaller ones too.
    assert asked == [((24,), torch.float32)] * 3
    store.put(torch.zeros(2, 2, dtype=torch.float16))
    assert asked[3:] == [((4,), torch.float16)]


def test_longer_packs_get_longer_buffers(copies_at_once):
    store, asked = copies_at_once.store, copies_at_once.asked
    for size in ((2, 3), (5, 3), (5, 3)):
        inputs = stored_inputs([size] * 2)
        held = [store.put(x) for x in inputs]
        for x, stored in reversed(list(zip(inputs, held, strict=True))):
            assert torch.equal(stored.get(), x)
    assert asked == [((6,), torch.float32)] * 2 + [((15,), torch.float32)] * 2
    assert all(buffer.numel() == 15 for buffer in store.free)


def test_the_host_runs_few_layers_ahead(copies_at_once):
    store, event = copies_at_once.store, copies_at_once.event
    held = [store.put(x) for x in stored_inputs([(4, 6)] * 10)]
    assert event.made == event.recorded == 10
    assert event.waited_for == 10 - LAYERS_AHEAD
    for stored in reversed(held):
        stored.get()
    assert event.waited_for == 20 - LAYERS_AHEAD
    assert len(store.passed) == LAYERS_AHEAD


@pytest.mark.parametrize("offloaded", [1, 2, 3])
def test_layers_with_their_inputs_on_the_host_are_the_same(copies_at_once, offloaded):
    model = adapted()
    layers = fuse_layers(model)
    loss, gradients = gradients_of(model, packed_loss(model, ROWS))
    for layer in layers[:offloaded]:
        layer.recompute, layer.store = True, copies_at_once.store
    for rows in (ROWS, some_rows([3, 3]), ROWS):
        again, again_gradients = gradients_of(model, packed_loss(model, rows))
    assert again == loss
    assert error(again_gradients, gradients) < 1e-6
    assert len(copies_at_once.asked) == offloaded
    assert copies_at_once.store.stack == []
    # No gradient, nothing to keep.
    with torch.no_grad():
        assert packed_loss(model, ROWS).item() == loss
    assert copies_at_once.store.stack == []


@pytest.mark.gpu
def test_many_layers_take_little_memory_of_a_gpu():
    """Forty inputs of 16 MiB come back right, and never more than a few are on the GPU."""
    store = HostStore(torch.device("cuda"))
    size, layers = 16 * MIB, 40
    weight = torch.randn(1024, 1024, device="cuda") / 32
    x = torch.randn(size // 4096, 1024, device="cuda")
    sums, held = [], []
    x @ weight  # cuBLAS takes its workspace
    for passes in range(2):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before, y = torch.cuda.memory_allocated(), x
        for _ in range(layers):
            held.append(store.put(y))
            sums.append((y.sum(), y[::97].clone()))
            y = y @ weight
        for _ in range(layers):
            back = held.pop().get()
            total, sample = sums.pop()
            assert torch.equal(back.sum(), total), passes
            assert torch.equal(back[::97], sample)
            del back, sample
        torch.cuda.synchronize()
        # The product's input and output, those on their way, and the samples.
        assert torch.cuda.max_memory_allocated() - before < (LAYERS_AHEAD + 5) * size + layers * size // 90
    assert len(store.free) == layers
    assert store.stack == []

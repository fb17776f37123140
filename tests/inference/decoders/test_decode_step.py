"""One decoding step in buffers of fixed shape: what a CUDA graph can hold, and captures that signals do not break.

Its cache: prompts and steps write where they are told, and get back what they attend to.
"""

import signal
from unittest.mock import MagicMock

import pytest
import torch
from greedy_reference import CAP, END, one_by_one
from torch.utils._python_dispatch import TorchDispatchMode

from medtune.inference.decoders import decode_step
from medtune.inference.decoders.decode_step import DecodeStep, StaticRowsCache
from medtune.inference.decoders.greedy import Greedy
from medtune.inference.decoders.static import COVERED_MODELS, StaticDecoder
from medtune.runtime import interruption

GREEDY = Greedy(frozenset(END), CAP, pad_token_id=2)


def test_a_signal_waits_for_the_end_of_a_capture(monkeypatch):
    """A capture that is broken off raises an error of its own, in the place of Interrupted."""
    ended = []

    class Capture:
        def __init__(self, *args, **options):
            pass

        def __enter__(self):
            return self

        def __exit__(self, kind, *rest):
            ended.append(kind)

    for name in ("Stream", "graph_pool_handle", "CUDAGraph", "stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, MagicMock())
    monkeypatch.setattr(torch.cuda, "graph", Capture)
    graphs = decode_step._Graphs(torch.device("cpu"))
    graphs.run(4, lambda: None)
    with interruption.handled(), pytest.raises(interruption.Interrupted):
        graphs.run(4, lambda: signal.raise_signal(signal.SIGTERM))
    assert ended == [None]


class Uncapturable(TorchDispatchMode):
    """Notes what a CUDA graph cannot hold: values read on the host, shapes that depend on them, data from the host."""

    def __init__(self):
        super().__init__()
        self.operations = 0
        self.found = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.operations += 1
        host = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(func.tags)
        if host or func is torch.ops.aten.lift_fresh.default:
            self.found.add(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("model_type", COVERED_MODELS)
def test_covered_models_take_steps_that_a_graph_can_hold(model_type, monkeypatch):
    from transformers import AutoConfig, AutoModelForCausalLM

    from medtune.model.attention import register_packed_attention

    config = AutoConfig.for_model(
        model_type, vocab_size=96, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, initializer_range=0.1, pad_token_id=2, bos_token_id=0, eos_token_id=5,
        sliding_window=None, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=register_packed_attention()).eval()
    model.lm_head.weight.data[5] *= 1.5
    rows = [torch.randint(6, 96, (length,)).tolist() for length in (3, 17, 9, 30)]
    compute, watch = DecodeStep._compute, Uncapturable()

    def watched(step, rows):
        with watch:
            compute(step, rows)

    monkeypatch.setattr(DecodeStep, "_compute", watched)
    answers = StaticDecoder(model, GREEDY, graphs=False, steps_per_look=3).decode(rows)
    assert answers == [one_by_one(model, row) for row in rows]
    assert watch.operations > 100
    assert watch.found == set()


def filled(cache, layer, rows, tokens, value):
    keys = torch.full((rows, 2, tokens, 3), float(value))
    return cache.update(keys, 10 * keys, layer)


def test_prompts_fill_their_rows_and_attend_to_themselves():
    cache = StaticRowsCache(2, rows=4, positions=6)
    cache.write_to(slice(1, 3), slice(2, 5))
    keys, values = filled(cache, 0, 2, 3, 7)
    assert (keys == 7).all()
    assert keys.shape == values.shape == (2, 2, 3, 3)
    layer = cache.layers[0]
    assert layer.keys.shape == (4, 2, 6, 3)
    assert (layer.keys[1:3, :, 2:5] == 7).all()
    assert (layer.values[1:3, :, 2:5] == 70).all()
    assert layer.keys.sum() == 7 * 2 * 2 * 3 * 3, "nothing was written anywhere else"


def test_a_step_writes_one_position_and_reads_whole_rows():
    cache = StaticRowsCache(1, rows=4, positions=6)
    cache.write_to(slice(0, 3), torch.tensor([4]))
    keys, values = filled(cache, 0, 3, 1, 5)
    assert keys.shape == values.shape == (3, 2, 6, 3)
    assert (keys[:, :, 4] == 5).all()
    assert keys.sum() == 5 * 3 * 2 * 3
    assert keys.data_ptr() == cache.layers[0].keys.data_ptr(), "the buffer itself, which a graph was captured with"


def test_masks_are_made_for_the_tokens_at_hand():
    layer = StaticRowsCache(1, rows=2, positions=6).layers[0]
    assert (layer.get_seq_length(), layer.get_max_length()) == (0, 6)
    assert layer.get_mask_sizes(3) == (3, 0)


def test_buffers_end_at_what_is_filled():
    cache = StaticRowsCache(2, rows=2, positions=6)
    for layer in range(2):
        filled(cache, layer, 2, 6, layer)
    buffers = list(cache.buffers(4))
    assert [buffer.shape for buffer in buffers] == [(2, 2, 4, 3)] * 4

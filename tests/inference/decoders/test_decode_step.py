"""One decoding step in buffers of fixed shape: what a CUDA graph can hold, and captures that signals do not break."""

import signal
from unittest.mock import MagicMock

import pytest
import torch
from greedy_reference import CAP, END, one_by_one
from torch.utils._python_dispatch import TorchDispatchMode

from medtune.inference.decoders import decode_step
from medtune.inference.decoders.decode_step import DecodeStep
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

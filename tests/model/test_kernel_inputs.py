"""What the training step hands to its kernels is laid out as the GPU's kernels take for granted.

They are given addresses and few strides: rows laid out otherwise would be read wrongly there and rightly by `plain`.
"""

import types
from contextlib import nullcontext

import pytest
import torch
from packed_models import FAMILIES, adapt, base_model, gradients_of, pack, some_rows, with_targets
from torch.nn.attention import SDPBackend, sdpa_kernel

from medtune.model import answer_loss
from medtune.model.answer_loss import add_answer_loss
from medtune.model.fused import layer_function
from medtune.model.fused import layers as fused_layers
from medtune.model.fused.layers import fuse_layers
from medtune.model.kernels import plain


def side_by_side(rows):
    return rows.stride(-1) == 1


@pytest.fixture
def calls(monkeypatch):
    """Counts calls of each kernel, and checks what they are given."""
    counts = {}

    def rms_norm(x, weight, eps, *, room=0):
        assert side_by_side(x)
        assert weight.is_contiguous()
        assert x.dtype == weight.dtype

    def rms_norm_backward(gradient, x, weight, rstd, add=None):
        assert side_by_side(gradient)
        assert gradient.dtype == x.dtype
        assert side_by_side(x)
        assert rstd.is_contiguous()
        assert rstd.shape == (len(x), 1)
        assert add is None or (side_by_side(add) and add.dtype == x.dtype)
        assert gradient.data_ptr() not in {t.data_ptr() for t in (x, add) if t is not None}  # it is overwritten

    def rotate(source, target, cos, sin, *, backward=False):
        assert side_by_side(source)
        assert side_by_side(target)
        assert source.shape == target.shape
        assert cos.shape == sin.shape == (len(source), source.shape[-1])
        assert cos.stride() == sin.stride()
        assert side_by_side(cos)
        half = cos.shape[-1] // 2
        assert torch.equal(cos[:, :half], cos[:, half:])
        assert torch.equal(sin[:, :half], sin[:, half:])
        assert half & (half - 1) == 0

    def swiglu(gate_up, *, room=0):
        assert side_by_side(gate_up)

    def swiglu_backward(gate_up, gradient, low_rank=None):
        assert side_by_side(gate_up)
        assert gradient.is_contiguous()
        assert all(side_by_side(matrix) and matrix.dtype == gradient.dtype for matrix in low_rank or ())
        assert gate_up.shape == (len(gradient), 2 * gradient.shape[1])

    def cross_entropy(logits, labels, *, with_gradient):
        assert logits.is_contiguous()
        assert labels.is_contiguous()
        assert labels.dtype == torch.int64

    def checked(check):
        def kernel(*args, **options):
            check(*args, **options)
            counts[check.__name__] = counts.get(check.__name__, 0) + 1
            return getattr(plain, check.__name__)(*args, **options)

        return kernel

    checks = (rms_norm, rms_norm_backward, rotate, swiglu, swiglu_backward, cross_entropy)
    kernels = types.SimpleNamespace(**{check.__name__: checked(check) for check in checks}, with_room=plain.with_room)
    for module in (fused_layers, layer_function, answer_loss):
        monkeypatch.setattr(module, "kernels_for", lambda x: kernels)
    return counts


@pytest.mark.parametrize("backend", [None, SDPBackend.MATH], ids=["any attention", "plain attention"])
@pytest.mark.parametrize("lengths", [[7, 1, 12, 5], [25]], ids=["rows", "one row"])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_layouts(calls, monkeypatch, family, recompute, lengths, backend):
    monkeypatch.setattr(fused_layers, "FEED_FORWARD_TOKENS", 10)
    model = adapt(base_model(FAMILIES[family]).to(torch.bfloat16), dtype=torch.bfloat16)
    for layer in fuse_layers(model):
        layer.recompute = recompute
    add_answer_loss(model.get_base_model())
    batch, labels = pack(some_rows(lengths))
    targets = with_targets(batch | {"labels": labels[None]})
    with sdpa_kernel(backend) if backend else nullcontext():
        gradients_of(model, model(**targets).mean())
    again = 2 if recompute else 1
    # Three layers of three pieces; norms of a piece are computed again to be an adapter's input, or with the rest.
    assert calls == {
        "rms_norm": 1 + 3 * (1 + 3) * 2,
        "rms_norm_backward": 1 + 3 * (1 + 3) - 1,  # nobody wants the embeddings' gradient
        "rotate": 3 * again + 3 * 2,
        "swiglu": 3 * 3,
        "swiglu_backward": 3 * 3,
        "cross_entropy": 1,
    }


def test_gradients_of_any_layout_reach_the_norms_kernel_in_order(calls):
    model = adapt(base_model(FAMILIES["llama"]))
    fuse_layers(model)
    batch, _ = pack(some_rows())
    hidden = model.get_base_model().model(**batch, use_cache=False).last_hidden_state
    for upstream in (torch.ones(1, 1, 1).expand_as(hidden), torch.randn(1, 32, 25).transpose(1, 2)):
        hidden.backward(upstream, retain_graph=True)

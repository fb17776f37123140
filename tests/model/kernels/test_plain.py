"""The kernels' mathematics in plain PyTorch, against autograd of straightforward formulas in float64."""

import pytest
import torch
from kernel_checks import angles, assert_near, random
from torch.nn.functional import cross_entropy, silu

from medtune.model.kernels import plain


def norm_formula(x, weight, eps):
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight


def rotation_formula(x, cos, sin):
    half = x.shape[-1] // 2
    turned = torch.cat([-x[..., half:], x[..., :half]], dim=-1)
    return x * cos[:, None] + turned * sin[:, None]


def test_rms_norm():
    x, weight, upstream, add = random(5, 24), random(24, seed=1), random(5, 24, seed=2), random(5, 24, seed=3)
    leaf = x.clone().requires_grad_()
    expected = norm_formula(leaf, weight, 1e-3)
    (gradient,) = torch.autograd.grad(expected, leaf, upstream)
    output, rstd = plain.rms_norm(x, weight, 1e-3)
    torch.testing.assert_close(output, expected.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(rstd, (x.square().mean(-1, keepdim=True) + 1e-3) ** -0.5)
    for more in (None, add):
        total = gradient if more is None else gradient + more
        result = plain.rms_norm_backward(upstream.clone(), x, weight, rstd, more)
        torch.testing.assert_close(result, total, rtol=1e-12, atol=1e-12)


def test_norm_and_activation_leave_room():
    wide, _ = plain.rms_norm(random(5, 24), random(24), 1e-3, room=8)
    assert wide.shape == (5, 32)
    assert torch.equal(wide[:, :24], plain.rms_norm(random(5, 24), random(24), 1e-3)[0])
    wide = plain.swiglu(random(5, 24), room=4)
    assert wide.shape == (5, 16)
    assert torch.equal(wide[:, :12], plain.swiglu(random(5, 24)))
    assert not wide[:, 12:].any()


@pytest.mark.parametrize("in_place", [False, True])
def test_rotation(in_place):
    x, upstream, (cos, sin) = random(6, 3, 8), random(6, 3, 8, seed=1), angles(6, 8)
    leaf = x.clone().requires_grad_()
    expected = rotation_formula(leaf, cos, sin)
    (gradient,) = torch.autograd.grad(expected, leaf, upstream)
    for source, wanted, backward in ((x, expected.detach(), False), (upstream, gradient, True)):
        source = source.clone()
        target = source if in_place else torch.full_like(source, float("nan"))
        plain.rotate(source, target, cos, sin, backward=backward)
        torch.testing.assert_close(target, wanted, rtol=1e-12, atol=1e-12)


def test_swiglu():
    gate_up, upstream = random(5, 24), random(5, 12, seed=1)
    leaf = gate_up.clone().requires_grad_()
    expected = silu(leaf[:, :12]) * leaf[:, 12:]
    (gradient,) = torch.autograd.grad(expected, leaf, upstream)
    torch.testing.assert_close(plain.swiglu(gate_up), expected.detach(), rtol=1e-12, atol=1e-12)
    output = plain.swiglu_backward(gate_up, upstream)
    torch.testing.assert_close(output, expected.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gate_up, gradient, rtol=1e-12, atol=1e-12)


def test_cross_entropy():
    logits, labels = random(5, 24) * 9, torch.tensor([0, 23, 7, 7, 1])
    leaf = logits.clone().requires_grad_()
    expected = cross_entropy(leaf, labels, reduction="none")
    (gradient,) = torch.autograd.grad(expected.sum(), leaf)
    kept = logits.clone()
    losses = plain.cross_entropy(logits, labels, with_gradient=False)
    torch.testing.assert_close(losses, expected.detach(), rtol=1e-12, atol=1e-12)
    assert torch.equal(logits, kept)
    assert torch.equal(plain.cross_entropy(logits, labels, with_gradient=True), losses)
    torch.testing.assert_close(logits, gradient, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_in_float32(dtype):
    """Where 16 bit would overflow or lose the sum."""
    x, weight = (random(3, 512) * 300).to(dtype), random(512, seed=1).to(dtype)
    output, rstd = plain.rms_norm(x, weight, 1e-5)
    assert (output.dtype, rstd.dtype) == (dtype, torch.float32)
    assert_near(output, norm_formula(x.double(), weight.double(), 1e-5), dtype)
    logits, labels = (random(3, 512) * 9).to(dtype), torch.tensor([1, 2, 3])
    losses = plain.cross_entropy(logits, labels, with_gradient=False)
    assert losses.dtype == torch.float32
    assert_near(losses, cross_entropy(logits.double(), labels, reduction="none"), torch.float32)

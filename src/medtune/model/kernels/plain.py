"""The kernels' mathematics in plain PyTorch: what CPU runs use, and what the GPU's versions are compared with.

Rows are tokens: tensors have shape (tokens, width). Sums are taken in float32, or float64 for float64 inputs.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import silu


def with_room(like: Tensor, width: int, room: int) -> Tensor:
    """Empty rows, as many as `like` has, with `room` more columns than their `width`. GPUs leave these undefined."""
    rows = like.new_empty((len(like), width + room))
    # oneDNN's products of 16-bit rows read a little of what lies behind them, times zero: it has to be finite.
    rows[:, width:].zero_()
    return rows


def rms_norm(x: Tensor, weight: Tensor, eps: float, *, room: int = 0) -> tuple[Tensor, Tensor]:
    """Root-mean-square norm (Zhang & Sennrich 2019) of each row of `x`, and each row's 1 / rms.

    The norm comes `with_room`.
    """
    # A copy, to be scaled in place: on a CPU the passes over memory are what takes time.
    wide = x.clone() if x.dtype == torch.float64 else x.to(torch.float32, copy=True)
    rms_squared = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[1])
    rstd = rms_squared.add_(eps).rsqrt_()
    rows = with_room(x, x.shape[1], room)
    torch.mul(wide.mul_(rstd), _wide(weight), out=rows[:, : x.shape[1]])
    return rows, rstd


def rms_norm_backward(gradient: Tensor, x: Tensor, weight: Tensor, rstd: Tensor, add: Tensor | None = None) -> Tensor:
    """The gradient of `rms_norm` by `x`, plus `add` where it is given. It takes the place of `gradient`."""
    wide = _wide(x)
    inner = _wide(gradient) * _wide(weight)
    share = (inner * wide).mean(-1, keepdim=True) * rstd.pow(3)
    result = inner.mul_(rstd).addcmul_(wide, share, value=-1)
    return gradient.copy_(result if add is None else result.add_(_wide(add)))


def rotate(source: Tensor, target: Tensor, cos: Tensor, sin: Tensor, *, backward: bool = False) -> None:
    """Rotary embedding (Su et al. 2021) of `source`, (tokens, heads, head_dim), into `target`; they may be the same.

    `cos` and `sin` have shape (tokens, head_dim), both halves alike. `backward` turns the other way.
    """
    half = source.shape[-1] // 2
    first, second = source[..., :half], source[..., half:]
    c, s = cos[:, None, :half], sin[:, None, :half]
    s = -s if backward else s
    turned = first * c - second * s
    target[..., half:] = second * c + first * s
    target[..., :half] = turned


def swiglu(gate_up: Tensor, *, room: int = 0) -> Tensor:
    """silu(gate) * up (Shazeer 2020) of rows that hold gate and up side by side, `with_room`."""
    gate, up = gate_up.chunk(2, dim=-1)
    rows = with_room(gate_up, gate.shape[1], room)
    torch.mul(silu(gate), up, out=rows[:, : gate.shape[1]])
    return rows


def swiglu_backward(gate_up: Tensor, gradient: Tensor, low_rank: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Return what `swiglu` returned; `gate_up` is overwritten by its own gradient, and `gradient` may be.

    The product of the two matrices `low_rank`, (tokens, rank) and (rank, width), is first added to `gradient`.
    """
    if low_rank is not None:
        gradient.addmm_(*low_rank)
    gate, up = gate_up.chunk(2, dim=-1)
    activated = silu(gate)
    output = activated * up
    by_activation = gradient * up
    torch.mul(gradient, activated, out=up)
    gate.copy_(torch.ops.aten.silu_backward(by_activation, gate))
    return output


def cross_entropy(logits: Tensor, labels: Tensor, *, with_gradient: bool) -> Tensor:
    """Each row's negative log-likelihood of its label; `with_gradient` overwrites `logits` by its gradient."""
    log_probabilities = torch.log_softmax(_wide(logits), dim=-1)
    losses = -log_probabilities.gather(1, labels[:, None]).squeeze(1)
    if with_gradient:
        gradient = log_probabilities.exp_()
        gradient[torch.arange(len(labels), device=labels.device), labels] -= 1
        logits.copy_(gradient)
    return losses


def attend_last_token(
    query: Tensor, keys: Tensor, values: Tensor, start: Tensor, length: Tensor, scaling: float
) -> Tensor:
    """See `attention.attend_last_token`; here every position of the cache is scored, those that a row reads or not."""
    positions = torch.arange(keys.shape[2], device=keys.device)
    unread = (positions < start[:, None]) | (positions >= length)
    unread = unread[:, None, :, None]
    groups = query.reshape(len(query), keys.shape[1], -1, query.shape[-1])
    scores = (groups @ keys.transpose(2, 3)) * scaling
    scores = scores.masked_fill(unread.transpose(2, 3), float("-inf"))
    weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(values.dtype)
    # What nobody wrote or what padding left there may be NaN, and 0 x NaN is NaN.
    return (weights @ values.masked_fill(unread, 0)).reshape(query.shape)


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()

"""The kernels' mathematics in plain PyTorch: what CPU runs use, and what the GPU's versions are compared with.

Rows are tokens: tensors have shape (tokens, width). Sums are taken in float32, or float64 for float64 inputs.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import silu


def rms_norm(x: Tensor, weight: Tensor, eps: float, *, columns: int = 0) -> tuple[Tensor, Tensor]:
    """Root-mean-square norm (Zhang & Sennrich 2019) of each row of `x`, and each row's 1 / rms.

    The norm comes with room for `columns` more behind it, whose values are undefined.
    """
    wide = _wide(x)
    rstd = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return _with_room((wide * rstd * _wide(weight)).to(x.dtype), columns), rstd


def rms_norm_backward(gradient: Tensor, x: Tensor, weight: Tensor, rstd: Tensor, add: Tensor | None = None) -> Tensor:
    """The gradient of `rms_norm` by `x`, plus `add` where it is given; may overwrite `gradient`."""
    wide = _wide(x)
    inner = _wide(gradient) * _wide(weight)
    share = (inner * wide).mean(-1, keepdim=True) * rstd.pow(3)
    result = inner.mul_(rstd).addcmul_(wide, share, value=-1)
    return (result if add is None else result.add_(_wide(add))).to(x.dtype)


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


def swiglu(gate_up: Tensor, *, columns: int = 0) -> Tensor:
    """silu(gate) * up (Shazeer 2020) of rows that hold gate and up side by side, with room as in `rms_norm`."""
    gate, up = gate_up.chunk(2, dim=-1)
    return _with_room(silu(gate) * up, columns)


def swiglu_backward(gate_up: Tensor, gradient: Tensor) -> Tensor:
    """Return what `swiglu` returned; `gate_up` is overwritten by its own gradient, and `gradient` may be."""
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


def _with_room(rows: Tensor, columns: int) -> Tensor:
    if not columns:
        return rows
    # NaN, so that whoever reads what he has not written is found out.
    room = rows.new_full((len(rows), columns), float("nan"))
    return torch.cat([rows, room], dim=1)


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()

"""Rows of a static cache to attend to, and that attention by its definition."""

import torch

from medtune.model.attention import DecodeSpan

# heads, key heads, head_dim, positions, filled: groups of 1, 4 and 3; lengths within, at and over a block.
SHAPES = [(4, 4, 16, 40, 33), (8, 2, 32, 300, 257), (9, 3, 64, 130, 1), (4, 1, 64, 128, 128), (2, 1, 256, 100, 65)]


def case(shape, dtype=torch.float32, device="cpu"):
    """Query, keys, values and span of three rows: from the first position, from the middle, and of one token."""
    heads, key_heads, head_dim, positions, filled = shape
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(3, 1, heads, head_dim, generator=generator).transpose(1, 2).squeeze(2)
    # The first rows of larger buffers, as a step has them.
    keys, values = (torch.randn(5, key_heads, positions, head_dim, generator=generator)[:3] for _ in range(2))
    starts = [0, filled // 3, filled - 1]
    for row, start in enumerate(starts):
        for buffer in (keys, values):
            buffer[row, :, :start] = buffer[row, :, filled:] = float("nan")
    span = DecodeSpan(torch.tensor(starts, dtype=torch.int32), torch.tensor([filled], dtype=torch.int32))
    return (
        *(x.to(device, dtype) for x in (query, keys, values)),
        DecodeSpan(span.start.to(device), span.length.to(device)),
    )


def by_definition(query, keys, values, span, scaling):
    rows = []
    for row, start in enumerate(span.start.tolist()):
        read = slice(start, int(span.length))
        groups = query.shape[1] // keys.shape[1]
        k, v = (x[row, :, read].double().repeat_interleave(groups, 0) for x in (keys, values))
        scores = torch.einsum("hd,hpd->hp", query[row].double(), k) * scaling
        rows.append(torch.einsum("hp,hpd->hd", scores.softmax(-1), v))
    return torch.stack(rows)

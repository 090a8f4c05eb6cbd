"""Pieces of definitions, written out, that several `naive` references share. Slow on purpose.

B batch, N queries, M keys, C channels, h heads, d = C / h.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions._contract import Grid, Site


def mix_per_head(
    q: Tensor, k: Tensor, v: Tensor, heads: int, weights: Callable[[Tensor, Tensor, int], Tensor]
) -> Tensor:
    """Mix v (B, M, C) head by head, (B, N, C): `weights(q, k, head)` returns the (B, N, M) map of a head."""
    d = v.shape[-1] // heads
    parts = [slice(head * d, (head + 1) * d) for head in range(heads)]
    mixed = [weights(q[..., part], k[..., part], head) @ v[..., part] for head, part in enumerate(parts)]
    return torch.cat(mixed, dim=-1)


def same_region(regions: Tensor) -> Tensor:
    """Return (B, N, N), 1 where two tokens may mix and 0 elsewhere, for labels (B, N)."""
    return (regions[:, :, None] == regions[:, None, :]).double()


def normalised(scores: Tensor, eps: float, regions: Tensor | None = None) -> Tensor:
    """Divide scores (B, N, M) by their sum over keys; eps is added to the mean, as in the linear order."""
    if regions is not None:
        scores = scores * same_region(regions)
    return scores / (scores.sum(dim=-1, keepdim=True) + eps * scores.shape[-1])


def cell_means(x: Tensor, grid: Grid, cells: tuple[int, int]) -> Tensor:
    """Return the means of tokens (B, N, C) over `cells` of their grid: (B, cells, C).

    A cell runs from the floor of its first edge to the ceiling of its second: uneven cells overlap.
    """
    height, width, prefix = grid
    rows, columns = cells
    means = []
    for row in range(rows):
        for column in range(columns):
            down = range(row * height // rows, -(-(row + 1) * height // rows))
            right = range(column * width // columns, -(-(column + 1) * width // columns))
            cell = [prefix + y * width + x for y in down for x in right]
            means.append(sum((x[:, token] for token in cell), torch.zeros_like(x[:, 0])) / len(cell))
    return torch.stack(means, dim=1)


def convolved(v: Tensor, weight: Tensor, bias: Tensor, site: Site, regions: Tensor | None = None) -> Tensor:
    """Convolve the values (B, M, C) depthwise, as a sum over taps: (B, N, C); prefix tokens get zeros.

    `weight` is (C, 1, kernel, kernel) and `bias` (C,).
    """
    height, width, prefix = site.queries
    kernel = weight.shape[-1]
    v = v[:, site.keys.prefix :]
    if v.shape[1] != height * width:
        v = F.interpolate(v.transpose(1, 2), size=height * width, mode="linear").transpose(1, 2)
    rows = [torch.zeros_like(v[:, 0])] * prefix
    for token in range(height * width):
        y, x = divmod(token, width)
        total = bias.expand(v.shape[0], -1)
        for dy in range(kernel):
            for dx in range(kernel):
                yy, xx = y + dy - kernel // 2, x + dx - kernel // 2
                if 0 <= yy < height and 0 <= xx < width:
                    other = yy * width + xx
                    same = 1.0 if regions is None else same_region(regions)[:, token, other, None]
                    total = total + v[:, other] * weight[:, 0, dy, dx] * same
        rows.append(total)
    return torch.stack(rows, dim=1)

"""What an attention map is like: its rank, how it spreads, how far it looks; and how tokens differ. All in float64.

Weights may be negative (InLine attention, a convolution): where a share of the attention is meant, those are absolute
values, divided by their sum over the keys of a query.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from attentions import Grid

FOCUS = 0.1
"""The share of keys, those with the largest weights, whose mass is called focus."""


def ranks(weights: Tensor) -> tuple[float, float]:
    """Return the numerical and the effective rank of maps (..., N, M), on average.

    The numerical rank counts the singular values above max(N, M) * eps * the largest, as numpy and torch do. The
    effective rank is exp of the entropy of the singular values divided by their sum (O. Roy, M. Vetterli, "The
    effective rank", EUSIPCO 2007): 1 for a map of one direction, N for N equal ones.
    """
    values = torch.linalg.svdvals(weights.flatten(0, -3))
    largest = values[:, :1]
    tolerance = max(weights.shape[-2:]) * torch.finfo(weights.dtype).eps * largest
    shares = values / values.sum(-1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
    return float((values > tolerance).sum(-1).double().mean()), float(_entropy(shares).exp().mean())


def shares(weights: Tensor) -> Tensor:
    """Return absolute weights (..., N, M) divided by their sum over the keys; a query without any has equal ones."""
    sizes = weights.abs()
    sums = sizes.sum(-1, keepdim=True)
    return torch.where(sums > 0, sizes / sums, torch.full_like(sizes, 1 / weights.shape[-1]))


def _entropy(shares: Tensor) -> Tensor:
    return -torch.special.xlogy(shares, shares).sum(-1)


def entropy(shares: Tensor) -> float:
    """Return the mean entropy of the queries' shares, in nats: 0 where one key has all, log M where all have the same.

    Shares are (..., N, M), as of `shares`.
    """
    return float(_entropy(shares).mean())


def focus(shares: Tensor) -> float:
    """Return the mean share that the top 10 % of the keys of a query have, at least one key."""
    most = math.ceil(FOCUS * shares.shape[-1])
    return float(shares.topk(most, dim=-1).values.sum(-1).mean())


def distance(shares: Tensor, queries: Tensor, keys: Tensor) -> float:
    """Return the mean distance from a query to its keys, weighted by their shares (..., N, M), in the units of places.

    `queries` (N, 2) and `keys` (M, 2) are the places of the tokens; prefix tokens, which have none, are left out.
    """
    known = shares.sum(-1, keepdim=True)
    each = (shares * torch.cdist(queries, keys)).sum(-1) / known.squeeze(-1).clamp(min=torch.finfo(shares.dtype).tiny)
    return float(each.mean())


def head_similarity(weights: Tensor) -> float | None:
    """Return the mean cosine between the maps (B, heads, N, M) of two heads; None where there is one head."""
    heads = weights.shape[1]
    if heads < 2:
        return None
    flat = torch.nn.functional.normalize(weights.flatten(2), dim=-1)
    cosines = flat @ flat.transpose(-2, -1)
    return float((cosines.sum((-2, -1)) - heads).mean() / (heads * (heads - 1)))


def token_cosine(tokens: Tensor) -> float:
    """Return the mean cosine between two tokens of an image, for (B, N, C): near 1, all tokens say the same."""
    flat = torch.nn.functional.normalize(tokens.double(), dim=-1)
    number = tokens.shape[1]
    # The mean over all pairs needs no N x N matrix: it is the length of the mean direction, squared.
    together = flat.sum(1).square().sum(-1)
    return float((together - number).mean() / (number * (number - 1)))


def centres(grid: Grid, width: float, height: float) -> Tensor:
    """Return the middles of a grid's cells on an image of this size, (tokens, 2) as (x, y), prefix tokens left out."""
    rows, columns = torch.meshgrid(torch.arange(grid.height), torch.arange(grid.width), indexing="ij")
    x = (columns.flatten().double() + 0.5) * width / grid.width
    y = (rows.flatten().double() + 0.5) * height / grid.height
    return torch.stack([x, y], dim=-1)

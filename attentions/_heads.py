"""Splitting channels into heads and putting them together again; scores of a head, and tokens of a region."""

import torch
from torch import Tensor


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, N, C) -> (B, heads, N, C / heads)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(B, heads, N, d) -> (B, N, heads * d)."""
    return x.transpose(1, 2).flatten(2)


def region_masks(regions: Tensor, number: int, dtype: torch.dtype) -> list[Tensor]:
    """(B, N) labels from 0 to below `number` -> for each region 1 for its tokens and 0 for the others, (B, N, 1)."""
    return [(regions == region).unsqueeze(-1).to(dtype) for region in range(number)]


def scores(q: Tensor, k: Tensor) -> Tensor:
    """q k^T / sqrt(d) of q (B, heads, N, d) and k (B, heads, M, d), (B, heads, N, M); never in float16."""
    device = q.device.type
    cast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)  # never on the meta device
    half = torch.get_autocast_dtype(device) if cast else q.dtype
    scale = q.shape[-1] ** -0.5
    if half != torch.float16:
        return q * scale @ k.transpose(-2, -1)
    # Scores of a few hundred in each channel are beyond float16, and a softmax of infinities is NaN.
    with torch.autocast(device, enabled=False):
        wide = torch.promote_types(q.dtype, torch.float32)
        return q.to(wide) * scale @ k.to(wide).transpose(-2, -1)

"""Splitting channels into heads and merging them again; scores per head, and masks per region."""

import torch
from torch import Tensor


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Split (B, N, C) into (B, heads, N, C / heads)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """Merge (B, heads, N, d) into (B, N, heads * d)."""
    return x.transpose(1, 2).flatten(2)


def region_masks(regions: Tensor, number: int, dtype: torch.dtype) -> list[Tensor]:
    """Return a mask (B, N, 1) per region, 1 for its tokens and 0 for others, of labels (B, N) below `number`."""
    return [(regions == region).unsqueeze(-1).to(dtype) for region in range(number)]


def casts(x: Tensor) -> bool:
    """Return whether autocast is on for the device of x."""
    device = x.device.type
    # Autocast is never available on the meta device.
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def scores(q: Tensor, k: Tensor) -> Tensor:
    """Return q k^T / sqrt(d), (B, heads, N, M), for q (B, heads, N, d) and k (B, heads, M, d); never in float16."""
    device = q.device.type
    half = torch.get_autocast_dtype(device) if casts(q) else q.dtype
    scale = q.shape[-1] ** -0.5
    if half != torch.float16:
        return q * scale @ k.transpose(-2, -1)
    # Values of a few hundred per channel give scores beyond float16, and a softmax of infinities is NaN.
    with torch.autocast(device, enabled=False):
        wide = torch.promote_types(q.dtype, torch.float32)
        return q.to(wide) * scale @ k.to(wide).transpose(-2, -1)

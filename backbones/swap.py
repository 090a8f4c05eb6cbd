"""Replacing the attention of a timm vision transformer by a registered one; all other weights are kept.

model = swap(timm.create_model("vit_small_patch16_224", pretrained=True), "linear")
"""

from __future__ import annotations

from typing import Any

import torch
from timm.models.vision_transformer import Attention as TimmAttention
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from attentions import AttentionSpec, Grid, Site
from backbones._layers import input_for, mix


class SwappedAttention(nn.Module):
    """The projections and norms of timm's attention, under their names, around a registered one (`core`)."""

    def __init__(self, original: TimmAttention, attention: AttentionSpec, site: Site) -> None:
        super().__init__()
        self.heads = site.heads
        self.qkv, self.q_norm, self.k_norm = original.qkv, original.q_norm, original.k_norm
        like = original.qkv.weight
        with torch.device(like.device):
            self.core = attention.build(site).to(like.dtype)
        # timm added gates after 1.0.22.
        self.norm, self.gate = original.norm, getattr(original, "gate", None)
        self.proj, self.proj_drop = original.proj, original.proj_drop
        self.train(original.training)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        if attn_mask is not None or is_causal:
            raise ValueError("a swapped-in attention takes no attn_mask and is not causal")
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q, k = self._normed(q, self.q_norm), self._normed(k, self.k_norm)
        out = self.norm(mix(self.core, q, k, v, x=input_for(self.core, x)))
        if self.gate is not None:
            out = out * self.gate(x).sigmoid()
        return self.proj_drop(self.proj(out))

    def _normed(self, x: Tensor, norm: nn.Module) -> Tensor:
        """Normalise each head by itself, (B, N, C) -> (B, N, C); return x unchanged if there is no norm."""
        if isinstance(norm, nn.Identity):
            return x
        return norm(x.unflatten(-1, (self.heads, -1))).flatten(-2)


def swap(model: nn.Module, attention: AttentionSpec | str, first: int | None = None) -> VisionTransformer:
    """Replace the attention in the blocks of a timm `VisionTransformer`, in place; return the model.

    Projections, norms of queries and keys, and everything outside the attention keep their weights and names; the
    attention's own parameters are below `core`, freshly initialised. Class and register tokens are its prefix tokens.

    Args:
        model: from timm, of any size; images must keep the size it was made for.
        attention: a registered one, as a spec or text.
        first: the number of blocks to change, from the start; None for all.

    Raises:
        ValueError: in one sentence, for another kind of model, or one with a feature that registered attentions lack;
            the model is then unchanged.
    """
    spec = AttentionSpec.of(attention)
    if not isinstance(model, VisionTransformer):
        raise ValueError(f"{type(model).__name__} is not a timm VisionTransformer, the only kind swap can change")
    if model.dynamic_img_size:
        raise ValueError("the model takes images of any size (dynamic_img_size), but an attention has one grid")
    if not isinstance(model.patch_drop, nn.Identity):
        raise ValueError("the model drops patches in training (patch_drop_rate), but an attention needs a full grid")
    blocks: list[Any] = list(model.blocks)
    count = len(blocks) if first is None else first
    if not blocks:
        raise ValueError("the model has no block to change (depth=0)")
    if not 1 <= count <= len(blocks):
        raise ValueError(f"first={count} is not allowed; it takes a number from 1 to {len(blocks)}, the model's blocks")
    height, width = model.patch_embed.grid_size
    grid = Grid(height, width, model.num_prefix_tokens)
    swapped = [_swapped(block, spec, grid) for block in blocks[:count]]
    for block, host in zip(blocks, swapped, strict=False):
        block.attn = host
    return model


def _swapped(block: nn.Module, attention: AttentionSpec, grid: Grid) -> SwappedAttention:
    original: Any = getattr(block, "attn", None)
    if type(original) is not TimmAttention:
        raise ValueError(
            f"its blocks ({type(block).__name__}) do not contain timm's plain Attention, which swap replaces"
        )
    dim, inner = original.qkv.in_features, original.qkv.out_features // 3
    if inner != dim:
        raise ValueError(f"its attention has {inner} channels but its tokens have {dim}; the numbers must be equal")
    if original.attn_drop.p > 0:
        rate = original.attn_drop.p
        raise ValueError(f"its attention drops weights (attn_drop_rate={rate}), which no registered attention does")
    try:
        return SwappedAttention(original, attention, Site(dim, original.num_heads, grid, grid))
    except ValueError as problem:
        raise ValueError(f"{attention.name}: {problem}") from None

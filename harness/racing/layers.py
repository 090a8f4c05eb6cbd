"""The layer around an attention in a block of a preset, with its core or what a foreign callable makes in its place.

B images or windows, N tokens, C channels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from attentions import Attention, lookup
from backbones import BackboneSpec
from backbones.cswin import Block, CSWinSpec

MADE = "made"
"""The name of a foreign module in a layer: its parameters lie one level deeper than those of the core."""


def layer_of(
    model: nn.Module, spec: BackboneSpec, stage: int
) -> tuple[nn.Module, tuple[int, ...], tuple[Tensor | None, ...]]:
    """Return the layer in the first block of a stage (from 1), the shape of its tokens, and what else it gets.

    The shape (B, N, C) is that of one image. In CSWin the layer has both branches of stripes.
    """
    mounts = spec.mounts()
    first = next(at for at, mount in enumerate(mounts) if mount.stage == stage)
    hosts = [(name, each) for name, each in model.named_modules() if isinstance(getattr(each, "core", None), Attention)]
    name, host = hosts[sum(len(mount.sites) for mount in mounts[:first])]
    if isinstance(spec, CSWinSpec):
        block = model.get_submodule(name.rpartition(".attns.")[0])
        assert isinstance(block, Block)
        return Stripes(block), (1, mounts[first].grid.tokens, mounts[first].dim), ()
    seen: list[tuple[Tensor | None, ...]] = []
    host.register_forward_pre_hook(lambda module, args: seen.append(args))
    with torch.no_grad():
        model(torch.zeros(1, spec.in_channels, *spec.image_size))
    host._forward_pre_hooks.clear()
    (x, *others) = seen[0]
    assert x is not None
    return host, tuple(x.shape), tuple(others)


def takes_before_norm(spec: BackboneSpec) -> bool:
    """Whether the attention under test takes the block's input before the norm, beside what is projected."""
    return isinstance(spec, CSWinSpec) and spec.input_before_norm and lookup(spec.attention.name).takes_input


class Stripes(nn.Module):
    """The attention of a CSWin's block, which is no module there: its projections, and its branches of stripes."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.qkv, self.attns, self.proj = block.qkv, block.attns, block.proj

    def forward(self, x: Tensor, *, before_norm: Tensor | None = None) -> Tensor:
        """(B, N, C) -> (B, N, C); `before_norm`, (B, N, C), is for an attention that takes the block's input."""
        return Block.mix(self, x, x if before_norm is None else before_norm)  # type: ignore[arg-type]


def with_cores(layer: nn.Module, make: Callable[[Attention], nn.Module]) -> nn.Module:
    """Return a copy of a layer with what is made for each of its cores in place of it."""
    found = copy.deepcopy(layer)
    for host in list(found.modules()):
        core = getattr(host, "core", None)
        if isinstance(core, Attention):
            host.core = InPlace(make(core), core)
    return found


def own_name(name: str) -> str:
    """Return the name that a parameter has in the layer with its own core."""
    return name.replace(f"core.{MADE}.", "core.")


class InPlace(nn.Module):
    """A foreign module in place of a core: it gets q, k, v, and of `bias`, `x` and `regions` what there is."""

    def __init__(self, made: nn.Module, core: Attention) -> None:
        super().__init__()
        self.add_module(MADE, made)
        self.takes_bias, self.takes_input = core.takes_bias, core.takes_input

    def forward(self, q: Tensor, k: Tensor, v: Tensor, **given: Tensor | None) -> Tensor:
        out: Tensor = getattr(self, MADE)(q, k, v, **{name: x for name, x in given.items() if x is not None})
        return out

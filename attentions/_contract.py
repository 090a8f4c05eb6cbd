"""The contract: the backbone decides which tokens meet, the attention how they mix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

Given = Tensor | None
"""The type of an argument that an attention gets only where it asks for it (`takes_bias` and the like)."""


class Grid(NamedTuple):
    """A row-major grid of tokens, preceded by `prefix` tokens (a class token) that lie outside it."""

    height: int
    width: int
    prefix: int = 0

    @property
    def tokens(self) -> int:
        """Length of the token axis, prefix included."""
        return self.prefix + self.height * self.width


@dataclass(frozen=True)
class Site:
    """The place an attention is mounted: every shape that it may rely on, and nothing else.

    `regions` > 1 means that a batch entry holds tokens of up to that many regions, which must not mix (a shifted
    window across the image border); `forward` then gets a `regions` tensor.

    Raises:
        ValueError: if `heads` does not divide `dim`.
    """

    dim: int
    heads: int
    queries: Grid
    keys: Grid
    regions: int = 1

    def __post_init__(self) -> None:
        if self.dim % self.heads:
            raise ValueError(f"{self.heads} heads do not divide {self.dim} channels")

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads


@dataclass(frozen=True)
class Macs:
    """Multiply-adds by what they are spent on. One multiply-add counts as 1 (papers call it one FLOP).

    `norms` is 5 per element of a LayerNorm, as fvcore counts it; it is not part of `total`, which covers matrix
    products and convolutions only.
    """

    attention: int = 0
    projections: int = 0
    convolutions: int = 0
    mlp: int = 0
    norms: int = 0

    @property
    def total(self) -> int:
        return self.attention + self.projections + self.convolutions + self.mlp

    def __add__(self, other: Macs) -> Macs:
        return Macs(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __mul__(self, times: int) -> Macs:
        return Macs(*(getattr(self, f.name) * times for f in fields(self)))


class Attention(nn.Module):
    """Mixes tokens at one `Site`: q (B, N, C), k and v (B, M, C) -> (B, N, C), heads not yet split.

    N and M are `site.queries.tokens` and `site.keys.tokens`; B counts images, windows or stripes. A subclass names
    its options as keyword-only arguments of its constructor, each with an annotation and a default: that signature is
    the option schema. Where its mathematics does not work at a site, the constructor raises ValueError with one
    sentence on why.

    What a subclass declares here is taken to be true, and `attention-bench check` tests it.
    """

    takes_bias: ClassVar[bool] = False
    """Takes an additive `bias`, (B, heads, N, M), or (1, heads, N, M) for all entries: relative position bias, mask."""

    takes_input: ClassVar[bool] = False
    """Takes `x`, the input of the block's projections, (B, N, C)."""

    takes_regions: ClassVar[bool] = False
    """Works where `site.regions` > 1; takes `regions`, (B, N) integers: tokens of different regions must not mix."""

    reads: ClassVar[str] = "qkv"
    """The letters of q, k and v that it reads: the host's projections of the others get no gradient."""

    exponent: ClassVar[int] = 1
    """Time and multiply-adds grow with this power of the number of tokens, where there are as many keys as queries."""

    exempt: ClassVar[Mapping[str, str]] = {}
    """Laws of the certificate that do not hold by design: each name, and the reason in one sentence."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        """Return the mixed tokens, (B, N, C), in the dtype of v."""
        raise NotImplementedError

    def naive(
        self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
    ) -> Tensor:
        """Return what `forward` does, by the definition: the reference for its outputs and gradients.

        Write it as obviously as possible: loops and full maps of weights, from the parameters of this module, with
        none of the code that `forward` uses. It runs in float64 on a few dozen tokens.
        """
        raise NotImplementedError

    @property
    def uses_positions(self) -> bool:
        """Whether a token's position matters (a convolution, pooling, a positional encoding); may depend on options.

        Where it does not, permuting the tokens permutes the output, and changes nothing else.
        """
        return False

    def macs(self) -> Macs:
        """Return the multiply-adds for one batch entry, by a closed formula."""
        raise NotImplementedError

"""The contract: the backbone decides which tokens meet, the attention how they mix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

Given = Tensor | None
"""The type of an argument that an attention gets only where it asks for it (`takes_bias` and the like)."""


class Grid(NamedTuple):
    """A row-major grid of tokens, behind `prefix` tokens (a class token) which lie outside it."""

    height: int
    width: int
    prefix: int = 0

    @property
    def tokens(self) -> int:
        """Length of the token axis, prefix included."""
        return self.prefix + self.height * self.width


@dataclass(frozen=True)
class Site:
    """Where an attention is mounted: every shape that it may rely on, and nothing else.

    `regions` > 1 says that a batch entry holds tokens of up to so many regions which must not mix (a shifted
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
    """Multiply-adds by what they are spent on. One multiply-add counts 1 (papers call it one FLOP).

    `norms` is 5 per element of a LayerNorm, the convention of fvcore; it stands beside `total`, which holds
    matrix products and convolutions only.
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

    N and M are `site.queries.tokens` and `site.keys.tokens`; B counts images, or windows, or stripes. A
    subclass names its options as keyword-only arguments of its constructor, each with an annotation and a
    default: that signature is the option schema. Where its mathematics does not work at a site, the constructor raises
    ValueError with one sentence on why.

    What a subclass declares here is held to be true, and `attention-bench check` tests it.
    """

    takes_bias: ClassVar[bool] = False
    """Takes `bias`, additive, (B, heads, N, M), or (1, heads, N, M) for all entries: relative position bias, mask."""

    takes_input: ClassVar[bool] = False
    """Takes `x`, the input of the block's projections, (B, N, C)."""

    takes_regions: ClassVar[bool] = False
    """Can be mounted where `site.regions` > 1; takes `regions`, (B, N) integers: unlike ones must not mix."""

    reads: ClassVar[str] = "qkv"
    """Which of q, k and v it looks at, by their letters: a host has no gradient for the projections of the others."""

    exponent: ClassVar[int] = 1
    """Time and multiply-adds grow with this power of the number of tokens, where queries and keys are as many."""

    exempt: ClassVar[Mapping[str, str]] = {}
    """Laws of the certificate, by their names, that do not hold by design, each with the reason in one sentence."""

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
        """The definition, as obvious as it can be written: the reference of `forward` and of its gradients.

        Loops and full maps of weights, from the parameters of this module; nothing that `forward` is made of. It runs
        in float64 on a few dozen tokens.
        """
        raise NotImplementedError

    @property
    def uses_positions(self) -> bool:
        """Whether a token's place matters (a convolution, pooling, a positional encoding); it may depend on options.

        Where it does not, permuting the tokens permutes the output, and nothing else.
        """
        return False

    def macs(self) -> Macs:
        """Closed formula of the multiply-adds for one batch entry."""
        raise NotImplementedError

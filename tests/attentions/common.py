"""Sites, inputs and modules for tests of single attentions; the laws of all: tests/harness/certificate/test_zoo.py."""

from collections.abc import Callable

import torch
from torch import Tensor

from attentions import Attention, AttentionSpec, Grid, Site

SITES = {
    "map": Site(32, 4, Grid(6, 4), Grid(6, 4)),
    "class token": Site(32, 4, Grid(3, 5, prefix=1), Grid(3, 5, prefix=1)),
    "reduced keys": Site(32, 4, Grid(8, 4), Grid(4, 2)),
}


def build(text: str, site: Site) -> Attention:
    """Build a module in float64, with parameters other than their initial zeros."""
    torch.manual_seed(0)
    module = AttentionSpec.parse(text).build(site).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module


def tokens(site: Site, batch: int = 2) -> list[Tensor]:
    """Return q, k, v and x."""
    generator = torch.Generator().manual_seed(1)
    sizes = (site.queries.tokens, site.keys.tokens, site.keys.tokens, site.queries.tokens)
    return [torch.randn(batch, n, site.dim, dtype=torch.float64, generator=generator).requires_grad_() for n in sizes]


def mix(function: Callable[..., Tensor], inputs: list[Tensor]) -> Tensor:
    """Return the output of a module, or of its `naive`, for q, k, v and x."""
    q, k, v, x = inputs
    return function(q, k, v, x=x)

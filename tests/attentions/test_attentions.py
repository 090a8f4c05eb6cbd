"""What single attentions promise besides the laws for all."""

import pytest
import torch

from attentions import AttentionSpec
from tests.attentions.common import SITES, build, tokens


@pytest.mark.parametrize("factor", [1, 3, 8, 32])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_focusing_is_finite_at_every_factor_and_scale(factor, scale):
    """x**32 exceeds float32 for moderate x; the paper's ablation includes it."""
    site = SITES["map"]
    module = build(f"focused(focusing_factor={factor})", site)
    with torch.no_grad():
        wanted = module(*(x * scale for x in tokens(site)[:3]))
    inputs = [(x.detach() * scale).float().requires_grad_() for x in tokens(site)[:3]]
    out = module.float()(*inputs)
    torch.testing.assert_close(out.double(), wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))
    for gradient in torch.autograd.grad(out.square().sum(), [*inputs, *module.parameters()]):
        assert gradient.isfinite().all()


def test_the_two_forms_of_softmax_are_one_function():
    site = SITES["reduced keys"]
    inputs = tokens(site)[:3]
    fused, explicit = (AttentionSpec.parse(text).build(site)(*inputs) for text in ("softmax", "softmax(fused=False)"))
    torch.testing.assert_close(fused, explicit)

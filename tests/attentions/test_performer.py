"""performer: its random features estimate the softmax kernel."""

from typing import Any

import pytest
import torch

from attentions import AttentionSpec, Grid, Site
from attentions.performer import directions

SITE = Site(16, 2, Grid(4, 3), Grid(4, 3))


@pytest.mark.parametrize("orthogonal", [True, False])
def test_many_features_are_near_to_softmax_attention(orthogonal):
    torch.manual_seed(0)
    # The variance of the estimate is exponential in |q|^2 and |k|^2.
    q, k, v = torch.randn(3, 2, 12, 16) * torch.tensor([0.5, 0.5, 1]).view(3, 1, 1, 1)
    wanted = AttentionSpec.parse("softmax").build(SITE)(q, k, v)
    errors = []
    for features in (64, 16384):
        out = AttentionSpec("performer", {"features": features, "orthogonal": orthogonal}).build(SITE)(q, k, v)
        errors.append(float((out - wanted).norm() / wanted.norm()))
    # Attention that is the same everywhere is 0.2 away.
    assert errors[1] < 0.04
    assert errors[1] < errors[0] / 4


def test_directions_are_orthogonal_within_blocks_and_as_long_as_normal_ones():
    torch.manual_seed(0)
    drawn = directions(20, 8, orthogonal=True)
    block = drawn[8:16] @ drawn[8:16].T
    assert (block - block.diag().diag()).abs().max() < 1e-5
    lengths = directions(8000, 8, orthogonal=True).square().sum(dim=-1)
    assert float(lengths.mean()) == pytest.approx(8, rel=0.05)
    assert float(lengths.var()) == pytest.approx(16, rel=0.15)


def test_every_module_draws_its_own_directions():
    modules: list[Any] = [AttentionSpec.parse("performer").build(SITE) for _ in range(2)]
    first, second = modules
    assert not torch.equal(first.projection, second.projection)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.projection, second.projection)

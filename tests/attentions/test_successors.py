"""Agent, InLine and PolaFormer attention: their agents, means, kernels and powers, and what they refuse."""

from typing import Any

import pytest
import torch

from attentions import AttentionSpec, Grid, Site
from tests.attentions.common import SITES, build, mix, tokens


def shape_of_agents(text: str, queries: Grid) -> tuple[int, int]:
    with torch.device("meta"):
        module: Any = AttentionSpec.parse(text).build(Site(32, 4, queries, queries))
    return module.agents


@pytest.mark.parametrize("side", [224, 288, 384, 440])
def test_agents_of_a_pyramid_are_the_published_ones(side):
    counts = [shape_of_agents("agent(agents=None)", Grid(side // stride, side // stride)) for stride in (4, 8, 16, 32)]
    assert counts == [(3, 3), (4, 4), (7, 7), (7, 7)]


@pytest.mark.parametrize(
    ("queries", "agents"),
    [
        (Grid(14, 14, prefix=1), (7, 7)),
        (Grid(56, 1), (7, 1)),
        (Grid(1, 56), (1, 7)),
        (Grid(3, 5), (3, 5)),
    ],
)
def test_agents_fit_the_map(queries, agents):
    assert shape_of_agents("agent", queries) == agents


def test_agents_are_means_of_queries_and_the_class_token_is_none_of_them():
    """One agent without biases: each query reads only from it, and it attends to the keys with the mean query."""
    site = SITES["class token"]
    module, (q, k, v, _) = build("agent(agents=1, agent_bias=False, kernel_size=None)", site), tokens(site)
    mean = q[:, 1:].mean(dim=1, keepdim=True)
    wanted = AttentionSpec("softmax").build(Site(32, 4, Grid(1, 1), site.keys))(mean, k, v)
    torch.testing.assert_close(module(q, k, v), wanted.expand_as(q))


def test_weights_of_inline_sum_to_one_and_a_longer_query_gets_others():
    site = SITES["map"]
    module, (q, k, v, x) = build("inline(kernel_size=None)", site), tokens(site)
    ones = torch.ones_like(v)
    torch.testing.assert_close(module(q, k, ones, x=x), ones)
    linear = build("linear", site)
    torch.testing.assert_close(linear(q, k, v), linear(3 * q, k, v), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(module(q, k, v, x=x), module(3 * q, k, v, x=x), rtol=0.1, atol=0.1)


def test_kernels_of_inline_are_of_each_image():
    site = SITES["map"]
    module, (q, k, v, x) = build("inline", site), tokens(site)
    other = x.clone()
    other[1] = 2 * other[1]
    changed = module(q, k, v, x=other) - module(q, k, v, x=x)
    assert changed[0].abs().max() == 0
    assert changed[1].abs().max() > 0


def test_opposite_signs_reach_the_second_half_of_the_values():
    """For a query opposite to a key, same-signed scores (first half) are zero, and the second half sees all."""
    site = Site(4, 1, Grid(1, 2), Grid(1, 2))
    spec = AttentionSpec.parse("polaformer(kernel_size=None, positional_encoding=False)")
    module: Any = spec.build(site).double()
    q = torch.tensor([[[1.0, 2.0, 3.0, 4.0]] * 2], dtype=torch.float64)
    k = torch.cat((q[:, :1], -q[:, :1]), dim=1)
    v = torch.tensor([[[1.0] * 4, [2.0] * 4]], dtype=torch.float64)
    with torch.no_grad():
        module.g.weight.zero_()
        module.g.bias.fill_(1)
        out = module(q, k, v, x=torch.zeros_like(q))
    torch.testing.assert_close(out, torch.tensor([[[1.0, 1.0, 2.0, 2.0]] * 2], dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_zeros_give_the_learned_power_no_gradient_and_no_nan(dtype):
    """The derivative of 0**p by p is 0 * log 0."""
    module: Any = build("polaformer", SITES["map"]).to(dtype)
    inputs = [x.detach().to(dtype) for x in tokens(SITES["map"])]
    with torch.no_grad():
        module.positional_encoding.zero_()
        for x in inputs[:2]:
            x[..., ::2] = 0
    inputs = [x.requires_grad_() for x in inputs]
    leaves = [*inputs, *module.parameters()]
    found = torch.autograd.grad(mix(module, inputs).float().square().mean(), leaves)
    assert all(gradient.isfinite().all() for gradient in found)
    (power,) = (g for g, leaf in zip(found, leaves, strict=True) if leaf is module.power)
    assert power[..., ::2].abs().max() == 0
    assert power[..., 1::2].abs().max() > 0


@pytest.mark.parametrize(
    ("text", "site", "message"),
    [
        ("agent(agents=5)", SITES["map"], "agents=5 is not allowed; it takes None or a square number"),
        ("agent(agents=0)", SITES["map"], "agents=0 is not allowed"),
        ("polaformer(alpha=0)", SITES["map"], "alpha=0 is not allowed; it takes a number from 1 up"),
        ("polaformer", Site(9, 3, Grid(2, 2), Grid(2, 2)), "each head in half, but a head here has 3"),
        ("inline(kernel_size=2)", SITES["map"], "kernel_size=2 is not allowed"),
    ],
)
def test_what_is_refused(text, site, message):
    with pytest.raises(ValueError, match=message) as error:
        AttentionSpec.parse(text).build(site)
    assert "\n" not in str(error.value)

"""Every attention against a naive float64 definition, forward and gradient, and the laws of the contract."""

import math

import pytest
import torch

from attentions import Attention, AttentionSpec, Grid, Site, lookup, names

VARIANTS = (
    "softmax",
    "softmax(fused=False)",
    "linear",
    "linear(feature_map=elu)",
    "linear(kernel_size=3)",
    "focused",
    "focused(focusing_factor=1, kernel_size=None)",
    "focused(focusing_factor=8, kernel_size=3, positional_encoding=False)",
    "dwc",
    "dwc(kernel_size=3)",
    "performer",
    "performer(features=5, orthogonal=False)",
    "performer(kernel=relu)",
    "mlla",
    "mlla(kernel_size=None)",
    "mlla(rotary=False, kernel_size=5)",
    "rala",
    "rala(reweight=False)",
    "rala(gate=False)",
    "linformer",
    "linformer(length=5, share=True)",
    "nystromformer",
    "nystromformer(landmarks=5, kernel_size=None)",
    "soft",
    "soft(side=2, iterations=6)",
    "cosformer",
)
SITES = {
    "map": Site(32, 4, Grid(6, 4), Grid(6, 4)),
    "class token": Site(32, 4, Grid(3, 5, prefix=1), Grid(3, 5, prefix=1)),
    "reduced keys": Site(32, 4, Grid(8, 4), Grid(4, 2)),
    "one head": Site(16, 1, Grid(4, 4), Grid(4, 4)),
    "vertical stripe": Site(32, 4, Grid(8, 1), Grid(8, 1)),
}


def test_the_variants_cover_the_registry():
    assert {AttentionSpec.parse(text).name for text in VARIANTS} == set(names())


def build(text: str, site: Site) -> Attention:
    """In float64, with parameters that are not the zeros they start as."""
    torch.manual_seed(0)
    module = AttentionSpec.parse(text).build(site).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module


def builds(text: str, site: Site) -> bool:
    """Whether the mathematics of an attention works at a site."""
    try:
        AttentionSpec.parse(text).build(site)
    except ValueError:
        return False
    return True


PAIRS = [(text, where) for text in VARIANTS for where in SITES if builds(text, SITES[where])]


def given(module: Attention, batch: int = 2) -> dict[str, torch.Tensor]:
    """The block's input, in float64, for what takes it."""
    generator = torch.Generator().manual_seed(5)
    shape = (batch, module.site.queries.tokens, module.site.dim)
    x = torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()
    return {"x": x} if module.takes_input else {}


def tokens(site: Site, batch: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    sizes = (site.queries.tokens, site.keys.tokens, site.keys.tokens)
    return [torch.randn(batch, n, site.dim, dtype=torch.float64, generator=generator).requires_grad_() for n in sizes]


@pytest.mark.parametrize(("text", "where"), PAIRS)
def test_forward_and_gradients_equal_the_definition(text, where):
    site = SITES[where]
    module, inputs = build(text, site), tokens(SITES[where])
    x = given(module)
    out, wanted = module(*inputs, **x), module.naive(*inputs, **x)
    assert out.shape == (2, site.queries.tokens, site.dim)
    torch.testing.assert_close(out, wanted, rtol=1e-10, atol=1e-10)
    direction = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(2))
    leaves = [*inputs, *x.values(), *module.parameters()]
    got = torch.autograd.grad((out * direction).sum(), leaves, allow_unused=True)
    expected = torch.autograd.grad((wanted * direction).sum(), leaves, allow_unused=True)
    for ours, theirs in zip(got, expected, strict=True):
        zero = torch.zeros(())
        torch.testing.assert_close(
            *(torch.broadcast_tensors(zero if ours is None else ours, zero if theirs is None else theirs)),
            rtol=1e-7,
            atol=1e-9,
            check_dtype=False,
        )


@pytest.mark.parametrize("text", [text for text in VARIANTS if lookup(AttentionSpec.parse(text).name).takes_regions])
def test_regions_do_not_mix(text):
    site = Site(32, 4, Grid(4, 4), Grid(4, 4), regions=4)
    module, inputs = build(text, site), tokens(site)
    labels = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]).flatten()
    regions = torch.stack((labels, torch.zeros_like(labels)))
    x = given(module)
    out = module(*inputs, **x, regions=regions)
    torch.testing.assert_close(out, module.naive(*inputs, **x, regions=regions), rtol=1e-9, atol=1e-9)
    leaks = torch.autograd.grad(out[0, labels == 0].square().sum(), inputs, allow_unused=True)
    for leak in leaks:
        if leak is not None:
            assert leak[0, labels != 0].abs().max() == 0
            assert leak[0, labels == 0].abs().max() > 0
    assert leaks[2] is not None


@pytest.mark.parametrize("text", [text for text in VARIANTS if lookup(AttentionSpec.parse(text).name).takes_bias])
def test_bias_is_added_to_the_scores(text):
    site = SITES["map"]
    module, inputs = build(text, site), tokens(site)
    bias = torch.randn(2, site.heads, 24, 24, dtype=torch.float64)
    torch.testing.assert_close(module(*inputs, bias=bias), module.naive(*inputs, bias=bias))
    assert not torch.allclose(module(*inputs, bias=bias), module(*inputs))


@pytest.mark.parametrize("text", VARIANTS)
def test_batch_entries_do_not_leak(text):
    site = SITES["map"]
    module, (q, k, v) = build(text, site), tokens(site)
    leaks = torch.autograd.grad(module(q, k, v, **given(module))[0].sum(), (q, k, v), allow_unused=True)
    assert all(leak is None or leak[1].abs().max() == 0 for leak in leaks)


@pytest.mark.parametrize("text", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near_float64(text, dtype):
    site = SITES["map"]
    module, inputs = build(text, site), tokens(site)
    x = given(module)
    wanted = module(*inputs, **x)
    half = [x.detach().to(dtype) for x in (*inputs, *x.values())]
    with torch.autocast("cpu", dtype):
        got = module.float()(*half[:3], **dict(zip(x, half[3:], strict=True)))
    assert got.dtype == dtype
    error = (got.double() - wanted).norm() / wanted.norm()
    assert error < (0.05 if dtype == torch.bfloat16 else 0.005)


@pytest.mark.parametrize("factor", [1, 3, 8, 32])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_focusing_is_finite_at_every_factor_and_scale(factor, scale):
    """x**32 leaves float32 for modest x; the paper's ablation goes there."""
    site = SITES["map"]
    module = build(f"focused(focusing_factor={factor})", site)
    with torch.no_grad():
        wanted = module(*(x * scale for x in tokens(site)))
    inputs = [(x.detach() * scale).float().requires_grad_() for x in tokens(site)]
    out = module.float()(*inputs)
    torch.testing.assert_close(out.double(), wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))
    for gradient in torch.autograd.grad(out.square().sum(), [*inputs, *module.parameters()]):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("text", VARIANTS)
def test_macs_grow_with_tokens_as_the_mathematics_says(text):
    """Whatever does not grow, such as the inverse of a map between landmarks, falls out of the differences."""
    small, middle, large = (
        AttentionSpec.parse(text).build(Site(32, 4, Grid(n, n), Grid(n, n))).macs().total for n in (16, 32, 64)
    )
    exponent = math.log((large - middle) / (middle - small)) / math.log(4)
    assert exponent == pytest.approx(lookup(AttentionSpec.parse(text).name).exponent, abs=0.01)


def test_the_two_forms_of_softmax_are_one_function():
    site = SITES["reduced keys"]
    inputs = tokens(site)
    fused, explicit = (AttentionSpec.parse(text).build(site)(*inputs) for text in VARIANTS[:2])
    torch.testing.assert_close(fused, explicit)

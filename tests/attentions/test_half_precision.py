"""Half precision: finite forward and backward wherever the mathematics is, and near to float64."""

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

import backbones
from attentions import AttentionSpec, Grid, Site, lookup
from tests.attentions.test_attentions import SITES as PLAIN_SITES
from tests.attentions.test_attentions import VARIANTS, build, builds, given, tokens

FACTORS = (1, 3, 4, 8, 32)
TEXTS = (
    *VARIANTS,
    "linear(feature_map=elu, kernel_size=3)",
    *(f"focused(focusing_factor={factor})" for factor in FACTORS[1:]),
    "focused(focusing_factor=32, kernel_size=None)",
)
SITES = {
    **PLAIN_SITES,
    "square": Site(32, 4, Grid(6, 6), Grid(6, 6)),
    "regions": Site(32, 4, Grid(4, 6), Grid(4, 6), regions=4),
}
CASES = [
    (text, where)
    for text in TEXTS
    for where in SITES
    if (where != "regions" or lookup(AttentionSpec.parse(text).name).takes_regions) and builds(text, SITES[where])
]
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
# Inputs and weights in half precision; float32 weights behind half inputs, as inside of a model; float32 throughout.
MODES = ("half", "autocast, half inputs", "autocast, float32 inputs")


def regions_of(site: Site) -> Tensor | None:
    """Two images of 4 x 6 tokens: quarters, and one that is whole."""
    if site.regions == 1:
        return None
    quarters = torch.tensor([[0, 0, 0, 0, 1, 1]] * 3 + [[2, 2, 2, 2, 3, 3]]).flatten()
    return torch.stack((quarters, torch.zeros_like(quarters)))


def run(text: str, site: Site, inputs: list[Tensor], dtype: torch.dtype, mode: str) -> tuple[list[Tensor], ...]:
    """Output and gradients, of inputs and parameters: in `mode`, and in float64 for the same rounded inputs.

    The loss is a product with fixed random numbers. The block's input is always at the scale of a norm's output.
    """
    options = {} if site.regions == 1 else {"regions": regions_of(site)}
    results = []
    for exact in (False, True):
        module = build(text, site)
        module.to(dtype if mode == "half" else torch.float32)
        x = given(module)
        kind = torch.float32 if mode == "autocast, float32 inputs" else dtype
        leaves = [value.detach().to(kind) for value in (*inputs, *x.values())]
        if exact:
            module, leaves = module.double(), [leaf.double() for leaf in leaves]
        leaves = [leaf.requires_grad_() for leaf in leaves]
        with nullcontext() if exact or mode == "half" else torch.autocast("cpu", dtype):
            out = module(*leaves[:3], **dict(zip(x, leaves[3:], strict=True)), **options)
        assert out.dtype == leaves[2].dtype
        direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).to(dtype).to(out.dtype)
        wanted = [*leaves, *module.parameters()]
        gradients = torch.autograd.grad((out.double() * direction.double()).sum(), wanted, allow_unused=True)
        results.append([out.detach(), *(gradient for gradient in gradients if gradient is not None)])
    return tuple(results)


def check_finite(got: list[Tensor], exact: list[Tensor]) -> None:
    """Nothing but what is beyond the range of its dtype by itself may be infinite, and nothing NaN."""
    for ours, theirs in zip(got, exact, strict=True):
        beyond = theirs.abs() > 0.99 * torch.finfo(ours.dtype).max
        assert (ours.isfinite() | (ours.isinf() & beyond)).all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize(("text", "where"), CASES)
def test_outputs_and_gradients_are_as_near_to_float64_as_the_dtype_allows(text, where, precision, mode):
    got, wanted = run(text, SITES[where], tokens(SITES[where]), DTYPES[precision], mode)
    eps = torch.finfo(DTYPES[precision]).eps
    for ours, exact in zip(got, wanted, strict=True):
        # The rounding of inputs, weights, scores and output, at half an eps each.
        assert (ours.double() - exact).norm() < 2 * eps * exact.norm()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize(("text", "where"), CASES)
def test_outputs_and_gradients_are_finite_at_every_scale(text, where, scale, precision, mode):
    inputs = [x * scale for x in tokens(SITES[where])]
    got, exact = run(text, SITES[where], inputs, DTYPES[precision], mode)
    check_finite(got, exact)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("fill", [0.0, -1.0, -1e3], ids=["zero", "negative", "very negative"])
@pytest.mark.parametrize("text", TEXTS)
def test_tokens_without_a_positive_channel_are_finite(text, fill, precision, mode):
    """relu leaves nothing of them: no norm to divide by, and no scores to normalise with."""
    inputs = tokens(SITES["map"])
    for x in inputs[:2]:
        x.detach()[:, ::2] = fill
        x.detach()[1] = fill
    got, exact = run(text, SITES["map"], inputs, DTYPES[precision], mode)
    check_finite(got, exact)


FAMILIES = ("deit_micro", "pvt_micro", "pvt_v2_micro", "swin_micro", "cswin_micro")


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize(
    "attention", [*(f"focused(focusing_factor={factor})" for factor in (3, 8, 32)), "agent", "inline", "polaformer"]
)
@pytest.mark.parametrize("name", FAMILIES)
def test_whole_models_train_with_finite_loss_and_gradients(name, attention, precision):
    spec = backbones.preset(name, attention=attention)
    model = backbones.build(spec).train()
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(8, spec.in_channels, *spec.image_size, generator=generator)
    labels = torch.randint(spec.num_classes, (8,), generator=generator)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        with torch.autocast("cpu", DTYPES[precision]):
            logits = model(images)
        loss = torch.nn.functional.cross_entropy(logits.float(), labels)
        loss.backward()
        gradients = [p.grad for name, p in model.named_parameters() if name not in getattr(model, "never_used", ())]
        assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[0]

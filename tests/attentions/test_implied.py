"""Implied maps: what they are for each attention, by other ways to find them. In models: tests/backbones."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from attentions import Attention, AttentionSpec, Grid, ImpliedMap, Site, _copies, implied_map, names
from attentions._linear import ValueConvolution
from tests.attentions.common import SITES, build, tokens

REGIONS = Site(32, 4, Grid(4, 4), Grid(4, 4), regions=2)
PLACES = {**SITES, "regions": REGIONS}

KINDS = {
    "agent": "per head",
    "angular": "per head",
    "cosformer": "per head",
    "dwc": "per head",
    "efficient": "per head",
    "enhanced": "jacobian",  # its heads and channels are mixed by a layer within
    "focused": "per head",
    "hydra": "per channel",
    "inline": "per head",
    "linear": "per head",
    "linformer": "per head",
    "mlla": "per head",
    "nystromformer": "per head",
    "performer": "per head",
    "polaformer": "per channel",  # two maps per head, and a gate
    "rala": "per channel",  # a gate
    "sigmoid": "per head",
    "soft": "per head",
    "softmax": "per head",
    "xca": "jacobian",  # it mixes channels, and no tokens
}
"""Of those that read v, with their defaults."""

CONVOLVED = ("agent", "angular", "dwc", "focused", "inline", "mlla", "nystromformer", "polaformer")

OPTIONS = {
    "agent(agents=4, kernel_size=5)": "per head",
    "inline(kernel_size=None)": "per head",
    "linear(kernel_size=3)": "per head",
    "mlla(rotary=False, kernel_size=5)": "per head",
    "polaformer(kernel_size=None)": "per channel",
    "rala(gate=False)": "per head",
    "softmax(fused=False)": "per head",
}


def given(module: Attention, batch: int = 2) -> dict[str, Tensor]:
    """Return the arguments of `forward`, without gradients."""
    site = module.site
    q, k, v, x = (each.detach() for each in tokens(site, batch))
    inputs = {"q": q, "k": k, "v": v}
    if module.takes_input:
        inputs["x"] = x
    if module.takes_bias:
        inputs["bias"] = torch.randn(batch, site.heads, q.shape[1], k.shape[1], dtype=torch.float64)
    if site.regions > 1:
        inputs["regions"] = (torch.arange(q.shape[1]) % 4 > 1).long().expand(batch, -1).clone()
        inputs["regions"][1:] = 0
    return inputs


def mapped(module: Attention, inputs: dict[str, Tensor], queries: list[int] | None = None) -> ImpliedMap:
    q, k, v, bias, x, regions = map(inputs.get, ("q", "k", "v", "bias", "x", "regions"))
    assert q is not None
    assert k is not None
    assert v is not None
    return implied_map(module, q, k, v, bias=bias, x=x, regions=regions, queries=queries)


def by_heads(x: Tensor, module: Attention) -> Tensor:
    return x.unflatten(-1, (module.site.heads, -1)).transpose(1, 2)


def key_by_key(module: Attention, inputs: dict[str, Tensor]) -> Tensor:
    """Return the mean map of a head's channels, (B, h, N, M): one unit value in all channels at a time."""
    columns = []
    zeros = torch.zeros_like(inputs["v"])
    empty = module(**{**inputs, "v": zeros})
    for key in range(zeros.shape[1]):
        unit = zeros.clone()
        unit[:, key] = 1
        columns.append(by_heads(module(**{**inputs, "v": unit}) - empty, module).mean(dim=-1))
    return torch.stack(columns, dim=-1)


def test_each_attention_is_of_a_kind():
    """A new one has to say of which."""
    assert {*KINDS, "external"} == set(names())


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("text", [*KINDS, *OPTIONS])
def test_the_map_is_what_unit_values_show(text, place):
    kind = KINDS.get(text) or OPTIONS[text]
    try:
        module = build(text, PLACES[place]).eval()
    except ValueError:
        assert (text, place) == ("xca", "reduced keys")
        return
    if place == "regions" and not module.takes_regions:
        return
    inputs = given(module)
    with torch.no_grad():
        found, out = mapped(module, inputs), module(**inputs)
        assert found.kind == kind
        assert found.gap < 1e-12
        assert found.weights.dtype == torch.float64
        shape = (2, 4, inputs["q"].shape[1], inputs["k"].shape[1])
        assert found.weights.shape == found.together.shape == shape
        torch.testing.assert_close(found.offset, module(**{**inputs, "v": torch.zeros_like(inputs["v"])}))
        assert (found.convolution is not None) == (text in CONVOLVED or "kernel_size=3" in text or "=5" in text)
        if kind != "jacobian":
            torch.testing.assert_close(found.together, key_by_key(module, inputs), rtol=1e-10, atol=1e-12)
        if kind == "per head" and found.convolution is None:
            product = found.weights @ by_heads(inputs["v"], module)
            torch.testing.assert_close(product, by_heads(out, module), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("place", PLACES)
def test_the_part_of_a_convolution_is_its_own(place):
    """It is that of the module alone, and what is left is the map of the attention without one."""
    module, without = build("focused", PLACES[place]).eval(), build("focused(kernel_size=None)", PLACES[place]).eval()
    without.load_state_dict({name: x for name, x in module.state_dict().items() if not name.startswith("dwc.")})
    inputs = given(module)
    found = mapped(module, inputs)
    torch.testing.assert_close(found.weights, mapped(without, inputs).weights)
    assert isinstance(module.dwc, ValueConvolution)
    for key in range(inputs["v"].shape[1]):
        unit = torch.zeros_like(inputs["v"])
        unit[:, key] = 1
        regions = inputs.get("regions")
        column = module.dwc.naive(unit, regions) - module.dwc.naive(torch.zeros_like(unit), regions)
        assert found.convolution is not None
        torch.testing.assert_close(found.convolution[..., key], by_heads(column, module).mean(dim=-1))


def test_the_map_of_softmax_is_its_weights():
    module = build("softmax", SITES["reduced keys"])
    inputs = given(module)
    q, k = (by_heads(inputs[name], module) for name in "qk")
    scores = torch.einsum("bhnc,bhmc->bhnm", q, k) / math.sqrt(8) + inputs["bias"]
    torch.testing.assert_close(mapped(module, inputs).weights, scores.exp() / scores.exp().sum(dim=-1, keepdim=True))
    shared = {**inputs, "bias": inputs["bias"][:1]}
    found = mapped(module, shared).weights
    torch.testing.assert_close(found, mapped(module, {**shared, "bias": shared["bias"].expand(2, -1, -1, -1)}).weights)


def test_the_map_of_linear_attention_is_its_normalised_products():
    module = build("linear", REGIONS)
    inputs = given(module)
    q, k = (by_heads(inputs[name].clamp(min=0), module) for name in "qk")
    same = inputs["regions"][:, None, :, None] == inputs["regions"][:, None, None, :]
    products = torch.einsum("bhnc,bhmc->bhnm", q, k) * same
    wanted = products / (products.sum(dim=-1, keepdim=True) + 1e-6 * 16)
    torch.testing.assert_close(mapped(module, inputs).weights, wanted)


@pytest.mark.parametrize("text", ["linear(kernel_size=3)", "polaformer", "xca", "enhanced", "agent"])
def test_chosen_queries_are_rows_of_the_whole(text):
    module = build(text, SITES["class token"])
    inputs = given(module)
    whole, some = mapped(module, inputs), mapped(module, inputs, queries=[9, 0, 15])
    for ours, wanted in ((some.together, whole.together), (some.weights, whole.weights)):
        torch.testing.assert_close(ours, wanted[:, :, [9, 0, 15]])
    torch.testing.assert_close(some.offset, whole.offset[:, [9, 0, 15]])
    assert some.kind == whole.kind
    assert some.gap < 1e-12


class Curved(Attention):
    """The tanh of a mean of the values, per channel: not linear."""

    def forward(self, q, k, v, *, bias=None, x=None, regions=None):
        return (q.softmax(dim=1) * v.mean(dim=1, keepdim=True)).tanh()


class Positive(Attention):
    """The relu of a mean of the values: its Jacobian times v is its output, but it is not linear."""

    def forward(self, q, k, v, *, bias=None, x=None, regions=None):
        return q.softmax(dim=1) * v.mean(dim=1, keepdim=True).relu()


@pytest.mark.parametrize("which", ["xca", "enhanced", Curved, Positive])
def test_other_maps_are_norms_of_the_jacobian(which):
    site = SITES["map"]
    module = build(which, site).eval() if isinstance(which, str) else which(site)
    inputs = given(module, batch=1)
    found = mapped(module, inputs)
    whole = torch.autograd.functional.jacobian(lambda v: module(**{**inputs, "v": v})[0], inputs["v"])[:, :, 0]
    heads = whole.unflatten(1, (4, 8))  # (N, h, d, M, C)
    norms = heads.square().sum(dim=(2, 4)).sqrt().transpose(0, 1) / math.sqrt(8)
    assert found.kind == "jacobian"
    assert found.convolution is None
    torch.testing.assert_close(found.weights[0], norms)
    # It is exact where the values are mixed linearly, though across channels.
    assert (found.gap < 1e-12) if isinstance(which, str) else (found.gap > 1e-2)


def test_norms_are_the_weights_where_these_are_shared_by_a_heads_channels(monkeypatch):
    module = build("softmax", SITES["map"])
    inputs = given(module)
    weights = mapped(module, inputs).weights
    monkeypatch.setattr("attentions._implied.EXACT", -1.0)
    found = mapped(module, inputs)
    assert found.kind == "jacobian"
    torch.testing.assert_close(found.weights, weights)


class Squashed(Attention):
    """A convolution of the values that is no summand: what follows it is not a factor."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.dwc = ValueConvolution(site, 3)

    def forward(self, q, k, v, *, bias=None, x=None, regions=None):
        return self.dwc(v) @ torch.ones(v.shape[-1], v.shape[-1], dtype=v.dtype)


class OfQueries(Squashed):
    """A convolution, but not of the values."""

    def forward(self, q, k, v, *, bias=None, x=None, regions=None):
        return self.dwc(q).softmax(dim=1) * v.mean(dim=1, keepdim=True)


@pytest.mark.parametrize("cls", [Squashed, OfQueries])
def test_a_convolution_that_is_no_summand_is_part_of_the_weights(cls):
    module = cls(SITES["map"]).double()
    inputs = given(module)
    found = mapped(module, inputs)
    assert found.convolution is None
    assert found.gap < 1e-12
    if cls is OfQueries:
        torch.testing.assert_close(found.weights, key_by_key(module, inputs))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_it_is_computed_in_float64_whatever_the_dtype(dtype):
    module = AttentionSpec("focused").build(SITES["map"])
    inputs = {name: x.to(dtype) for name, x in given(module).items()}
    with torch.autocast("cpu", torch.bfloat16):
        found = mapped(module, inputs)
    wide = mapped(module.double(), {name: x.double() for name, x in inputs.items()})
    assert torch.equal(found.together, wide.together)


@pytest.mark.parametrize("text", ["agent", "softmax", "xca", "polaformer", "inline"])
def test_the_module_and_the_random_state_stay_as_they_are(text):
    module = build(text, SITES["map"]).float().train()
    calls = []
    module.register_forward_pre_hook(lambda *args: calls.append(args))
    inputs = {name: x.float().requires_grad_() for name, x in given(module).items()}
    module(**inputs).sum().backward()
    before = [(name, x, x.clone(), x.grad) for name, x in module.named_parameters()]
    forwards, state = [part.forward for part in module.modules()], torch.get_rng_state()
    mapped(module, inputs)
    assert len(calls) == 1
    assert module.training
    assert torch.equal(state, torch.get_rng_state())
    assert [part.forward for part in module.modules()] == forwards
    for (name, x, value, grad), (now, parameter) in zip(before, module.named_parameters(), strict=True):
        assert (name, grad) == (now, parameter.grad)
        assert parameter is x
        assert torch.equal(x, value)
        assert x.requires_grad


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("text", ["linear", "enhanced"])
def test_it_works_without_gradients(text, context):
    module = build(text, SITES["map"])
    with context():
        inputs = {name: x + 0 for name, x in given(module).items()}
        found = mapped(module, inputs)
    assert found.gap < 1e-12
    assert not found.weights.requires_grad


def test_values_of_zero_and_alike_do_not_hide_the_kind():
    module = build("hydra", SITES["map"])
    inputs = given(module)
    whole = mapped(module, inputs)
    for values in (torch.zeros_like(inputs["v"]), torch.ones_like(inputs["v"])):
        found = mapped(module, {**inputs, "v": values})
        assert found.kind == "per channel"
        torch.testing.assert_close(found.weights, whole.weights)


class Counting(Attention):
    """Counts the entries that it gets, call by call."""

    calls: list[int]

    def forward(self, q, k, v, *, bias=None, x=None, regions=None):
        self.calls.append(len(v))
        return v.mean(dim=1, keepdim=True).expand(-1, q.shape[1], -1)


def test_thousands_of_tokens_take_few_passes_and_little_memory(monkeypatch):
    grid = Grid(56, 56)
    module = Counting(Site(96, 1, grid, grid))
    monkeypatch.setattr(Counting, "calls", [], raising=False)
    q = torch.randn(1, 3136, 96)
    found = implied_map(module, q, q, q, queries=[0, 1])
    assert found.kind == "per head"
    # A key for each channel of a head, and a few of the whole.
    assert sum(Counting.calls) < 3136 / 96 + 10
    assert max(Counting.calls) * 2 * 3136 * 96 * 8 <= _copies.ELEMENTS


def test_the_convolution_of_thousands_of_tokens_is_convolved_once_per_tap(monkeypatch):
    grid = Grid(56, 56)
    module = AttentionSpec("dwc").build(Site(8, 1, grid, grid))
    calls = []
    convolve = ValueConvolution.convolve

    def counted(*args):
        calls.append(1)
        return convolve(*args)

    monkeypatch.setattr(ValueConvolution, "convolve", counted)
    q = torch.randn(1, 3136, 8)
    found = implied_map(module, q, q, q)
    assert len(calls) < 25 + 10
    assert found.convolution is not None
    assert int((found.convolution != 0).sum(dim=-1).max()) == 25


def test_many_entries_are_those_alone():
    module = build("focused", replace(REGIONS, regions=1))
    inputs = given(module, batch=70)
    found = mapped(module, inputs)
    alone = mapped(module, {name: x[69:] for name, x in inputs.items()})
    torch.testing.assert_close(found.together[69:], alone.together)


def refused(text: str, **changed: Tensor | list[int] | None) -> str:
    module = build(text, SITES["map"])
    arguments: dict = {**given(module), **changed}
    with pytest.raises(ValueError) as said:
        implied_map(module, **arguments)
    assert "\n" not in str(said.value)
    return str(said.value)


def test_what_it_does_not_take_is_said_in_a_line():
    assert refused("external") == "ExternalAttention does not read v: it implies no map of the values"
    assert "v has the shape (2, 3, 32); at the site of this LinearAttention it is (2, 24, 32)" in refused(
        "linear", v=torch.zeros(2, 3, 32)
    )
    assert "k has the shape (1, 24, 32)" in refused("linear", k=torch.zeros(1, 24, 32))
    assert refused("linear", bias=torch.zeros(1, 4, 24, 24)) == "LinearAttention takes no bias"
    assert refused("softmax", x=torch.zeros(2, 24, 32)) == "SoftmaxAttention takes no x"
    assert "takes x, the input of the projections, which is missing" in refused("rala", x=None)
    for queries in ([24], [-1], []):
        said = refused("linear", queries=queries)
        assert said == f"queries={queries} is not allowed; it takes indices from 0 to 23, at least one"


@pytest.mark.gpu
def test_an_implied_map_is_found_where_the_tokens_are():
    module = nn.Module.cuda(build("focused", SITES["class token"]))
    found = mapped(module, {name: x.cuda() for name, x in given(module).items()})
    assert found.together.is_cuda
    assert found.gap < 1e-12

"""The three counts: by hand, against each other, against the official models, and what makes them refuse."""

import math
import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import backbones
from attentions import Macs
from harness.measures import costs, meta_device
from harness.measures.costs import by_category, check_agreement
from harness.measures.counters import count_with_fvcore, count_with_torch


@torch.library.custom_op("attention_bench_tests::mix", mutates_args=())
def mix(x: Tensor) -> Tensor:
    return x.clone()


@mix.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class Forward(nn.Module):
    """A model made of a function of tokens (B, N, 8), which it gets from images (B, 8, H, W)."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images.flatten(2).transpose(1, 2))


def heads(x: Tensor) -> Tensor:
    return x.unflatten(-1, (2, 4)).transpose(1, 2)


def fused(x: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(heads(x), heads(x), heads(x))


def explicit(x: Tensor) -> Tensor:
    return (heads(x) @ heads(x).mT).softmax(-1) @ heads(x)


def with_einsum(x: Tensor) -> Tensor:
    weights = torch.einsum("bhnd,bhmd->bhnm", heads(x), heads(x)).softmax(-1)
    return torch.einsum("bhnm, bhmd -> bhnd", weights, heads(x))


def with_baddbmm(x: Tensor) -> Tensor:
    q = heads(x).flatten(0, 1)
    weights = torch.baddbmm(q.new_zeros(1, 1, 1), q, q.mT).softmax(-1)
    return weights @ q


def linear(x: Tensor) -> Tensor:
    return heads(x).relu() @ (heads(x).relu().mT @ heads(x))


class CustomFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x @ x.mT

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient


def image(height: int = 5, width: int = 7, channels: int = 8) -> Tensor:
    return torch.empty(1, channels, height, width, device="meta")


def run(spec: backbones.BackboneSpec) -> dict:
    return costs.count_costs(spec)


compiled = torch.compile(explicit, fullgraph=True)
"""Never compiled here: it is counted as it is written."""


def test_what_is_compiled_is_counted_as_it_is_written():
    model, expected = Forward(compiled), 2 * 35 * 35 * 8
    with meta_device.as_written():
        assert count_with_torch(model, image())["products and convolutions"] == expected
        assert count_with_fvcore(model, image())[0]["attention"] == expected


@pytest.mark.parametrize(
    "function",
    [lambda x: torch.from_numpy(x.numpy()), lambda x: x + torch.ones(1, 1, 8)],
    ids=["numpy", "another device"],
)
def test_values_on_the_meta_device_are_an_error_that_says_so(function):
    said = "multiply-adds are counted on the meta device, on which tensors have no values"
    with pytest.raises(ValueError, match=said), meta_device.without_values():
        count_with_torch(Forward(function), image())


@pytest.mark.parametrize("attention", [fused, explicit, with_einsum, with_baddbmm])
def test_every_way_of_writing_softmax_attention_counts_the_same(attention):
    model, n, dim = Forward(attention), 35, 8
    expected = 2 * n * n * dim
    assert count_with_torch(model, image())["products and convolutions"] == expected
    counts, total = count_with_fvcore(model, image())
    assert counts["attention"] == counts["products and convolutions"] == total == expected


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize("number", [1, 2])
def test_an_einsum_over_the_heads_is_a_product_however_many_there_are(number, as_list):
    """Over one head it is elementwise to torch, which then counts nothing."""

    def talking(x: Tensor) -> Tensor:
        weights = x.unflatten(-1, (number, -1)).transpose(1, 2)
        operands = (torch.ones(number, number, device=x.device), weights)
        return torch.einsum("hg,bgnm->bhnm", *([operands] if as_list else operands))

    expected = number * 35 * 8
    assert count_with_torch(Forward(talking), image())["products and convolutions"] == expected
    assert count_with_fvcore(Forward(talking), image())[0]["attention"] == expected


def test_an_elementwise_einsum_beside_a_product_is_none():
    model = Forward(
        lambda x: torch.einsum(
            "c,bnc->bn", torch.ones(1, device=x.device).expand(8), torch.einsum("bnc,bnc->bnc", x, x)
        )
    )
    assert count_with_torch(model, image())["products and convolutions"] == 35 * 8
    assert count_with_fvcore(model, image())[0]["products and convolutions"] == 35 * 8


@pytest.mark.parametrize(("attention", "exponent"), [(fused, 2), (explicit, 2), (linear, 1)])
def test_growth_with_the_number_of_tokens(attention, exponent):
    counters = (count_with_torch, lambda model, x: count_with_fvcore(model, x)[0])
    for counter in counters:
        few, many = (counter(Forward(attention), image(side, side))["products and convolutions"] for side in (8, 32))
        assert math.log(many / few) / math.log(32**2 / 8**2) == pytest.approx(exponent)


def test_categories_by_hand():
    with torch.device("meta"):
        model = nn.Sequential(
            nn.Conv2d(3, 8, 4, stride=4),
            Forward(fused),
            nn.Flatten(2),
            nn.LayerNorm(4 * 4 * 6),
            nn.Linear(96, 10, bias=False),
            nn.Linear(10, 5),
        )
    x, n = image(16, 24, channels=3), 4 * 6
    linears = 2 * (96 * 10 + 10 * 5)
    expected = {
        "products and convolutions": n * 3 * 16 * 8 + 2 * n * n * 8 + linears,
        "attention": 2 * n * n * 8,
        "projections and mlp": linears,
        "convolutions": n * 3 * 16 * 8,
        "norms": 5 * 2 * 96,
    }
    by_fvcore, total = count_with_fvcore(model, x)
    assert by_fvcore == expected
    assert total == expected["products and convolutions"] + expected["norms"]
    by_torch = count_with_torch(model, x)
    assert by_torch == {key: expected[key] for key in by_torch}


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(8, 12, 3, stride=2, padding=1, bias=False),
        nn.Conv2d(8, 8, 5, padding=(2, 2), groups=8),
        nn.Conv2d(8, 4, (5, 3), padding="same", dilation=(1, 2)),
        nn.Conv2d(8, 4, 3, padding="valid"),
        nn.Sequential(nn.Flatten(2), nn.Conv1d(8, 4, 3, padding=1)),
    ],
    ids=["stride", "depthwise", "same", "valid", "1d"],
)
def test_counters_agree_on_convolutions(layer):
    by_torch = count_with_torch(layer.to("meta"), image())["convolutions"]
    assert count_with_fvcore(layer, image())[0]["convolutions"] == by_torch > 0


def test_a_broadcast_product_is_counted_whole():
    model = Forward(lambda x: x[:, :1] @ x.new_empty(9, 8, 3))
    assert count_with_torch(model, image())["products and convolutions"] == 9 * 8 * 3
    assert count_with_fvcore(model, image())[0]["products and convolutions"] == 9 * 8 * 3


@pytest.mark.parametrize(
    ("function", "operator"),
    [
        (mix, "attention_bench_tests::mix"),
        (lambda x: torch.linalg.inv(x @ x.mT), "linalg_inv"),
        (torch.linalg.svdvals, "svd"),
    ],
    ids=["custom", "inverse", "singular values"],
)
def test_an_unknown_operator_is_an_error(function, operator):
    with pytest.raises(ValueError, match=f"operator .*{operator}.* neither counted nor free"):
        count_with_torch(Forward(function), image())
    with pytest.raises(ValueError, match=f"operator .*{operator}.* neither counted nor free"):
        count_with_fvcore(Forward(function), image())


def test_a_function_that_hides_its_products_from_the_trace_is_an_error():
    with pytest.raises(ValueError, match=r"PythonOp\.CustomFunction is neither .*; make it a torch.library.custom_op"):
        count_with_fvcore(Forward(CustomFunction.apply), image())


def test_a_float32_region_is_no_obstacle():
    def attention(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return explicit(x)

    assert count_with_torch(Forward(attention), image()) == count_with_torch(Forward(explicit), image())
    assert count_with_fvcore(Forward(attention), image()) == count_with_fvcore(Forward(explicit), image())
    with pytest.raises(RuntimeError):
        torch.autocast("meta", enabled=False)


@pytest.mark.skipif(not meta_device._convolutions_trace_on_meta(), reason="this torch cannot trace them on meta")
def test_no_weights_in_memory():
    with torch.device("meta"):
        model = nn.Linear(2**20, 2**20)
    x = torch.empty(1, 2**20, device="meta")
    assert count_with_torch(model, x)["products and convolutions"] == 2**40
    assert count_with_fvcore(model, x)[0]["products and convolutions"] == 2**40


def test_a_torch_that_cannot_trace_on_meta_counts_the_same(monkeypatch):
    """As torch 2.11: the traced count is made on the CPU, and the model is without weights again afterwards."""
    with torch.device("meta"):
        model = backbones.build(backbones.preset("swin_micro"))
    image = torch.empty(1, 3, 32, 32, device="meta")
    wanted = count_with_torch(model, image)["products and convolutions"]
    monkeypatch.setattr(meta_device, "_convolutions_trace_on_meta", lambda: False)
    assert count_with_fvcore(model, image)[0]["products and convolutions"] == wanted
    assert {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} == {"meta"}


FORMULA = Macs(attention=1_000, projections=2_000_000, convolutions=3_000, mlp=1_000_000, norms=10_000)


@pytest.mark.parametrize(
    ("planted", "category"),
    [
        (replace(FORMULA, mlp=1_010_000), "products and convolutions"),
        (replace(FORMULA, attention=1_010), "attention"),
        (replace(FORMULA, convolutions=3_001), "convolutions"),
        (replace(FORMULA, norms=10_100), "norms"),
    ],
    ids=["mlp", "attention", "convolutions", "norms"],
)
def test_a_planted_disagreement_is_an_error_with_all_numbers(planted, category):
    true, wrong = by_category(FORMULA), by_category(planted)
    expected = (
        f"swin_x disagree.*{category}: torch {true[category]:,}, fvcore {true[category]:,}, formula {wrong[category]:,}"
    )
    with pytest.raises(ValueError, match=expected):
        check_agreement({"torch": true, "fvcore": true, "formula": wrong}, label="swin_x")


@pytest.mark.parametrize("counter", ["torch", "fvcore"])
def test_each_counter_is_listened_to(counter):
    counters = {name: by_category(FORMULA) for name in ("torch", "fvcore", "formula")}
    counters[counter] = by_category(replace(FORMULA, attention=0))
    with pytest.raises(ValueError, match=f"attention: .*{counter} 0"):
        check_agreement(counters, label="x")


def test_differences_below_a_thousandth_pass():
    near = by_category(replace(FORMULA, mlp=1_000_900))
    check_agreement({"torch": near, "fvcore": near, "formula": by_category(FORMULA)}, label="x")


def test_a_wrong_formula_stops_the_task(monkeypatch):
    spec = backbones.preset("deit_micro")
    right = backbones.macs(spec)
    monkeypatch.setattr(costs, "macs", lambda spec: replace(right, mlp=2 * right.mlp))
    with pytest.raises(ValueError, match="deit_micro disagree"):
        run(spec)


# Parameters, products and convolutions, fvcore's total: the official implementations, batch 1, one multiply-add = 1.
OFFICIAL = {
    "deit_t": (5717416, 1253683200, 1258411200),
    "pvt_tiny": (13229288, 1932911616, 1943774976),
    "pvt_v2_b0": (3666760, 566065664, 572024064),
    "swin_t": (28288354, 4490566656, 4509194496),
    "cswin_t": (22320552, 4324203008, 4341011968),
    "flatten_pvt_t": (12150504, 2037406720, 2047880960),
    "flatten_pvt_v2_b0": (3594824, 579813888, 585646848),
    "flatten_swin_t": (29192384, 4483341312, 4501969152),
    "flatten_cswin_t": (21201768, 4324253184, 4343570944),
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_models(name):
    params, multiply_adds, fvcore_total = OFFICIAL[name]
    metrics = run(backbones.preset(name))
    assert metrics["params"] == params
    assert metrics["params_m"] == params / 1e6
    assert metrics["gmacs"] == pytest.approx(multiply_adds / 1e9, rel=1e-3)
    assert metrics["gmacs_fvcore"] == pytest.approx(fvcore_total / 1e9, rel=5e-3)
    parts = ("attention", "projections", "convolutions", "mlp")
    assert sum(metrics[f"gmacs_{part}"] for part in parts) == pytest.approx(metrics["gmacs"])


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("deit_micro", {"attention": "softmax(fused=False)"}),
        ("deit_micro", {"attention": "focused(kernel_size=None)", "in_channels": 1, "num_classes": 3}),
        ("pvt_micro", {"attention": "linear", "image_size": (64, 32)}),
        ("pvt_v2_micro", {"attention": "focused(kernel_size=3)", "image_size": (64, 96)}),
        ("swin_micro", {"attention": "linear(kernel_size=None)"}),
        ("cswin_micro", {"attention": "focused", "stages": "LS"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())),
)
def test_formula_and_counters_agree_on_variants(name, overrides):
    assert run(backbones.preset(name, **overrides))["gmacs"] > 0


def test_frozen_parameters_do_not_count(monkeypatch):
    def build(spec):
        model: Any = backbones.build(spec)
        model.head.bias.requires_grad_(False)
        return model

    spec = backbones.preset("deit_micro")
    before = run(spec)["params"]
    monkeypatch.setattr(costs, "build", build)
    assert before - run(spec)["params"] == spec.num_classes


def test_counting_is_silent(capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(backbones.preset("pvt_v2_micro", attention="focused"))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("host", ["deit_micro", "pvt_micro", "pvt_v2_micro", "swin_micro", "cswin_micro"])
@pytest.mark.parametrize("attention", ["dwc", "external"])
def test_what_a_host_computes_for_an_attention_that_does_not_read_it_is_counted(host: str, attention: str) -> None:
    """The tracer drops the keys, which torch computes: the three counts disagreed in PVT and PVTv2."""
    assert costs.count_costs(backbones.preset(host, attention=attention))["gmacs"]

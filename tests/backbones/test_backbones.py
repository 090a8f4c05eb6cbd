"""Any attention works in any stage of any family, at any resolution that the family allows."""

import dataclasses
import inspect
import sys
from typing import Any

import pytest
import torch

import attentions
import backbones
from attentions import AttentionSpec
from backbones import BackboneSpec
from backbones.swin import shift_regions
from harness.process.determinism import ieee_float32
from tests.on_a_gpu import DEVICES

MICROS = ("deit_micro", "pvt_micro", "pvt_v2_micro", "swin_micro", "cswin_micro")
PUBLISHED = [
    *(f"flatten_pvt_{size}" for size in "tsmb"),
    *(f"flatten_pvt_v2_b{size}" for size in range(6)),
    *(f"{prefix}{family}_{size}" for prefix in ("", "flatten_") for family in ("swin", "cswin")
      for size in ("t", "s", "b", "b_384")),
    *(f"pvt_{size}" for size in ("tiny", "small", "medium", "large")),
    *(f"pvt_v2_b{size}" for size in range(6)),
    "pvt_v2_b2_li",
    *(f"{prefix}deit_{size}" for prefix in ("", "flatten_", "agent_", "inline_") for size in "tsb"),
    *(f"{prefix}_pvt_{size}" for prefix in ("agent", "inline") for size in "tsml"),
    *(f"{prefix}_swin_{size}" for prefix in ("agent", "inline", "pola") for size in "tsb"),
    *(f"{prefix}_cswin_{size}" for prefix in ("agent", "inline") for size in ("t", "s", "b", "b_384")),
    *("agent_swin_b_384", "pola_pvt_t", "pola_pvt_s"),
]  # fmt: skip


def parameters(spec: BackboneSpec) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in backbones.build(spec).parameters())


def forward(spec: BackboneSpec, batch: int = 2) -> torch.Tensor:
    torch.manual_seed(0)
    model = backbones.build(spec).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return model(torch.randn(batch, spec.in_channels, *spec.image_size))


def test_the_presets_are_the_published_models_and_a_micro_one_per_family():
    assert sorted(backbones.presets()) == sorted([*PUBLISHED, *MICROS])
    families = {backbones.preset(name).family for name in MICROS}
    assert families == {"deit", "pvt", "pvt_v2", "swin", "cswin"}
    for name in MICROS:
        assert 0.1e6 < parameters(backbones.preset(name)) < 0.5e6


@pytest.mark.parametrize("name", [*backbones.presets(), *backbones.ALIASES])
def test_a_preset_and_an_alias_can_be_searched_for(name):
    lines = inspect.getsource(sys.modules[backbones.preset.__module__]).splitlines()
    assert len([line for line in lines if line.startswith(f'    "{name}": ')]) == 1


@pytest.mark.parametrize(
    ("name", "millions"),
    # As printed in the papers' own repositories.
    [("pvt_small", 24.5), ("pvt_medium", 44.2), ("pvt_large", 61.4), ("swin_s", 49.6), ("swin_b", 87.8),
     ("pvt_v2_b1", 14.0), ("pvt_v2_b2", 25.4), ("pvt_v2_b2_li", 22.6), ("pvt_v2_b3", 45.2), ("pvt_v2_b4", 62.6),
     ("pvt_v2_b5", 82.0), ("deit_s", 22.1), ("deit_b", 86.6), ("flatten_pvt_s", 21.7), ("flatten_pvt_v2_b2", 22.6)],
)  # fmt: skip
def test_sizes_are_the_published_ones(name, millions):
    assert parameters(backbones.preset(name)) / 1e6 == pytest.approx(millions, abs=0.06)


@pytest.mark.parametrize(
    ("name", "millions", "digit"),
    # As printed in the repositories of Agent Attention and InLine, with the unit of the last digit. They print 50.2 for
    # InLine-PVT-L, which has 51.2, and 30 for InLine-Swin-T, whose official code has 29.2 (tests/golden).
    [("agent_deit_s", 22.7, 0.1), ("agent_deit_b", 87.2, 0.1), ("agent_pvt_s", 20.6, 0.1), ("agent_pvt_m", 35.9, 0.1),
     ("agent_pvt_l", 48.7, 0.1), ("agent_swin_s", 50, 1), ("agent_swin_b", 88, 1), ("agent_swin_b_384", 88, 1),
     ("agent_cswin_s", 33, 1), ("agent_cswin_b", 73, 1), ("agent_cswin_b_384", 73, 1), ("inline_deit_s", 16.7, 0.1),
     ("inline_deit_b", 23.8, 0.1), ("inline_pvt_s", 21.6, 0.1), ("inline_pvt_m", 37.6, 0.1), ("inline_swin_s", 50, 1),
     ("inline_swin_b", 88, 1), ("inline_cswin_s", 33, 1), ("inline_cswin_b", 73, 1), ("inline_cswin_b_384", 73, 1)],
)  # fmt: skip
def test_sizes_of_the_successors_are_the_published_ones(name, millions, digit):
    assert parameters(backbones.preset(name)) / 1e6 == pytest.approx(millions, abs=0.6 * digit)


@pytest.mark.parametrize("attention", attentions.names())
@pytest.mark.parametrize("name", MICROS)
@pytest.mark.parametrize("size", [32, 28, (32, 24)])
def test_every_attention_runs_and_learns_in_every_family(name, attention, size):
    spec = backbones.preset(name, attention=attention, image_size=size)
    torch.manual_seed(0)
    model = backbones.build(spec)
    logits = model(torch.randn(2, 3, *spec.image_size))
    assert logits.shape == (2, 10)
    logits.square().sum().backward()
    assert {n for n, p in model.named_parameters() if p.grad is None} == set(getattr(model, "never_used", ()))


@pytest.mark.parametrize("name", MICROS)
def test_images_of_a_batch_do_not_mix(name):
    spec = backbones.preset(name, attention="focused")
    model = backbones.build(spec)
    images = torch.randn(2, 3, 32, 32, requires_grad=True)
    (leak,) = torch.autograd.grad(model(images)[0].sum(), images)
    assert leak[0].abs().max() > 0
    assert leak[1].abs().max() == 0


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("flatten_swin_t", {"window": 7}),
        ("flatten_swin_t", {"window": 14, "stages": "LLLL"}),
        ("flatten_swin_t", {"stages": "LLMS3"}),
        ("flatten_swin_t", {"image_size": (224, 448)}),
        ("flatten_pvt_t", {"sr_ratios": "8421"}),
        ("flatten_pvt_t", {"stages": "LSSS"}),
        ("flatten_pvt_v2_b0", {"sr_ratios": "4221", "stages": "LLSS"}),
        ("flatten_cswin_t", {"split_size": "1-2-7-7"}),
        ("flatten_cswin_t", {"stages": "LLLL", "split_size": "7-28-14-7"}),
        ("flatten_cswin_t", {"image_size": (224, 448), "split_size": "2-2-7-7"}),
        ("pvt_v2_b2_li", {"attention": "focused"}),
        ("agent_swin_t", {"window": 7, "stages": "SLLL"}),
        ("agent_cswin_t", {"split_size": "1-2-7-7"}),
        ("agent_pvt_t", {"sr_ratios": "8421", "class_token": True, "final_norm": True}),
        ("inline_cswin_t", {"split_size": "1-2-7-7"}),
        ("inline_swin_t", {"window": 14, "honour_shift_mask": True}),
        ("pola_swin_t", {"window": 14, "honour_shift_mask": True}),
        ("pola_pvt_t", {"sr_ratios": "8421", "image_size": (224, 160)}),
        ("pvt_tiny", {"attention": "focused"}),
        ("pvt_tiny", {"attention": "linear(kernel_size=3)", "sr_ratios": (8, 4, 2, 7)}),
        ("deit_t", {"attention": "focused", "stages": "M4", "image_size": (224, 160)}),
    ],
)
def test_ablations_of_published_models_run(name, overrides):
    spec = backbones.preset(name, **overrides)
    with torch.no_grad():
        logits = forward(spec, batch=1)
    assert logits.shape == (1, 1000)
    assert logits.isfinite().all()


def test_stages_say_which_blocks_are_under_test():
    def letters(**overrides):
        mounts = backbones.preset("flatten_swin_t", **overrides).mounts()
        return "".join("L" if mount.tested else "S" for mount in mounts)

    assert letters() == "LLLLSSSSSSSS"
    assert letters(stages="LLMS3") == "LLLLLLLSSSSS"
    assert letters(stages="SMSM1") == "SSLSSSSSSSLS"
    attention_at = {mount.tested: mount.attention.name for mount in backbones.preset("flatten_swin_t").mounts()}
    assert attention_at == {True: "focused", False: "softmax"}


def test_the_attention_under_test_is_replaced_and_softmax_stages_stay():
    mounts = backbones.preset("flatten_swin_t", attention="linear").mounts()
    assert [mount.attention.name for mount in mounts] == ["linear"] * 4 + ["softmax"] * 8
    everywhere = backbones.preset("swin_t", attention="linear").mounts()
    assert {mount.attention.name for mount in everywhere} == {"linear"}


def test_windows_of_softmax_blocks_follow_the_official_rule():
    def windows(name, **overrides):
        mounts = backbones.preset(name, **overrides).mounts()
        return {mount.sites[0].queries.height for mount in mounts if not mount.tested}

    assert windows("flatten_swin_t") == windows("flatten_swin_t", window=14) == {7}
    assert windows("flatten_swin_b_384") == windows("flatten_swin_t", image_size=384, window=96) == {12}


def test_a_relative_position_table_exists_only_where_a_bias_is_taken():
    tables = [name for name in backbones.build(backbones.preset("flatten_swin_t")).state_dict() if "bias_table" in name]
    assert len(tables) == 8
    assert all(name.startswith(("layers.2", "layers.3")) for name in tables)


def test_shift_regions_are_the_seams_of_the_shifted_map():
    spec: Any = backbones.preset("swin_micro")
    regions = shift_regions(spec.grids()[0], (4, 4), 2)
    assert regions.shape == (4, 16)
    assert [len(set(window.tolist())) for window in regions] == [1, 2, 2, 4]
    assert regions[1].view(4, 4)[0].tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("attention", "honour", "mixes"),
    [("softmax", False, False), ("focused", False, True), ("focused", True, False), ("linear", True, False)],
)
def test_the_shift_mask(attention, honour, mixes):
    """Opposite borders of the image meet in a shifted window only where the mask is ignored."""
    spec = backbones.preset("swin_micro", attention=attention, window=4, honour_shift_mask=honour)
    model: Any = backbones.build(spec)
    block = model.layers[0].blocks[1]
    assert block.shift == 2
    x = torch.randn(1, 8 * 8, 48, requires_grad=True)
    (gradient,) = torch.autograd.grad(block.mix(x)[0, 0].sum(), x)
    reach = gradient[0].abs().sum(-1).view(8, 8)
    assert reach[:2, :2].min() > 0
    far = torch.cat((reach[6:].flatten(), reach[:6, 6:].flatten()))
    # The official mask adds -100, which leaves exp(-100) of a weight.
    assert (far.max() > 1e-12) == mixes


def test_cswin_stripes_have_the_right_extent():
    """The first half of the heads sees columns, the second rows."""
    spec = backbones.preset("cswin_micro", attention="linear", image_size=(32, 16), split_size=(2, 4))
    model: Any = backbones.build(spec)
    block = model.stage1[0]
    seen = []
    for branch in block.attns:
        v = torch.randn(1, 8 * 4, 24, requires_grad=True)
        q, k = (torch.randn(1, 8 * 4, 24) for _ in range(2))
        (gradient,) = torch.autograd.grad(branch(q, k, v, q)[0, 0].sum(), v)
        seen.append((gradient[0].abs().sum(-1).view(8, 4) > 0).long())
    assert seen[0][:, :2].all()
    assert seen[0].sum() == 8 * 2
    assert seen[1][:2, :].all()
    assert seen[1].sum() == 2 * 4


@pytest.mark.parametrize(
    ("name", "overrides", "parts"),
    [
        ("swin_x", {}, ["unknown preset 'swin_x'", "swin_t"]),
        ("swin_t", {"windw": 7}, ["unknown override", "did you mean window"]),
        ("deit_t", {"window": 7}, ["unknown override of deit_t (deit) 'window'", "patch_size"]),
        ("swin_t", {"attention": "softmx"}, ["unknown attention"]),
        ("swin_t", {"image_size": 225}, ["225x225 is not allowed", "multiples of 4", "near: 224x224"]),
        ("deit_t", {"image_size": (224, 200)}, ["224x200", "multiples of 16"]),
        ("swin_t", {"image_size": 256}, ["64x64 map", "7x7 windows", "8, 16, 32"]),
        ("swin_t", {"image_size": "large"}, ["image_size='large'"]),
        ("swin_t", {"image_size": 0}, ["image size 0x0"]),
        ("swin_t", {"window": 0}, ["window=0"]),
        ("swin_t", {"num_classes": 0}, ["num_classes=0"]),
        ("swin_t", {"stages": "LLL"}, ["stages='LLL'", "4 letters"]),
        ("swin_t", {"stages": "LLMS"}, ["stages='LLMS'", "M"]),
        ("swin_t", {"stages": "LLSS3"}, ["stages='LLSS3'"]),
        ("swin_t", {"stages": "LLMS9"}, ["6 blocks", "9"]),
        ("pvt_tiny", {"sr_ratios": "842"}, ["sr_ratios='842'", "4 numbers"]),
        ("pvt_tiny", {"sr_ratios": 16}, ["sr_ratios=16", "4 numbers"]),
        ("pvt_tiny", {"dims": "²"}, ["dims='²'", "4 numbers"]),
        ("pvt_tiny", {"dims": True}, ["dims=True", "4 numbers"]),
        ("pvt_tiny", {"sr_ratios": "5421"}, ["spatial reduction of 5", "8, 14, 28"]),
        ("cswin_t", {"split_size": "3-2-7-7"}, ["stripes of 3", "4, 7, 8"]),
        ("swin_t", {"attention": "softmax(fused=2)"}, ["fused=2"]),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_clear_line(name, overrides, parts):
    with pytest.raises(ValueError) as error:
        backbones.preset(name, **overrides)
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


def test_a_mask_that_cannot_be_honoured_is_refused(monkeypatch):
    monkeypatch.setattr(attentions.lookup("linear"), "takes_regions", False)
    with pytest.raises(ValueError, match="linear cannot honour the shift mask"):
        backbones.preset("swin_micro", attention="linear", window=4, honour_shift_mask=True)


def test_short_forms_mean_the_same():
    same = [backbones.preset("pvt_tiny", sr_ratios=given) for given in ("8421", "8-4-2-1", 8421, (8, 4, 2, 1))]
    assert same == [backbones.preset("pvt_tiny")] * 4
    # A width of two digits is one number, also where there are two stages.
    wide: list[Any] = [
        backbones.preset("pvt_v2_micro", dims=given, heads=given) for given in (64, "64", "64-64", (64, 64))
    ]
    assert {spec.dims + spec.heads for spec in wide} == {(64,) * 4}
    assert backbones.preset("pvt_t") == backbones.preset("pvt_tiny")
    given = AttentionSpec("focused", {"focusing_factor": 4})
    assert backbones.preset("swin_t", attention="focused(focusing_factor=4)", image_size=224) == backbones.preset(
        "swin_t", attention=given, image_size=(224, 224)
    )


def test_the_name_is_a_label_only():
    spec = backbones.preset("swin_t")
    assert spec == dataclasses.replace(spec, name="another")
    assert spec.to_json()["name"] == "swin_t"
    assert backbones.preset("flatten_deit_t", attention="softmax") == backbones.preset("deit_t")


def test_drop_path_grows_with_depth():
    model: Any = backbones.build(backbones.preset("swin_t"), drop_path=0.2)
    rates = [block.drop_path.drop_prob for layer in model.layers for block in layer.blocks[1:]]
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(0.2)


def test_counting_needs_no_weights():
    with torch.device("meta"):
        model = backbones.build(backbones.preset("swin_b_384"))
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


def test_inline_in_cswin_takes_the_input_before_the_norm():
    seen = []
    for before in (False, True):
        spec = backbones.preset("cswin_micro", attention="inline", split_size="8-4", input_before_norm=before)
        torch.manual_seed(0)
        model: Any = backbones.build(spec)
        block = model.stage1[0]
        torch.nn.init.constant_(block.norm1.weight, 2)
        core = block.attns[0].core
        core.register_forward_pre_hook(lambda module, args, given: seen.append(given["x"]), with_kwargs=True)
        model(torch.ones(1, 3, 32, 32).cumsum(dim=-1))
    torch.testing.assert_close(block.norm1(seen[1]), seen[0])
    assert not torch.allclose(seen[1], seen[0])


def test_fields_that_came_later_leave_older_keys_alone():
    pvt, cswin = backbones.preset("pvt_micro"), backbones.preset("cswin_micro")
    assert "final_norm" not in pvt.to_json()
    assert "input_before_norm" not in cswin.to_json()
    without = backbones.preset("pvt_micro", final_norm=False)
    assert without.to_json()["final_norm"] is False
    for spec in (pvt, without, cswin, backbones.preset("inline_cswin_t")):
        assert backbones.from_json(spec.to_json()) == spec
    with pytest.raises(ValueError, match="final_norm=False is not allowed with a class token"):
        backbones.preset("pvt_tiny", final_norm=False)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("name", "attention"), list(zip(MICROS, ("softmax", "focused", "agent", "inline", "mlla"), strict=True))
)
def test_a_step_is_that_of_float64_on_a_cpu(name, attention, device):
    spec = backbones.preset(name, attention=attention)
    images, found = torch.randn(2, spec.in_channels, *spec.image_size, dtype=torch.float64), []
    for place, dtype in (("cpu", torch.float64), (device, torch.float32)):
        torch.manual_seed(0)
        model = backbones.build(spec).to(place, dtype)
        with ieee_float32():
            logits = model(images.to(place, dtype))
            logits.square().sum().backward()
        gradients = {name: given.grad for name, given in model.named_parameters() if given.grad is not None}
        found.append({"logits": logits.detach()} | gradients)
    expected, computed = found
    assert computed.keys() == expected.keys()
    for name, value in expected.items():
        error = (computed[name].cpu().double() - value).norm()
        assert error <= 1e-4 * value.norm() + 1e-6, name

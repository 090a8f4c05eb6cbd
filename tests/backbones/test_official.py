"""Official states in and out: other resolutions, unknown keys."""

import pytest
import torch
from torch.nn import functional as F

import backbones


def state_of(spec):
    with torch.device("meta"):
        model = backbones.build(spec)
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(value.shape, generator=generator) for name, value in model.state_dict().items()}


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("flatten_swin_t", {"image_size": 384, "window": 96}),
        ("swin_t", {"image_size": 384, "window": 12}),
        ("flatten_cswin_t", {"image_size": 384, "split_size": "96-48-24-12"}),
        ("flatten_pvt_t", {"image_size": 256}),
        ("pvt_tiny", {"image_size": 256}),
        ("deit_t", {"image_size": 384}),
        ("flatten_deit_t", {"image_size": 256}),
        ("agent_swin_t", {"image_size": 384, "window": 96}),
        ("agent_pvt_t", {"image_size": (256, 256)}),
        ("agent_deit_t", {"image_size": 448}),
        ("pola_pvt_t", {"image_size": 256}),
    ],
)
def test_position_tables_are_resized(source, target):
    before, after = backbones.preset(source), backbones.preset(source, **target)
    state = state_of(before)
    official = backbones.to_official(state, before)
    with torch.device("meta"):
        model = backbones.build(after)
    model.load_state_dict(backbones.from_official(official, after), strict=True, assign=True)
    same = backbones.from_official(official, before)
    assert set(same) == set(state)
    assert all(torch.equal(value, state[key]) for key, value in same.items())


def test_resizing_is_bicubic_and_leaves_the_class_token():
    before, after = (backbones.preset("deit_t", image_size=size) for size in (224, 384))
    table = state_of(before)["pos_embed"]
    resized = backbones.from_official({"pos_embed": table}, after)["pos_embed"]
    assert torch.equal(resized[:, :1], table[:, :1])
    image = table[:, 1:].view(1, 14, 14, -1).permute(0, 3, 1, 2)
    wanted = F.interpolate(image, size=(24, 24), mode="bicubic", align_corners=False)
    torch.testing.assert_close(resized[:, 1:], wanted.permute(0, 2, 3, 1).flatten(1, 2))


def test_relative_position_bias_tables_are_resized_per_head():
    before, after = backbones.preset("swin_t"), backbones.preset("swin_t", image_size=384, window=12)
    key = "layers.0.blocks.0.attn.relative_position_bias_table"
    table = state_of(before)[key]
    resized = backbones.from_official({key: table}, after)[key]
    wanted = F.interpolate(table.T.view(1, 3, 13, 13), size=(23, 23), mode="bicubic", align_corners=False)
    torch.testing.assert_close(resized, wanted.view(3, -1).T)


def test_biases_of_agents_are_resized_along_rows_or_columns():
    before, after = backbones.preset("agent_deit_t"), backbones.preset("agent_deit_t", image_size=(224, 256))
    key = "blocks.0.attn.wa_bias"
    table = backbones.to_official(state_of(before), before)[key]
    assert table.ndim == 5
    resized = backbones.from_official({key: table}, after)["blocks.0.attn.core.wa_bias"]
    wanted = F.interpolate(table[0, :, 0].transpose(1, 2), size=16, mode="linear")
    torch.testing.assert_close(resized[:, 0], wanted.transpose(1, 2))
    fewer = backbones.preset("agent_deit_t", attention="agent(agents=9)", image_size=256)
    with pytest.raises(ValueError, match=r"cannot resize .*wa_bias .* only one side may differ"):
        backbones.from_official({key: table}, fewer)


def test_a_gate_is_split_from_the_projection_it_is_kept_with_and_fused_again():
    spec = backbones.preset("pola_pvt_t")
    state = state_of(spec)
    official = backbones.to_official(state, spec)
    key = "block1.0.attn"
    q, gate = (state[f"{key}.{name}.weight"] for name in ("q", "core.g"))
    assert torch.equal(official[f"{key}.qg.weight"], torch.cat((q, gate)))
    assert not {f"{key}.q.weight", f"{key}.g.weight"} & set(official)
    # The branches of CSWin have a gate of their own channels beside a projection of all.
    spec = backbones.preset("cswin_micro", attention="polaformer")
    state = state_of(spec)
    official = backbones.to_official(state, spec)
    assert "stage1.0.attns.1.g.weight" in official
    back = backbones.from_official(official, spec)
    assert set(back) == set(state)
    assert all(torch.equal(value, state[name]) for name, value in back.items())


def test_unknown_and_missing_keys_are_left_for_strict_loading():
    spec = backbones.preset("deit_micro")
    state = backbones.to_official(state_of(spec), spec)
    state["blocks.0.attn.surprise"] = torch.zeros(1)
    del state["head.bias"]
    with pytest.raises(RuntimeError, match=r"(?s)head\.bias.*blocks\.0\.attn\.surprise"):
        backbones.build(spec).load_state_dict(backbones.from_official(state, spec))


def test_a_table_that_is_not_square_is_refused():
    spec = backbones.preset("deit_micro", image_size=(32, 16))
    state = backbones.to_official(state_of(backbones.preset("deit_micro")), backbones.preset("deit_micro"))
    with pytest.raises(ValueError, match="cannot resize pos_embed"):
        backbones.from_official(state, spec)

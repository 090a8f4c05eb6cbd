"""Attentions swapped into timm's vision transformers: the same logits with softmax, and clear refusals."""

import copy
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from timm.layers import LayerNorm
from timm.models.vision_transformer import Attention, ParallelScalingBlock, ResPostBlock, VisionTransformer
from torch import nn

import attentions
from attentions import Grid
from backbones.swap import swap
from tests.golden.fill import fill_state_dict

SIZE = {"img_size": (32, 48), "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 4, "num_classes": 5}


def vit(**changes: Any) -> VisionTransformer:
    model = VisionTransformer(**{**SIZE, **changes}).eval()
    fill_state_dict(model.state_dict())
    return model


def images(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(2, 3, 32, 48, dtype=dtype)


def vit_with(**changes: Any) -> VisionTransformer:
    """Build one with another of timm's attentions, as `attn_layer` does in other models."""
    for change in changes:
        if change not in inspect.signature(Attention).parameters:
            pytest.skip(f"timm {timm.__version__} has no attention with {change}")
    model = vit()
    for block in model.blocks:
        block.attn = Attention(32, num_heads=4, qkv_bias=True, **changes).eval()
    fill_state_dict(model.state_dict())
    return model


@pytest.mark.parametrize("attention", ["softmax", "softmax(fused=False)"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"class_token": False, "global_pool": "avg"},
        {"reg_tokens": 4},
        {"reg_tokens": 4, "no_embed_class": True, "class_token": False, "global_pool": "avg"},
        {"qk_norm": True},
        {"qkv_bias": False, "scale_attn_norm": True, "norm_layer": LayerNorm},
        {"init_values": 0.1, "pre_norm": True, "proj_drop_rate": 0.1},
        {"block_fn": ResPostBlock},
        {"global_pool": "map"},
    ],
    ids=str,
)
def test_softmax_swapped_in_changes_nothing(changes, attention):
    assert_unchanged(vit(**changes), attention)


def test_a_gate_is_kept():
    assert_unchanged(vit_with(gated=True), "softmax")


def assert_unchanged(model: VisionTransformer, attention: str) -> None:
    model = model.double()
    swapped = swap(copy.deepcopy(model), attention)
    assert swapped.state_dict().keys() == model.state_dict().keys()
    x = images(torch.float64)
    with torch.no_grad():
        got, wanted = swapped(x), model(x)
    assert (got - wanted).norm() < 1e-9 * wanted.norm()


@pytest.mark.parametrize("attention", attentions.names())
def test_every_attention_trains_where_it_can_be_swapped_in(attention):
    model = vit(reg_tokens=1).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        swap(model, attention)
    except ValueError as refusal:
        pytest.skip(str(refusal))
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(".attn.core." in name for name in after.keys() - before.keys())
    logits = model(images())
    logits.square().sum().backward()
    assert logits.isfinite().all()
    assert model.blocks[0].attn.core.site.queries == Grid(4, 6, prefix=2)


def test_only_the_first_blocks_are_changed_and_type_and_mode_are_kept():
    model = swap(vit().to(torch.bfloat16), "focused", first=2)
    assert [type(block.attn).__name__ for block in model.blocks] == ["SwappedAttention"] * 2 + ["Attention"]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert not any(module.training for module in model.modules())
    with torch.device("meta"):
        placed = swap(timm.create_model("vit_tiny_patch16_224"), "focused")
    assert {parameter.device.type for parameter in placed.parameters()} == {"meta"}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: timm.create_model("test_resnet"), "ResNet is not a timm VisionTransformer"),
        (lambda: vit(dynamic_img_size=True), "dynamic_img_size"),
        (lambda: vit(patch_drop_rate=0.5), "patch_drop_rate"),
        (lambda: vit(depth=0), r"no block to change \(depth=0\)"),
        (lambda: vit(attn_drop_rate=0.5), "attn_drop_rate=0.5"),
        (lambda: vit(block_fn=ParallelScalingBlock), r"its blocks \(ParallelScalingBlock\) do not contain"),
        (lambda: vit_with(attn_head_dim=4), "16 channels but its tokens have 32"),
    ],
)
def test_what_cannot_be_honoured_is_refused_in_one_sentence(make: Callable[[], nn.Module], said: str):
    model = make()
    with pytest.raises(ValueError, match=said) as error:
        swap(model, "linear")
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="first=4 is not allowed; it takes a number from 1 to 3"):
        swap(vit(), "linear", first=4)
    with pytest.raises(ValueError, match="unknown attention 'linaer'"):
        swap(vit(), "linaer")


def test_a_mask_is_refused():
    with pytest.raises(ValueError, match="takes no attn_mask"):
        swap(vit(), "linear")(images(), attn_mask=torch.zeros(25, 25))

"""Every preset: the published models by the names of their papers' code, and a micro one per family."""

from __future__ import annotations

from typing import Any

from attentions import AttentionSpec, unknown
from backbones._spec import SOFTMAX, BackboneSpec
from backbones.cswin import CSWinSpec
from backbones.deit import DeiTSpec
from backbones.pvt import PVTSpec
from backbones.pvt_v2 import PVTv2Spec
from backbones.swin import SwinSpec

FOCUSED = AttentionSpec("focused")
PVT_SR = (8, 4, 2, 1)
UNREDUCED = (1, 1, 1, 1)

ALIASES = {"pvt_t": "pvt_tiny", "pvt_s": "pvt_small", "pvt_m": "pvt_medium", "pvt_l": "pvt_large"}


def _deit() -> list[BackboneSpec]:
    specs: list[BackboneSpec] = []
    for size, dim, heads in (("t", 192, 3), ("s", 384, 6), ("b", 768, 12)):
        for name, attention in ((f"deit_{size}", SOFTMAX), (f"flatten_deit_{size}", FOCUSED)):
            specs.append(DeiTSpec(name=name, attention=attention, dim=dim, depth=12, heads=heads))
    specs.append(
        DeiTSpec(name="deit_micro", image_size=(32, 32), num_classes=10, dim=96, depth=4, heads=4, patch_size=4)
    )
    return specs


def _pvt() -> list[BackboneSpec]:
    geometry: dict[str, Any] = {
        "dims": (64, 128, 320, 512),
        "heads": (1, 2, 5, 8),
        "mlp_ratios": (8, 8, 4, 4),
        "softmax_sr_ratios": PVT_SR,
    }
    specs: list[BackboneSpec] = []
    for size, letter, depths in (
        ("tiny", "t", (2, 2, 2, 2)),
        ("small", "s", (3, 4, 6, 3)),
        ("medium", "m", (3, 4, 18, 3)),
        # The configuration which FLatten calls b builds PVT-Large.
        ("large", "b", (3, 8, 27, 3)),
    ):
        specs.append(PVTSpec(name=f"pvt_{size}", stages="LLLL", sr_ratios=PVT_SR, block_counts=depths, **geometry))
        specs.append(
            PVTSpec(
                name=f"flatten_pvt_{letter}",
                attention=FOCUSED,
                stages="LLLL",
                sr_ratios=UNREDUCED,
                block_counts=depths,
                class_token=False,
                **geometry,
            )
        )
    specs.append(
        PVTSpec(
            name="pvt_micro",
            stages="LL",
            image_size=(32, 32),
            num_classes=10,
            dims=(48, 96),
            block_counts=(2, 2),
            heads=(2, 4),
            mlp_ratios=(4, 4),
            sr_ratios=(1, 1),
            softmax_sr_ratios=(1, 1),
            patch_sizes=(2, 2),
            class_token=False,
        )
    )
    return specs


def _pvt_v2() -> list[BackboneSpec]:
    specs: list[BackboneSpec] = []
    dims = (64, 128, 320, 512)
    for size, width, depths, mlp_ratios in (
        ("b0", (32, 64, 160, 256), (2, 2, 2, 2), (8, 8, 4, 4)),
        ("b1", dims, (2, 2, 2, 2), (8, 8, 4, 4)),
        ("b2", dims, (3, 4, 6, 3), (8, 8, 4, 4)),
        ("b3", dims, (3, 4, 18, 3), (8, 8, 4, 4)),
        ("b4", dims, (3, 8, 27, 3), (8, 8, 4, 4)),
        ("b5", dims, (3, 6, 40, 3), (4, 4, 4, 4)),
    ):
        geometry: dict[str, Any] = {
            "dims": width,
            "block_counts": depths,
            "heads": (1, 2, 5, 8),
            "mlp_ratios": mlp_ratios,
            "softmax_sr_ratios": PVT_SR,
        }
        specs.append(PVTv2Spec(name=f"pvt_v2_{size}", stages="LLLL", sr_ratios=PVT_SR, **geometry))
        if size == "b2":
            specs.append(PVTv2Spec(name="pvt_v2_b2_li", stages="LLLL", sr_ratios=PVT_SR, pooled_keys=True, **geometry))
        specs.append(
            PVTv2Spec(name=f"flatten_pvt_v2_{size}", attention=FOCUSED, stages="LLLL", sr_ratios=UNREDUCED, **geometry)
        )
    specs.append(
        PVTv2Spec(
            name="pvt_v2_micro",
            stages="LL",
            image_size=(32, 32),
            num_classes=10,
            dims=(48, 96),
            block_counts=(2, 2),
            heads=(2, 4),
            mlp_ratios=(4, 4),
            sr_ratios=(1, 1),
            softmax_sr_ratios=(1, 1),
            patch_sizes=(2, 2),
        )
    )
    return specs


def _swin() -> list[BackboneSpec]:
    specs: list[BackboneSpec] = []
    for size, dim, depths, heads, image_size in (
        ("t", 96, (2, 2, 6, 2), (3, 6, 12, 24), 224),
        ("s", 96, (2, 2, 18, 2), (3, 6, 12, 24), 224),
        ("b", 128, (2, 2, 18, 2), (4, 8, 16, 32), 224),
        ("b_384", 128, (2, 2, 18, 2), (4, 8, 16, 32), 384),
    ):
        geometry: dict[str, Any] = {
            "image_size": (image_size, image_size),
            "dim": dim,
            "block_counts": depths,
            "heads": heads,
        }
        small, whole = image_size // 32, image_size // 4
        specs.append(SwinSpec(name=f"swin_{size}", stages="LLLL", window=small, softmax_window=small, **geometry))
        specs.append(SwinSpec(name=f"flatten_swin_{size}", attention=FOCUSED, stages="LLSS", window=whole, **geometry))
    specs.append(
        SwinSpec(
            name="swin_micro",
            stages="LL",
            image_size=(32, 32),
            num_classes=10,
            dim=48,
            block_counts=(2, 2),
            heads=(2, 4),
            window=16,
            softmax_window=16,
            patch_size=2,
        )
    )
    return specs


def _cswin() -> list[BackboneSpec]:
    specs: list[BackboneSpec] = []
    for size, dim, depths, flatten_depths, heads, image_size in (
        ("t", 64, (1, 2, 21, 1), (2, 4, 18, 1), (2, 4, 8, 16), 224),
        ("s", 64, (2, 4, 32, 2), (2, 4, 32, 2), (2, 4, 8, 16), 224),
        ("b", 96, (2, 4, 32, 2), (3, 6, 29, 2), (4, 8, 16, 32), 224),
        ("b_384", 96, (2, 4, 32, 2), (3, 6, 29, 2), (4, 8, 16, 32), 384),
    ):
        geometry: dict[str, Any] = {"image_size": (image_size, image_size), "dim": dim, "heads": heads}
        specs.append(CSWinSpec(name=f"cswin_{size}", stages="LLLL", block_counts=depths, **geometry))
        specs.append(
            CSWinSpec(
                name=f"flatten_cswin_{size}",
                attention=FOCUSED,
                stages="LLSS",
                block_counts=flatten_depths,
                split_size=tuple(image_size // stride for stride in (4, 8, 16, 32)),
                **geometry,
            )
        )
    specs.append(
        CSWinSpec(
            name="cswin_micro",
            stages="LL",
            image_size=(32, 32),
            num_classes=10,
            dim=48,
            block_counts=(2, 2),
            heads=(2, 4),
            split_size=(2, 7),
            softmax_split_size=(2, 7),
            patch_size=2,
        )
    )
    return specs


_PRESETS = {spec.name: spec for family in (_deit, _pvt, _pvt_v2, _swin, _cswin) for spec in family()}


def presets() -> list[str]:
    """Names of all presets, family by family."""
    return list(_PRESETS)


def preset(name: str, **overrides: Any) -> BackboneSpec:
    """The preset `name`, with fields of its spec replaced.

    Overrides of every family: `attention` (spec or text), `stages`, `image_size`, `num_classes`, `in_channels`; of Swin
    also `window`, `softmax_window`, `honour_shift_mask`, of CSWin `split_size`, `softmax_split_size`, of PVT and PVTv2
    `sr_ratios`, `softmax_sr_ratios`, and each other field of the family's spec.

    Raises:
        ValueError: for an unknown name or override, or values that do not fit each other.
    """
    name = ALIASES.get(name, name)
    if name not in _PRESETS:
        raise ValueError(unknown("preset", name, _PRESETS))
    spec = _PRESETS[name]
    if "softmax_window" not in overrides and overrides.get("window", 0) > 56:
        # FLatten-Swin's rule, which the preset's own number would otherwise hide.
        overrides = {**overrides, "softmax_window": None}
    return spec.with_overrides(overrides)

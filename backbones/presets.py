"""Every preset: the published models by the names of their papers' code, and a micro one per family."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from attentions import AttentionSpec, unknown
from backbones._spec import BackboneSpec
from backbones.cswin import CSWinSpec
from backbones.deit import DeiTSpec
from backbones.pvt import PVTSpec
from backbones.pvt_v2 import PVTv2Spec
from backbones.swin import SwinSpec

FOCUSED = AttentionSpec("focused")
# In pyramids the agents are 9-16-49-49; beside CSWin's LePE there is no other convolution.
AGENT = AttentionSpec("agent", {"agents": None})
AGENT_CSWIN = AttentionSpec("agent", {"agents": None, "kernel_size": None})
INLINE = AttentionSpec("inline")
POLA = AttentionSpec("polaformer")
PVT_SR = (8, 4, 2, 1)
UNREDUCED = (1, 1, 1, 1)
SMALL_IMAGES: dict[str, Any] = {"image_size": 32, "num_classes": 10}

ALIASES = {"pvt_t": "pvt_tiny", "pvt_s": "pvt_small", "pvt_m": "pvt_medium", "pvt_l": "pvt_large"}

Entry = tuple[str, type[BackboneSpec], dict[str, Any]]
"""Name, family, and the arguments of its spec: what they leave to a rule is settled after the overrides are in."""


def _deit() -> Iterator[Entry]:
    for size, dim, heads in (("t", 192, 3), ("s", 384, 6), ("b", 768, 12)):
        geometry = {"dim": dim, "depth": 12, "heads": heads}
        yield f"deit_{size}", DeiTSpec, geometry
        yield f"flatten_deit_{size}", DeiTSpec, {**geometry, "attention": FOCUSED}
        # Of the square numbers only 25 gives the 87.2 M parameters that were published for Agent-DeiT-B.
        agents = {"agents": 25 if size == "b" else 49}
        yield f"agent_deit_{size}", DeiTSpec, {**geometry, "attention": AttentionSpec("agent", agents)}
    # InLine's small and base are not as wide as DeiT's, and take larger images; heads are twice as many, and of 32.
    for size, dim, image_size in (("t", 192, 224), ("s", 320, 288), ("b", 384, 448)):
        geometry = {"dim": dim, "depth": 12, "heads": dim // 32, "image_size": image_size}
        yield f"inline_deit_{size}", DeiTSpec, {**geometry, "attention": INLINE}
    yield "deit_micro", DeiTSpec, {**SMALL_IMAGES, "dim": 64, "depth": 4, "heads": 4, "patch_size": 4}


def _pvt() -> Iterator[Entry]:
    common = {
        "stages": "LLLL",
        "dims": (64, 128, 320, 512),
        "heads": (1, 2, 5, 8),
        "mlp_ratios": (8, 8, 4, 4),
        "softmax_sr_ratios": PVT_SR,
    }
    for size, letter, depths in (
        ("tiny", "t", (2, 2, 2, 2)),
        ("small", "s", (3, 4, 6, 3)),
        ("medium", "m", (3, 4, 18, 3)),
        ("large", "l", (3, 8, 27, 3)),
    ):
        geometry = {**common, "block_counts": depths}
        yield f"pvt_{size}", PVTSpec, {**geometry, "sr_ratios": PVT_SR}
        linear = {**geometry, "sr_ratios": UNREDUCED, "class_token": False}
        # The configuration which FLatten calls b builds PVT-Large.
        yield f"flatten_pvt_{'b' if letter == 'l' else letter}", PVTSpec, {**linear, "attention": FOCUSED}
        yield f"agent_pvt_{letter}", PVTSpec, {**linear, "attention": AGENT, "final_norm": False}
        inline = {"attention": INLINE, "heads": (2, 4, 10, 16), "final_norm": False}
        yield f"inline_pvt_{letter}", PVTSpec, {**linear, **inline}
        if letter in "ts":
            yield f"pola_pvt_{letter}", PVTSpec, {**linear, "attention": POLA}
    yield "pvt_micro", PVTSpec, {**MICRO_PYRAMID, "patch_sizes": (2, 2), "class_token": False}


def _pvt_v2() -> Iterator[Entry]:
    dims = (64, 128, 320, 512)
    for size, width, depths, mlp_ratios in (
        ("b0", (32, 64, 160, 256), (2, 2, 2, 2), (8, 8, 4, 4)),
        ("b1", dims, (2, 2, 2, 2), (8, 8, 4, 4)),
        ("b2", dims, (3, 4, 6, 3), (8, 8, 4, 4)),
        ("b3", dims, (3, 4, 18, 3), (8, 8, 4, 4)),
        ("b4", dims, (3, 8, 27, 3), (8, 8, 4, 4)),
        ("b5", dims, (3, 6, 40, 3), (4, 4, 4, 4)),
    ):
        geometry = {
            "stages": "LLLL",
            "dims": width,
            "block_counts": depths,
            "heads": (1, 2, 5, 8),
            "mlp_ratios": mlp_ratios,
            "sr_ratios": PVT_SR,
            "softmax_sr_ratios": PVT_SR,
        }
        yield f"pvt_v2_{size}", PVTv2Spec, geometry
        if size == "b2":
            yield "pvt_v2_b2_li", PVTv2Spec, {**geometry, "pooled_keys": True}
        yield f"flatten_pvt_v2_{size}", PVTv2Spec, {**geometry, "attention": FOCUSED, "sr_ratios": UNREDUCED}
    yield "pvt_v2_micro", PVTv2Spec, {**MICRO_PYRAMID, "patch_sizes": (4, 2)}


MICRO_PYRAMID: dict[str, Any] = {
    **SMALL_IMAGES,
    "stages": "LL",
    "dims": (32, 64),
    "block_counts": (2, 2),
    "heads": (2, 4),
    "mlp_ratios": (4, 4),
    "sr_ratios": (1, 1),
    "softmax_sr_ratios": (1, 1),
}


def _swin() -> Iterator[Entry]:
    for size, dim, depths, heads, image_size in (
        ("t", 96, (2, 2, 6, 2), (3, 6, 12, 24), 224),
        ("s", 96, (2, 2, 18, 2), (3, 6, 12, 24), 224),
        ("b", 128, (2, 2, 18, 2), (4, 8, 16, 32), 224),
        ("b_384", 128, (2, 2, 18, 2), (4, 8, 16, 32), 384),
    ):
        geometry: dict[str, Any] = {"image_size": image_size, "dim": dim, "block_counts": depths, "heads": heads}
        if image_size == 384:
            geometry["softmax_window"] = 12
        yield f"swin_{size}", SwinSpec, {**geometry, "stages": "LLLL", "window": image_size // 32}
        whole = {**geometry, "window": image_size // 4}
        yield f"flatten_swin_{size}", SwinSpec, {**whole, "attention": FOCUSED, "stages": "LLSS"}
        stages = "LLLS" if size == "t" else "LLSS"
        yield f"agent_swin_{size}", SwinSpec, {**whole, "attention": AGENT, "stages": stages}
        if image_size == 224:
            yield f"inline_swin_{size}", SwinSpec, {**whole, "attention": INLINE, "stages": stages}
            yield f"pola_swin_{size}", SwinSpec, {**whole, "attention": POLA, "stages": "LLSS"}
    micro = {"stages": "LL", "dim": 48, "block_counts": (2, 2), "heads": (2, 4), "window": 8}
    yield "swin_micro", SwinSpec, {**SMALL_IMAGES, **micro, "softmax_window": 8}


def _cswin() -> Iterator[Entry]:
    for size, dim, depths, linear_depths, heads, image_size in (
        ("t", 64, (1, 2, 21, 1), (2, 4, 18, 1), (2, 4, 8, 16), 224),
        ("s", 64, (2, 4, 32, 2), (3, 6, 29, 2), (2, 4, 8, 16), 224),
        ("b", 96, (2, 4, 32, 2), (3, 6, 29, 2), (4, 8, 16, 32), 224),
        ("b_384", 96, (2, 4, 32, 2), (3, 6, 29, 2), (4, 8, 16, 32), 384),
    ):
        geometry = {"image_size": image_size, "dim": dim, "heads": heads}
        yield f"cswin_{size}", CSWinSpec, {**geometry, "stages": "LLLL", "block_counts": depths}
        linear = {
            **geometry,
            "stages": "LLSS",
            "block_counts": linear_depths,
            "split_size": tuple(image_size // stride for stride in (4, 8, 16, 32)),
        }
        # FLatten's small has the depths of CSWin's.
        focused = {"attention": FOCUSED, "block_counts": depths if size == "s" else linear_depths}
        yield f"flatten_cswin_{size}", CSWinSpec, {**linear, **focused}
        yield f"agent_cswin_{size}", CSWinSpec, {**linear, "attention": AGENT_CSWIN}
        yield f"inline_cswin_{size}", CSWinSpec, {**linear, "attention": INLINE, "input_before_norm": True}
    micro = {"stages": "LL", "dim": 48, "block_counts": (2, 2), "heads": (2, 4)}
    yield "cswin_micro", CSWinSpec, {**SMALL_IMAGES, **micro, "split_size": (1, 4), "softmax_split_size": (1, 4)}


PRESETS = {
    name: (family, arguments)
    for entries in (_deit, _pvt, _pvt_v2, _swin, _cswin)
    for name, family, arguments in entries()
}


def presets() -> list[str]:
    """Names of all presets, family by family."""
    return list(PRESETS)


def preset(name: str, /, **overrides: Any) -> BackboneSpec:
    """The preset `name`, with fields of its spec replaced.

    Overrides of every family: `attention` (spec or text), `stages`, `image_size`, `num_classes`, `in_channels`; of Swin
    also `window`, `softmax_window`, `honour_shift_mask`, of CSWin `split_size`, `softmax_split_size`, of PVT and PVTv2
    `sr_ratios`, `softmax_sr_ratios`, and each other field of the family's spec.

    Raises:
        ValueError: for an unknown name or override, or values that do not fit each other.
    """
    name = ALIASES.get(name, name)
    if name not in PRESETS:
        raise ValueError(unknown("preset", name, PRESETS))
    family, arguments = PRESETS[name]
    allowed = [f.name for f in fields(family) if f.name != "name"]
    for override in overrides:
        if override not in allowed:
            raise ValueError(unknown(f"override of {name} ({family.family})", override, allowed))
    return family(name=name, **{**arguments, **overrides})

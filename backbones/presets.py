"""Every preset: the published models by the names of their papers' code, and a micro one per family."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from attentions import AttentionSpec, unknown
from backbones._spec import BackboneSpec
from backbones.cswin import CSWinSpec
from backbones.deit import DeiTSpec
from backbones.pvt import PVTSpec
from backbones.pvt_v2 import PVTv2Spec
from backbones.swin import SwinSpec

# Each preset is an entry of its own, under its full name, so that it can be searched for.
ALIASES = {
    "pvt_t": "pvt_tiny",
    "pvt_s": "pvt_small",
    "pvt_m": "pvt_medium",
    "pvt_l": "pvt_large",
}

Entry = tuple[type[BackboneSpec], dict[str, Any]]
"""The family and the arguments of its spec: a rule fills in what they omit, once the overrides are in."""


def _entry(family: type[BackboneSpec], **arguments: Any) -> Entry:
    return family, arguments


FOCUSED = AttentionSpec("focused")
INLINE = AttentionSpec("inline")
POLA = AttentionSpec("polaformer")
AGENT_25 = AttentionSpec("agent", {"agents": 25})
AGENT_49 = AttentionSpec("agent", {"agents": 49})
# In pyramids the agents are 9-16-49-49; CSWin's LePE is the only convolution beside them.
AGENT = AttentionSpec("agent", {"agents": None})
AGENT_CSWIN = AttentionSpec("agent", {"agents": None, "kernel_size": None})

Geometry = dict[str, Any]
"""Arguments of a spec that several presets share."""

SMALL_IMAGES: Geometry = {"image_size": 32, "num_classes": 10}
MICRO_PYRAMID: Geometry = {
    **SMALL_IMAGES,
    "stages": "LL",
    "dims": (32, 64),
    "block_counts": (2, 2),
    "heads": (2, 4),
    "mlp_ratios": (4, 4),
    "sr_ratios": (1, 1),
    "softmax_sr_ratios": (1, 1),
}

REDUCED = (8, 4, 2, 1)
UNREDUCED = (1, 1, 1, 1)

PVT: Geometry = {
    "stages": "LLLL",
    "dims": (64, 128, 320, 512),
    "mlp_ratios": (8, 8, 4, 4),
    "softmax_sr_ratios": REDUCED,
}
SOFTMAX_PVT: Geometry = {**PVT, "heads": (1, 2, 5, 8), "sr_ratios": REDUCED}
LINEAR_PVT: Geometry = {**PVT, "heads": (1, 2, 5, 8), "sr_ratios": UNREDUCED, "class_token": False}
INLINE_PVT: Geometry = {
    **PVT,
    "heads": (2, 4, 10, 16),
    "sr_ratios": UNREDUCED,
    "class_token": False,
    "final_norm": False,
    "attention": INLINE,
}

PVT_V2: Geometry = {"stages": "LLLL", "heads": (1, 2, 5, 8), "softmax_sr_ratios": REDUCED}
NARROW: Geometry = {**PVT_V2, "dims": (32, 64, 160, 256)}
WIDE: Geometry = {**PVT_V2, "dims": (64, 128, 320, 512)}
PVT_V2_B0: Geometry = {**NARROW, "block_counts": (2, 2, 2, 2), "mlp_ratios": (8, 8, 4, 4)}
PVT_V2_B1: Geometry = {**WIDE, "block_counts": (2, 2, 2, 2), "mlp_ratios": (8, 8, 4, 4)}
PVT_V2_B2: Geometry = {**WIDE, "block_counts": (3, 4, 6, 3), "mlp_ratios": (8, 8, 4, 4)}
PVT_V2_B3: Geometry = {**WIDE, "block_counts": (3, 4, 18, 3), "mlp_ratios": (8, 8, 4, 4)}
PVT_V2_B4: Geometry = {**WIDE, "block_counts": (3, 8, 27, 3), "mlp_ratios": (8, 8, 4, 4)}
PVT_V2_B5: Geometry = {**WIDE, "block_counts": (3, 6, 40, 3), "mlp_ratios": (4, 4, 4, 4)}

SWIN_T: Geometry = {"dim": 96, "block_counts": (2, 2, 6, 2), "heads": (3, 6, 12, 24)}
SWIN_S: Geometry = {"dim": 96, "block_counts": (2, 2, 18, 2), "heads": (3, 6, 12, 24)}
SWIN_B: Geometry = {"dim": 128, "block_counts": (2, 2, 18, 2), "heads": (4, 8, 16, 32)}
SWIN_B_384: Geometry = {**SWIN_B, "image_size": 384, "softmax_window": 12}

CSWIN_T: Geometry = {"dim": 64, "heads": (2, 4, 8, 16)}
CSWIN_S: Geometry = {"dim": 64, "heads": (2, 4, 8, 16)}
CSWIN_B: Geometry = {"dim": 96, "heads": (4, 8, 16, 32)}
CSWIN_B_384: Geometry = {**CSWIN_B, "image_size": 384}
# A stripe in each stage that is as wide as its map.
LINEAR_224: Geometry = {"stages": "LLSS", "split_size": (56, 28, 14, 7)}
LINEAR_384: Geometry = {"stages": "LLSS", "split_size": (96, 48, 24, 12)}
INLINE_CSWIN: Geometry = {"attention": INLINE, "input_before_norm": True}

PRESETS: dict[str, Entry] = {
    "deit_t": _entry(DeiTSpec, dim=192, depth=12, heads=3),
    "flatten_deit_t": _entry(DeiTSpec, dim=192, depth=12, heads=3, attention=FOCUSED),
    "agent_deit_t": _entry(DeiTSpec, dim=192, depth=12, heads=3, attention=AGENT_49),
    "deit_s": _entry(DeiTSpec, dim=384, depth=12, heads=6),
    "flatten_deit_s": _entry(DeiTSpec, dim=384, depth=12, heads=6, attention=FOCUSED),
    "agent_deit_s": _entry(DeiTSpec, dim=384, depth=12, heads=6, attention=AGENT_49),
    "deit_b": _entry(DeiTSpec, dim=768, depth=12, heads=12),
    "flatten_deit_b": _entry(DeiTSpec, dim=768, depth=12, heads=12, attention=FOCUSED),
    # Of the square numbers only 25 gives the 87.2 M parameters that were published for Agent-DeiT-B.
    "agent_deit_b": _entry(DeiTSpec, dim=768, depth=12, heads=12, attention=AGENT_25),
    # InLine's small and base are narrower than DeiT's and take larger images; its heads, all of 32, are twice as many.
    "inline_deit_t": _entry(DeiTSpec, dim=192, depth=12, heads=6, image_size=224, attention=INLINE),
    "inline_deit_s": _entry(DeiTSpec, dim=320, depth=12, heads=10, image_size=288, attention=INLINE),
    "inline_deit_b": _entry(DeiTSpec, dim=384, depth=12, heads=12, image_size=448, attention=INLINE),
    "deit_micro": _entry(DeiTSpec, **SMALL_IMAGES, dim=64, depth=4, heads=4, patch_size=4),
    "pvt_tiny": _entry(PVTSpec, **SOFTMAX_PVT, block_counts=(2, 2, 2, 2)),
    "flatten_pvt_t": _entry(PVTSpec, **LINEAR_PVT, block_counts=(2, 2, 2, 2), attention=FOCUSED),
    "agent_pvt_t": _entry(PVTSpec, **LINEAR_PVT, block_counts=(2, 2, 2, 2), attention=AGENT, final_norm=False),
    "inline_pvt_t": _entry(PVTSpec, **INLINE_PVT, block_counts=(2, 2, 2, 2)),
    "pola_pvt_t": _entry(PVTSpec, **LINEAR_PVT, block_counts=(2, 2, 2, 2), attention=POLA),
    "pvt_small": _entry(PVTSpec, **SOFTMAX_PVT, block_counts=(3, 4, 6, 3)),
    "flatten_pvt_s": _entry(PVTSpec, **LINEAR_PVT, block_counts=(3, 4, 6, 3), attention=FOCUSED),
    "agent_pvt_s": _entry(PVTSpec, **LINEAR_PVT, block_counts=(3, 4, 6, 3), attention=AGENT, final_norm=False),
    "inline_pvt_s": _entry(PVTSpec, **INLINE_PVT, block_counts=(3, 4, 6, 3)),
    "pola_pvt_s": _entry(PVTSpec, **LINEAR_PVT, block_counts=(3, 4, 6, 3), attention=POLA),
    "pvt_medium": _entry(PVTSpec, **SOFTMAX_PVT, block_counts=(3, 4, 18, 3)),
    "flatten_pvt_m": _entry(PVTSpec, **LINEAR_PVT, block_counts=(3, 4, 18, 3), attention=FOCUSED),
    "agent_pvt_m": _entry(PVTSpec, **LINEAR_PVT, block_counts=(3, 4, 18, 3), attention=AGENT, final_norm=False),
    "inline_pvt_m": _entry(PVTSpec, **INLINE_PVT, block_counts=(3, 4, 18, 3)),
    "pvt_large": _entry(PVTSpec, **SOFTMAX_PVT, block_counts=(3, 8, 27, 3)),
    # The configuration that FLatten calls b builds PVT-Large.
    "flatten_pvt_b": _entry(PVTSpec, **LINEAR_PVT, block_counts=(3, 8, 27, 3), attention=FOCUSED),
    "agent_pvt_l": _entry(PVTSpec, **LINEAR_PVT, block_counts=(3, 8, 27, 3), attention=AGENT, final_norm=False),
    "inline_pvt_l": _entry(PVTSpec, **INLINE_PVT, block_counts=(3, 8, 27, 3)),
    "pvt_micro": _entry(PVTSpec, **MICRO_PYRAMID, patch_sizes=(2, 2), class_token=False),
    "pvt_v2_b0": _entry(PVTv2Spec, **PVT_V2_B0, sr_ratios=REDUCED),
    "flatten_pvt_v2_b0": _entry(PVTv2Spec, **PVT_V2_B0, sr_ratios=UNREDUCED, attention=FOCUSED),
    "pvt_v2_b1": _entry(PVTv2Spec, **PVT_V2_B1, sr_ratios=REDUCED),
    "flatten_pvt_v2_b1": _entry(PVTv2Spec, **PVT_V2_B1, sr_ratios=UNREDUCED, attention=FOCUSED),
    "pvt_v2_b2": _entry(PVTv2Spec, **PVT_V2_B2, sr_ratios=REDUCED),
    "pvt_v2_b2_li": _entry(PVTv2Spec, **PVT_V2_B2, sr_ratios=REDUCED, pooled_keys=True),
    "flatten_pvt_v2_b2": _entry(PVTv2Spec, **PVT_V2_B2, sr_ratios=UNREDUCED, attention=FOCUSED),
    "pvt_v2_b3": _entry(PVTv2Spec, **PVT_V2_B3, sr_ratios=REDUCED),
    "flatten_pvt_v2_b3": _entry(PVTv2Spec, **PVT_V2_B3, sr_ratios=UNREDUCED, attention=FOCUSED),
    "pvt_v2_b4": _entry(PVTv2Spec, **PVT_V2_B4, sr_ratios=REDUCED),
    "flatten_pvt_v2_b4": _entry(PVTv2Spec, **PVT_V2_B4, sr_ratios=UNREDUCED, attention=FOCUSED),
    "pvt_v2_b5": _entry(PVTv2Spec, **PVT_V2_B5, sr_ratios=REDUCED),
    "flatten_pvt_v2_b5": _entry(PVTv2Spec, **PVT_V2_B5, sr_ratios=UNREDUCED, attention=FOCUSED),
    "pvt_v2_micro": _entry(PVTv2Spec, **MICRO_PYRAMID, patch_sizes=(4, 2)),
    "swin_t": _entry(SwinSpec, **SWIN_T, stages="LLLL", window=7),
    "flatten_swin_t": _entry(SwinSpec, **SWIN_T, stages="LLSS", window=56, attention=FOCUSED),
    "agent_swin_t": _entry(SwinSpec, **SWIN_T, stages="LLLS", window=56, attention=AGENT),
    "inline_swin_t": _entry(SwinSpec, **SWIN_T, stages="LLLS", window=56, attention=INLINE),
    "pola_swin_t": _entry(SwinSpec, **SWIN_T, stages="LLSS", window=56, attention=POLA),
    "swin_s": _entry(SwinSpec, **SWIN_S, stages="LLLL", window=7),
    "flatten_swin_s": _entry(SwinSpec, **SWIN_S, stages="LLSS", window=56, attention=FOCUSED),
    "agent_swin_s": _entry(SwinSpec, **SWIN_S, stages="LLSS", window=56, attention=AGENT),
    "inline_swin_s": _entry(SwinSpec, **SWIN_S, stages="LLSS", window=56, attention=INLINE),
    "pola_swin_s": _entry(SwinSpec, **SWIN_S, stages="LLSS", window=56, attention=POLA),
    "swin_b": _entry(SwinSpec, **SWIN_B, stages="LLLL", window=7),
    "flatten_swin_b": _entry(SwinSpec, **SWIN_B, stages="LLSS", window=56, attention=FOCUSED),
    "agent_swin_b": _entry(SwinSpec, **SWIN_B, stages="LLSS", window=56, attention=AGENT),
    "inline_swin_b": _entry(SwinSpec, **SWIN_B, stages="LLSS", window=56, attention=INLINE),
    "pola_swin_b": _entry(SwinSpec, **SWIN_B, stages="LLSS", window=56, attention=POLA),
    "swin_b_384": _entry(SwinSpec, **SWIN_B_384, stages="LLLL", window=12),
    "flatten_swin_b_384": _entry(SwinSpec, **SWIN_B_384, stages="LLSS", window=96, attention=FOCUSED),
    "agent_swin_b_384": _entry(SwinSpec, **SWIN_B_384, stages="LLSS", window=96, attention=AGENT),
    "swin_micro": _entry(
        SwinSpec, **SMALL_IMAGES, stages="LL", dim=48, block_counts=(2, 2), heads=(2, 4), window=8, softmax_window=8
    ),
    "cswin_t": _entry(CSWinSpec, **CSWIN_T, stages="LLLL", block_counts=(1, 2, 21, 1)),
    "flatten_cswin_t": _entry(CSWinSpec, **CSWIN_T, **LINEAR_224, block_counts=(2, 4, 18, 1), attention=FOCUSED),
    "agent_cswin_t": _entry(CSWinSpec, **CSWIN_T, **LINEAR_224, block_counts=(2, 4, 18, 1), attention=AGENT_CSWIN),
    "inline_cswin_t": _entry(CSWinSpec, **CSWIN_T, **LINEAR_224, block_counts=(2, 4, 18, 1), **INLINE_CSWIN),
    "cswin_s": _entry(CSWinSpec, **CSWIN_S, stages="LLLL", block_counts=(2, 4, 32, 2)),
    # FLatten's small has the depths of CSWin's.
    "flatten_cswin_s": _entry(CSWinSpec, **CSWIN_S, **LINEAR_224, block_counts=(2, 4, 32, 2), attention=FOCUSED),
    "agent_cswin_s": _entry(CSWinSpec, **CSWIN_S, **LINEAR_224, block_counts=(3, 6, 29, 2), attention=AGENT_CSWIN),
    "inline_cswin_s": _entry(CSWinSpec, **CSWIN_S, **LINEAR_224, block_counts=(3, 6, 29, 2), **INLINE_CSWIN),
    "cswin_b": _entry(CSWinSpec, **CSWIN_B, stages="LLLL", block_counts=(2, 4, 32, 2)),
    "flatten_cswin_b": _entry(CSWinSpec, **CSWIN_B, **LINEAR_224, block_counts=(3, 6, 29, 2), attention=FOCUSED),
    "agent_cswin_b": _entry(CSWinSpec, **CSWIN_B, **LINEAR_224, block_counts=(3, 6, 29, 2), attention=AGENT_CSWIN),
    "inline_cswin_b": _entry(CSWinSpec, **CSWIN_B, **LINEAR_224, block_counts=(3, 6, 29, 2), **INLINE_CSWIN),
    "cswin_b_384": _entry(CSWinSpec, **CSWIN_B_384, stages="LLLL", block_counts=(2, 4, 32, 2)),
    "flatten_cswin_b_384": _entry(
        CSWinSpec, **CSWIN_B_384, **LINEAR_384, block_counts=(3, 6, 29, 2), attention=FOCUSED
    ),
    "agent_cswin_b_384": _entry(
        CSWinSpec, **CSWIN_B_384, **LINEAR_384, block_counts=(3, 6, 29, 2), attention=AGENT_CSWIN
    ),
    "inline_cswin_b_384": _entry(CSWinSpec, **CSWIN_B_384, **LINEAR_384, block_counts=(3, 6, 29, 2), **INLINE_CSWIN),
    "cswin_micro": _entry(
        CSWinSpec,
        **SMALL_IMAGES,
        stages="LL",
        dim=48,
        block_counts=(2, 2),
        heads=(2, 4),
        split_size=(1, 4),
        softmax_split_size=(1, 4),
    ),
}


def presets() -> list[str]:
    """Return the names of all presets, family by family."""
    return list(PRESETS)


def preset(name: str, /, **overrides: Any) -> BackboneSpec:
    """Return the preset `name`, with fields of its spec replaced.

    Overrides of every family: `attention` (spec or text), `stages`, `image_size`, `num_classes`, `in_channels`; of Swin
    also `window`, `softmax_window`, `honour_shift_mask`, of CSWin `split_size`, `softmax_split_size`, of PVT and PVTv2
    `sr_ratios`, `softmax_sr_ratios`, and each other field of the family's spec.

    Raises:
        ValueError: for an unknown name or override, or values that do not fit each other.
    """
    name = ALIASES.get(name, name)
    if name not in PRESETS:
        summary = f"the {len(PRESETS)} of `attention-bench list backbones`"
        raise ValueError(unknown("preset", name, PRESETS, summary=summary))
    family, arguments = PRESETS[name]
    allowed = [f.name for f in fields(family) if f.name != "name"]
    for override in overrides:
        if override not in allowed:
            raise ValueError(unknown(f"override of {name} ({family.family})", override, allowed))
    return family(name=name, **{**arguments, **overrides})

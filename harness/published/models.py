"""The model that a row of a published table is about."""

from collections.abc import Mapping
from typing import Any

from backbones import BackboneSpec, preset

MODELS = {
    "DeiT-T": "deit_t",
    "DeiT-S": "deit_s",
    "DeiT-B": "deit_b",
    "PVT-T": "pvt_tiny",
    "PVT-S": "pvt_small",
    "PVT-M": "pvt_medium",
    "PVT-L": "pvt_large",
    "PVTv2-B0": "pvt_v2_b0",
    "PVTv2-B1": "pvt_v2_b1",
    "PVTv2-B2": "pvt_v2_b2",
    "PVTv2-B2-Linear": "pvt_v2_b2_li",
    "PVTv2-B3": "pvt_v2_b3",
    "PVTv2-B4": "pvt_v2_b4",
    "PVTv2-B5": "pvt_v2_b5",
    "Swin-T": "swin_t",
    "Swin-S": "swin_s",
    "Swin-B": "swin_b",
    "CSWin-T": "cswin_t",
    "CSWin-S": "cswin_s",
    "CSWin-B": "cswin_b",
    "FLatten-DeiT-T": "flatten_deit_t",
    "FLatten-PVT-T": "flatten_pvt_t",
    "FLatten-PVT-S": "flatten_pvt_s",
    "FLatten-PVT-M": "flatten_pvt_m",
    # FLatten's code calls its large PVT b.
    "FLatten-PVT-L": "flatten_pvt_b",
    "FLatten-PVTv2-B0": "flatten_pvt_v2_b0",
    "FLatten-PVTv2-B1": "flatten_pvt_v2_b1",
    "FLatten-PVTv2-B2": "flatten_pvt_v2_b2",
    "FLatten-PVTv2-B3": "flatten_pvt_v2_b3",
    "FLatten-PVTv2-B4": "flatten_pvt_v2_b4",
    "FLatten-Swin-T": "flatten_swin_t",
    "FLatten-Swin-S": "flatten_swin_s",
    "FLatten-Swin-B": "flatten_swin_b",
    "FLatten-CSWin-T": "flatten_cswin_t",
    "FLatten-CSWin-S": "flatten_cswin_s",
    "FLatten-CSWin-B": "flatten_cswin_b",
}
"""The preset of a published name, at 224 pixels."""

AT_384 = {
    "Swin-B": "swin_b_384",
    "CSWin-B": "cswin_b_384",
    "FLatten-Swin-B": "flatten_swin_b_384",
    "FLatten-CSWin-B": "flatten_cswin_b_384",
}
"""Models that have a preset of their own at 384 pixels."""

ABLATIONS: dict[tuple[str, str, str, str], tuple[str, dict[str, Any]]] = {
    ("module", "deit_t", "softmax", "softmax"): ("deit_t", {}),
    ("module", "deit_t", "flatten", "relu-linear"): ("flatten_deit_t", {"attention": "linear"}),
    ("module", "deit_t", "flatten", "relu-linear+fp"): (
        "flatten_deit_t",
        {"attention": "focused(kernel_size=None, positional_encoding=False)"},
    ),
    ("module", "deit_t", "flatten", "relu-linear+fp+dwc"): ("flatten_deit_t", {}),
    ("focusing_factor", "swin_t", "flatten", "2"): ("flatten_swin_t", {"attention": "focused(focusing_factor=2)"}),
    ("focusing_factor", "swin_t", "flatten", "3"): ("flatten_swin_t", {"attention": "focused(focusing_factor=3)"}),
    ("focusing_factor", "swin_t", "flatten", "4"): ("flatten_swin_t", {"attention": "focused(focusing_factor=4)"}),
    ("focusing_factor", "swin_t", "flatten", "8"): ("flatten_swin_t", {"attention": "focused(focusing_factor=8)"}),
    ("focusing_factor", "swin_t", "flatten", "32"): ("flatten_swin_t", {"attention": "focused(focusing_factor=32)"}),
    ("window_size", "swin_t", "softmax", "7"): ("swin_t", {}),
    ("window_size", "swin_t", "softmax", "56"): ("swin_t", {"window": 56}),
    ("window_size", "swin_t", "flatten", "7"): ("flatten_swin_t", {"window": 7}),
    ("window_size", "swin_t", "flatten", "14"): ("flatten_swin_t", {"window": 14}),
    ("window_size", "swin_t", "flatten", "28"): ("flatten_swin_t", {"window": 28}),
    ("window_size", "swin_t", "flatten", "56"): ("flatten_swin_t", {"window": 56}),
    ("stages", "swin_t", "softmax", "SSSS"): ("swin_t", {}),
    ("stages", "swin_t", "flatten", "LSSS"): ("flatten_swin_t", {"stages": "LSSS"}),
    ("stages", "swin_t", "flatten", "LLSS"): ("flatten_swin_t", {"stages": "LLSS"}),
    ("stages", "swin_t", "flatten", "LLLS"): ("flatten_swin_t", {"stages": "LLLS"}),
    ("stages", "swin_t", "flatten", "LLLL"): ("flatten_swin_t", {"stages": "LLLL"}),
    ("linear_attention_design", "deit_t", "softmax", "softmax"): ("deit_t", {}),
    ("linear_attention_design", "deit_t", "flatten", "flatten"): ("flatten_deit_t", {}),
    ("linear_attention_design", "swin_t", "softmax", "softmax"): ("swin_t", {}),
    ("linear_attention_design", "swin_t", "flatten", "flatten"): ("flatten_swin_t", {}),
}
"""By ablation, backbone, attention and value of the parameter: a preset, and what the row changes in it."""


def spec_of(target: Mapping[str, Any]) -> BackboneSpec:
    """Return our model for a key of the published tables, {model, resolution} or {ablation, backbone, ...}."""
    if "ablation" not in target:
        return _published_model(target["model"], target["resolution"])
    attention = "softmax" if "softmax" in target["setting"] else "flatten"
    name, overrides = ABLATIONS[target["ablation"], target["backbone"], attention, target["param_value"]]
    return preset(name, **overrides)


def _published_model(model: str, resolution: int) -> BackboneSpec:
    if resolution == 384 and model in AT_384:
        return preset(AT_384[model])
    name = MODELS[model]
    if resolution == 224:
        return preset(name)
    # The windows of Swin at other resolutions are those of Agent Attention's comparison: a 32nd of the image.
    overrides = {"window": resolution // 32} if "swin" in name and "cswin" not in name else {}
    return preset(name, image_size=resolution, **overrides)

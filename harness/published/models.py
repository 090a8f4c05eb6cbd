"""The model that a row of a published table stands for."""

from collections.abc import Mapping
from typing import Any

from backbones import BackboneSpec, preset

PVT_SIZES = {"T": ("tiny", "t"), "S": ("small", "s"), "M": ("medium", "m"), "L": ("large", "b")}

# By ablation and value of its parameter; the backbone of each is the paper's.
ABLATIONS: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {
    ("module", "relu-linear"): ("flatten_deit_t", {"attention": "linear"}),
    ("module", "relu-linear+fp"): (
        "flatten_deit_t",
        {"attention": "focused(kernel_size=None, positional_encoding=False)"},
    ),
    ("module", "relu-linear+fp+dwc"): ("flatten_deit_t", {}),
    ("module", "softmax"): ("deit_t", {}),
    **{
        ("focusing_factor", str(p)): ("flatten_swin_t", {"attention": f"focused(focusing_factor={p})"})
        for p in (2, 3, 4, 8, 32)
    },
    **{("window_size", str(window)): ("flatten_swin_t", {"window": window}) for window in (7, 14, 28, 56)},
    **{("stages", stages): ("flatten_swin_t", {"stages": stages}) for stages in ("LSSS", "LLSS", "LLLS", "LLLL")},
    ("stages", "SSSS"): ("swin_t", {}),
}
SOFTMAX_WINDOWS = {"7": ("swin_t", {}), "56": ("swin_t", {"window": 56})}
DESIGNS = {"deit_t": ("deit_t", "flatten_deit_t"), "swin_t": ("swin_t", "flatten_swin_t")}


def spec_of(target: Mapping[str, Any]) -> BackboneSpec:
    """Our model for a key of the published tables ({model, resolution} or {ablation, backbone, ...})."""
    if "ablation" not in target:
        return _published_model(target["model"], target["resolution"])
    ablation, value = target["ablation"], target["param_value"]
    if ablation == "linear_attention_design":
        return preset(DESIGNS[target["backbone"]][value == "flatten"])
    if ablation == "window_size" and "softmax" in target["setting"]:
        name, overrides = SOFTMAX_WINDOWS[value]
    else:
        name, overrides = ABLATIONS[ablation, value]
    return preset(name, **overrides)


def _published_model(model: str, resolution: int) -> BackboneSpec:
    prefix = "flatten_" if model.startswith("FLatten-") else ""
    family, _, size = model.removeprefix("FLatten-").partition("-")
    match family:
        case "PVT":
            plain, flatten = PVT_SIZES[size]
            name = f"flatten_pvt_{flatten}" if prefix else f"pvt_{plain}"
        case "PVTv2":
            name = f"{prefix}pvt_v2_{size.lower().replace('-linear', '_li')}"
        case _:
            name = f"{prefix}{family.lower()}_{size.lower()}"
    if resolution == 224:
        return preset(name)
    if family in ("Swin", "CSWin") and resolution == 384 and size == "B":
        return preset(f"{name}_384")
    # The windows of Swin at other resolutions are those of Agent Attention's comparison: a 32nd of the image.
    overrides = {"window": resolution // 32} if family == "Swin" else {}
    return preset(name, image_size=resolution, **overrides)

"""From a spec to its model: the table of the five families."""

from collections.abc import Mapping
from typing import Any

from attentions import Macs
from backbones._model import Backbone
from backbones._spec import BackboneSpec
from backbones.cswin import CSWin, CSWinSpec
from backbones.deit import DeiT, DeiTSpec
from backbones.pvt import PVT, PVTSpec
from backbones.pvt_v2 import PVTv2, PVTv2Spec
from backbones.swin import Swin, SwinSpec


def build(spec: BackboneSpec, *, drop_path: float = 0.0) -> Backbone:
    """Build the model of a spec: (B, in_channels, H, W) -> logits (B, num_classes).

    `drop_path` is the maximum rate of stochastic depth. Under `torch.device("meta")` no weights are allocated.

    Raises:
        ValueError: if an attention cannot work at one of its sites.
    """
    match spec:
        case DeiTSpec():
            return DeiT(spec, drop_path)
        case PVTSpec():
            return PVT(spec, drop_path)
        case PVTv2Spec():
            return PVTv2(spec, drop_path)
        case SwinSpec():
            return Swin(spec, drop_path)
        case CSWinSpec():
            return CSWin(spec, drop_path)
    raise TypeError(f"no family for {type(spec).__name__}")


FAMILIES: dict[str, type[BackboneSpec]] = {
    family.family: family for family in (DeiTSpec, PVTSpec, PVTv2Spec, SwinSpec, CSWinSpec)
}


def from_json(plain: Mapping[str, Any]) -> BackboneSpec:
    """Return the spec with this `to_json()`. Raises ValueError for an unknown family or invalid values."""
    values = dict(plain)
    family = values.pop("family", None)
    if family not in FAMILIES:
        raise ValueError(f"unknown backbone family {family!r}; allowed: {', '.join(FAMILIES)}")
    return FAMILIES[family](**values)


def macs(spec: BackboneSpec) -> Macs:
    """Return the multiply-adds for one image, by a closed formula."""
    return sum(spec.macs_by_part().values(), Macs())

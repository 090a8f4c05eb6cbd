"""Every preset as a timm model: `import backbones.timm_models`, then `timm.create_model("flatten_swin_t")`.

A preset is registered under its own name, or, where timm already has a model of that name, with the prefix `bench_`
(`bench_pvt_v2_b0`). Arguments are timm's (num_classes, in_chans, img_size, global_pool, drop_rate, drop_path_rate), and
the other fields of the preset's spec, such as attention, stages or window. `features_only=True` returns the maps of the
stages. With `pretrained=True, pretrained_cfg_overlay={"file": ...}`, official weights and timm's own can be read.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import fields
from functools import partial
from typing import Any

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, is_model, register_model
from torch import Tensor, nn

from attentions import unknown
from backbones import build, from_official, preset, presets
from backbones._model import Backbone
from backbones._spec import BackboneSpec

PREFIX = "bench_"
TIMM_NAMES = {name: PREFIX + name if is_model(name) else name for name in presets()}
"""The name in timm of each preset."""

FIRST_CONVOLUTION = {
    "deit": "patch_embed.proj",
    "pvt": "patch_embed1.proj",
    "pvt_v2": "patch_embed1.proj",
    "swin": "patch_embed.proj",
    "cswin": "stage1_conv_embed.0",
}
TIMM_ARGUMENTS = ("num_classes", "in_chans", "img_size", "global_pool", "drop_rate", "drop_path_rate")
RENAMED_FIELDS = {"name", "num_classes", "in_channels", "image_size"}
"""Fields of a spec that are not arguments, or have another name in timm."""

WINDOWS = ("window", "softmax_window", "split_size", "softmax_split_size")


def create(
    name: str,
    *,
    num_classes: int,
    in_chans: int,
    img_size: int | tuple[int, int],
    global_pool: str | None = None,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    **overrides: Any,
) -> Backbone:
    """Build the model of a preset, by timm's arguments; `overrides` are fields of its spec.

    With `num_classes=0` it has no classifier. Parameters that no output depends on are frozen, so that
    DistributedDataParallel need not search for them.

    Raises:
        TypeError: for an unknown argument.
        ValueError: for values that do not fit each other.
    """
    own = [field.name for field in fields(preset(name)) if field.name not in RENAMED_FIELDS]
    for override in overrides:
        if override not in own:
            raise TypeError(unknown(f"argument of {name}", override, [*TIMM_ARGUMENTS, *own]))
    spec = resized(name, img_size, in_channels=in_chans, num_classes=num_classes or 1, **overrides)
    with nullcontext() if device is None else torch.device(device):
        model = build(spec, drop_path=drop_path_rate)
    assert isinstance(model, Backbone)
    if not num_classes or global_pool is not None:
        model.reset_classifier(num_classes, global_pool)
    if drop_rate > 0:
        model.head_drop = nn.Dropout(drop_rate)
    for parameter in model.never_used:
        model.get_parameter(parameter).requires_grad_(False)
    return model.to(dtype=dtype)


def resized(name: str, img_size: int | tuple[int, int], **overrides: Any) -> BackboneSpec:
    """Return the preset at another image size. If its windows do not tile the maps there, they are scaled with it.

    Raises:
        ValueError: if they do not tile the maps either way, or for other values that do not fit; the message is about
            the original windows.
    """
    try:
        return preset(name, image_size=img_size, **overrides)
    except ValueError as problem:
        published = preset(name)
        try:
            height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
            ratio = max(height / published.image_size[0], width / published.image_size[1])
            windows = {
                key: _scaled(getattr(published, key), ratio)
                for key in WINDOWS
                if hasattr(published, key) and key not in overrides
            }
            return preset(name, image_size=img_size, **windows, **overrides)
        except (TypeError, ValueError):
            raise problem from None


def _scaled(numbers: Any, ratio: float) -> Any:
    if isinstance(numbers, tuple):
        return tuple(_scaled(number, ratio) for number in numbers)
    return max(1, round(numbers * ratio))


def _cfg(spec: BackboneSpec) -> dict[str, Any]:
    """Return timm's configuration of a model; images are prepared as the paper's own code does for evaluation."""
    # FLatten and its successors squash images, except FLatten-DeiT; of the originals only Swin at 384 does.
    large = max(spec.image_size) > 224
    original = spec.attention.name in ({"softmax", "focused"} if spec.family == "deit" else {"softmax"})
    squash = not original or (large and spec.family == "swin")
    if large and (original or spec.family == "swin"):
        crop_pct = 1.0
    else:
        crop_pct = 0.9 if original and spec.family == "cswin" else 0.875
    last = spec.mounts()[-1].grid
    return {
        "num_classes": spec.num_classes,
        "input_size": (spec.in_channels, *spec.image_size),
        "fixed_input_size": True,
        "pool_size": (last.height, last.width),
        "crop_pct": crop_pct,
        "crop_mode": "squash" if squash else "center",
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": FIRST_CONVOLUTION[spec.family],
        "classifier": "head",
    }


default_cfgs = generate_default_cfgs({timm_name: _cfg(preset(name)) for name, timm_name in TIMM_NAMES.items()})


def _read(state: dict[str, Tensor], model: Backbone) -> dict[str, Tensor]:
    """Convert the state in a file to our names."""
    return from_official(state, model.spec)


def _entry(name: str) -> Callable[..., nn.Module]:
    """Return the function that timm calls for a preset."""
    depths = preset(name).depths

    def entry(pretrained: bool = False, **arguments: Any) -> nn.Module:
        return build_model_with_cfg(
            partial(create, name),
            TIMM_NAMES[name],
            pretrained,
            pretrained_filter_fn=_read,
            # For a DeiT, whose blocks form one stage, the last three maps.
            feature_cfg={"out_indices": len(depths) if len(depths) > 1 else 3, "feature_cls": "getter"},
            **arguments,
        )

    entry.__name__ = entry.__qualname__ = TIMM_NAMES[name]
    return entry


# timm finds the configuration of an entry by its name, in the module that defines it.
for _name, _timm_name in TIMM_NAMES.items():
    globals()[_timm_name] = register_model(_entry(_name))

"""Conversion of checkpoints: official ones in and out, and timm's in, by pure functions from state to state.

The hosts keep the official names; the attention adds one level, `core`. Buffers that are rebuilt (position indices,
shift masks) are not part of our state.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from backbones._build import build
from backbones._spec import BackboneSpec

# PolaFormer's gate, which official checkpoints keep in one linear layer with the host's projection.
GATE = re.compile(r"(.*\.)g\.(weight|bias)")
FUSED = re.compile(r"(.*\.)(q|qkv)g\.(weight|bias)")

DISTILLED = "dist_token"
"""What the distilled DeiT (arXiv 2012.12877, section 4) has beside its class token, together with a second head."""

REBUILT = ("relative_position_index", "attn_mask")
# Biases between agents (a) and rows (h) or columns (w), in either order. Official ones have five dimensions, of which
# the first is 1.
LINES = re.compile(r"\.(a[hw]|[hw]a)_bias$")
POSITIONS = re.compile(r"(?:^|\.)(pos_embed\d*|positional_encoding|relative_position_bias_table|(a[hw]|[hw]a)_bias)$")


def from_official(state: Mapping[str, Tensor], spec: BackboneSpec, *, strict: bool = True) -> dict[str, Tensor]:
    """Convert an official `state`, or timm's, to our names; resize its position tables if the resolution differs.

    A strict `load_state_dict` into `build(spec)` accepts the result. Keys that the model does not have are passed on
    unchanged, so that strict loading names them.

    Raises ValueError for a position table that cannot be resized, and for a distilled DeiT, whose table has a row for
    another token; if not `strict`, they are passed on unchanged as well.
    """
    with torch.device("meta"):
        ours = build(spec).state_dict()
    if strict and DISTILLED in state and DISTILLED not in ours:
        raise ValueError(
            f"these are the weights of a distilled DeiT ({DISTILLED}, head_dist), but {spec.name} has no distillation "
            "token; take those of the DeiT trained without"
        )
    names = {official_name(name): name for name in ours}
    converted = {}
    for key, value in split_gates(from_timm(state, spec)).items():
        if key.rsplit(".", 1)[-1] in REBUILT:
            continue
        name = names.get(key, key)
        if LINES.search(key) and value.ndim == 5 and len(value) == 1:
            value = value.squeeze(0)
        if name in ours and POSITIONS.search(key) and value.shape != ours[name].shape:
            try:
                value = resize_positions(key, value, ours[name].shape, _prefix(spec, key))
            except ValueError:
                if strict:
                    raise
        converted[name] = value
    return converted


def to_official(state: Mapping[str, Tensor], spec: BackboneSpec) -> dict[str, Tensor]:
    """Convert our `state` to the official names; the inverse of `from_official` on parameters."""
    official = {official_name(name): value for name, value in state.items()}
    return fuse_gates({key: value.unsqueeze(0) if LINES.search(key) else value for key, value in official.items()})


def official_name(name: str) -> str:
    return name.replace(".core.", ".")


def from_timm(state: Mapping[str, Tensor], spec: BackboneSpec) -> dict[str, Tensor]:
    """Convert the state of timm's Swin or PVTv2 to the official names; return any other state unchanged.

    timm's DeiT has the official names.
    """
    if spec.family == "swin" and not any(key.startswith("layers.0.downsample.") for key in state):
        return {_from_timm_swin(key): value for key, value in state.items()}
    if spec.family == "pvt_v2" and any(key.startswith("stages.") for key in state):
        return {_from_timm_pvt_v2(key): value for key, value in state.items()}
    return dict(state)


def _from_timm_swin(key: str) -> str:
    # In timm, merging begins a stage; in the official code, it ends the one before.
    merging = re.fullmatch(r"layers\.(\d+)\.(downsample\..*)", key)
    return f"layers.{int(merging[1]) - 1}.{merging[2]}" if merging else key.replace("head.fc.", "head.")


def _from_timm_pvt_v2(key: str) -> str:
    stage = re.fullmatch(r"stages\.(\d+)\.(downsample|blocks|norm)\.(.*)", key)
    if stage is None:
        return key.replace("patch_embed.", "patch_embed1.")
    number, part, rest = stage.groups()
    official = {"downsample": "patch_embed", "blocks": "block", "norm": "norm"}[part]
    return f"{official}{int(number) + 1}.{rest}".replace(".mlp.dwconv.", ".mlp.dwconv.dwconv.")


def split_gates(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Split `qg` or `qkvg`, of 2 C or 4 C rows, of an official state into `q` or `qkv` and the last C rows, `g`."""
    split = {}
    for key, value in state.items():
        match = FUSED.fullmatch(key)
        if match is None:
            split[key] = value
            continue
        host, projection, kind = match.groups()
        rows = value.shape[0] - value.shape[0] // (len(projection) + 1)
        split[f"{host}{projection}.{kind}"], split[f"{host}g.{kind}"] = value[:rows], value[rows:]
    return split


def fuse_gates(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Invert `split_gates`; a gate without a projection beside it, as in CSWin's branches, is left unchanged."""
    fused = dict(state)
    for key in state:
        match = GATE.fullmatch(key)
        if match is None:
            continue
        host, kind = match.groups()
        for projection in ("q", "qkv"):
            rows = f"{host}{projection}.{kind}"
            if rows in fused:
                fused[f"{host}{projection}g.{kind}"] = torch.cat((fused.pop(rows), fused.pop(key)))
    return fused


def _prefix(spec: BackboneSpec, key: str) -> int:
    """Return the number of rows of a position table that belong to prefix tokens and not to the grid."""
    part = spec.part_of(key)
    return next((mount.grid.prefix for mount in spec.mounts() if f"stage {mount.stage}" == part), 0)


def resize_positions(key: str, table: Tensor, shape: torch.Size, prefix: int) -> Tensor:
    """Resize a position table to another resolution, with the interpolation of the official loaders.

    Position embeddings (1, N, C) and relative position bias tables (N, heads) are read as square grids and resized
    bicubically (`pos_embed1` to `4` of PVT bilinearly, as PVT does on the fly); rows of prefix tokens are kept. Biases
    between agents and rows or columns are resized linearly; no official loader resizes these.

    Raises:
        ValueError: if a table does not belong to a square grid, or has other channels.
    """
    if LINES.search(key):
        return resize_lines(key, table, shape)
    refusal = f"cannot resize {key} from {tuple(table.shape)} to {tuple(shape)}: both must be square grids"
    if table.ndim != len(shape):
        raise ValueError(refusal)
    bias = key.endswith("relative_position_bias_table")
    rows, wanted = (table.unsqueeze(0), shape[0]) if bias else (table, shape[1])
    head, body = rows[:, :prefix], rows[:, prefix:]
    source, target = math.isqrt(body.shape[1]), math.isqrt(wanted - prefix)
    if source**2 != body.shape[1] or target**2 != wanted - prefix or table.shape[-1] != shape[-1]:
        raise ValueError(refusal)
    image = body.transpose(1, 2).unflatten(-1, (source, source))
    mode = "bilinear" if re.search(r"pos_embed\d$", key) else "bicubic"
    image = F.interpolate(image.float(), size=(target, target), mode=mode, align_corners=False).to(table.dtype)
    resized = torch.cat((head, image.flatten(2).transpose(1, 2)), dim=1)
    return resized.squeeze(0) if bias else resized


def resize_lines(key: str, table: Tensor, shape: torch.Size) -> Tensor:
    """Resize a table to more or fewer rows, or columns, linearly along the only axis that differs."""
    axes = [axis for axis, (old, new) in enumerate(zip(table.shape, shape, strict=False)) if old != new]
    if table.ndim != len(shape) or len(axes) != 1:
        raise ValueError(f"cannot resize {key} from {tuple(table.shape)} to {tuple(shape)}: only one side may differ")
    (axis,) = axes
    lines = table.movedim(axis, -1)
    resized = F.interpolate(lines.flatten(0, -2).unsqueeze(0).float(), size=shape[axis], mode="linear")
    return resized.to(table.dtype).view(*lines.shape[:-1], shape[axis]).movedim(-1, axis)

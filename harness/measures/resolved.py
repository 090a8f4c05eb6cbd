"""The resolved table of a model, per stage: what `attention-bench show` prints."""

from __future__ import annotations

from collections import Counter
from itertools import groupby

import torch

import backbones
from attentions import Grid, lookup
from backbones import BackboneSpec, Mount
from results.sheets import Sheet

HEADERS = (
    "stage", "map", "tokens", "blocks", "dim", "heads", "attention", "keys", "meets", "shift", "params (M)", "GMACs",
)  # fmt: skip


def resolved_table(spec: BackboneSpec) -> Sheet:
    """Return one row per stage and kind of block; parameters and GMACs of the entire stage are in its first row.

    Raises ValueError where the attention cannot be mounted.
    """
    with torch.device("meta"):
        model = backbones.build(spec)
    params = Counter[str]()
    for name, parameter in model.named_parameters():
        params[spec.part_of(name)] += parameter.numel()
    macs = spec.macs_by_part()
    rows: list[list[str]] = []
    for stage, in_stage in groupby(spec.mounts(), key=lambda mount: mount.stage):
        for _, group in groupby(in_stage, key=lambda mount: (mount.attention, mount.sites[0].queries, mount.reduction)):
            mounts = list(group)
            part = f"stage {stage}"
            first = not any(row[0] == str(stage) for row in rows)
            counts = (_millions(params[part]), _giga(macs[part].total)) if first else ("", "")
            rows.append([str(stage), *_describe(mounts), *counts])
    rows.append(["head", *[""] * (len(HEADERS) - 3), _millions(params["head"]), _giga(macs["head"].total)])
    total = sum(macs.values(), backbones.Macs())
    rows.append(["all", *[""] * (len(HEADERS) - 3), _millions(params.total()), _giga(total.total)])
    right = frozenset(i for i, name in enumerate(HEADERS) if name not in ("stage", "attention", "meets", "keys"))
    return Sheet(HEADERS, rows, right, _notes(spec, model), spare=("shift", "keys", "tokens", "heads"))


def _describe(mounts: list[Mount]) -> tuple[str, ...]:
    mount = mounts[0]
    site = mount.sites[0]
    shifts = sorted({m.shift for m in mounts})
    keys = _size(site.keys)
    if mount.reduction > 1:
        keys += f" (1/{mount.reduction})"
    return (
        _size(mount.grid),
        str(mount.grid.tokens),
        str(len(mounts)),
        str(mount.dim),
        str(mount.heads),
        str(mount.attention),
        keys,
        _meets(mount),
        "/".join(map(str, shifts)),
    )


def windows_of(spec: BackboneSpec) -> str:
    """Return which tokens meet in each stage, in one line: "7x7 of 56x56, 7x7 of 28x28, ..."."""
    found = []
    for _, in_stage in groupby(spec.mounts(), key=lambda mount: mount.stage):
        mounts = list(in_stage)
        meets = " or ".join(dict.fromkeys(_meets(mount) for mount in mounts))
        keys = dict.fromkeys(f" with {_size(m.sites[0].keys)} keys" for m in mounts if m.reduction > 1)
        found.append(f"{meets} of {_size(mounts[0].grid)}{' or'.join(keys)}")
    return ", ".join(found)


def _meets(mount: Mount) -> str:
    return " and ".join("whole map" if window is None else f"{window[0]}x{window[1]}" for window in mount.windows)


def _notes(spec: BackboneSpec, model: torch.nn.Module) -> list[str]:
    height, width = spec.image_size
    mounts = spec.mounts()
    lines = [
        f"{spec.name} ({spec.family}): {spec.in_channels}x{height}x{width} -> {spec.num_classes} classes, "
        f"stages {spec.stages}. 1 multiply-add = 1 MAC; matrix products and convolutions."
    ]
    shifted = [mount for mount in mounts if mount.shift]
    for name in sorted({mount.attention.name for mount in shifted}):
        honoured = lookup(name).takes_bias or any(m.sites[0].regions > 1 for m in shifted if m.attention.name == name)
        policy = "honoured" if honoured else "ignored, as in the official code (honour_shift_mask=True honours it)"
        lines.append(f"Shift mask of {name} in shifted windows: {policy}.")
    wanted = getattr(spec, "window", None)
    clamped = {m.stage for m in mounts if m.tested and wanted is not None and wanted > m.sites[0].queries.height}
    if clamped:
        lines.append(
            f"window={wanted} is larger than the map of stage {_listed(clamped)}: the map is the window there."
        )
    if mounts[-1].grid.prefix:
        lines.append("+1: the class token, which takes part in the mixing and is outside the grid.")
    for name in sorted({mount.attention.name for mount in mounts}):
        reads = lookup(name).reads
        if reads != "qkv":
            unread = " and ".join(letter for letter in "qkv" if letter not in reads)
            lines.append(f"{name} does not read {unread}; their projections are counted all the same.")
    unused = [name for name in getattr(model, "never_used", ()) if ".attn." not in name]
    if unused:
        lines.append(f"Counted but never used, as in the official code: {', '.join(unused)}.")
    return lines


def _listed(numbers: set[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))


def _size(grid: Grid) -> str:
    return f"{grid.height}x{grid.width}" + (f"+{grid.prefix}" if grid.prefix else "")


def _millions(count: int) -> str:
    return f"{count / 1e6:.3f}"


def _giga(count: int) -> str:
    return f"{count / 1e9:.4f}" if count >= 1e6 else f"{count / 1e9:#.2g}"

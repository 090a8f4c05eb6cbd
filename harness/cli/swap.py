"""The command for models of timm: swap."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from harness.cli.app import Positional, must_be_new, note, out_console, shown
from harness.cli.options import EmaOption, PartialWeightsOption


def swap(
    timm_model: Annotated[str, Positional, tyro.conf.arg(metavar="MODEL")],
    *,
    attention: Annotated[str, tyro.conf.arg(metavar="ATTENTION")],
    first: Annotated[int | None, shown("BLOCKS", default="all")] = None,
    set: Annotated[tuple[str, ...], shown("NAME=VALUE ...", default="timm's own")] = (),
    checkpoint: Annotated[Path | None, shown("FILE", default="random weights")] = None,
    ema: EmaOption = False,
    allow_partial_weights: PartialWeightsOption = False,
    out: Annotated[Path | None, shown("FILE")] = None,
) -> int:
    """Replace softmax by another attention in a vision transformer of timm; show its size and costs before and after.

    For example:
        attention-bench swap vit_small_patch16_224 --attention "focused(focusing_factor=4)"

    All weights outside the attention are kept. `--out` saves them as `{"model": ...}`, to be loaded into
    `backbones.swap.swap(timm.create_model(...), ...)`. Nothing is downloaded.

    Args:
        timm_model: a VisionTransformer, as in vit_small_patch16_224 or deit3_base_patch16_224.
        attention: the attention to swap in, as in "focused(focusing_factor=4)".
        first: change this many blocks, from the first on.
        set: arguments of timm.create_model, as in img_size=384 num_classes=100.
        checkpoint: the weights to start from, of timm, as .pth or .safetensors.
        out: where to write the weights, with the attention in place; an existing file is not overwritten.
    """
    from harness.cli.specs import settings
    from harness.cli.swapping import Swap
    from harness.training.loading import weights_in
    from results import tables

    if checkpoint is None and (ema or allow_partial_weights):
        option = "--ema" if ema else "--allow-partial-weights"
        raise ValueError(f"{option} has no effect without --checkpoint")
    if out is not None:
        must_be_new(out)
    task = Swap.of(timm_model, attention, settings(set), first)
    weights = None if checkpoint is None else weights_in(checkpoint, ema=ema, strict=not allow_partial_weights)
    sheet = task.sheet()
    loaded = "" if weights is None and out is None else task.save(weights, out)
    tables.show(sheet, out_console)
    for line in (loaded, f"wrote {out}" if out is not None else ""):
        if line:
            note(line)
    return 0

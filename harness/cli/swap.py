"""The command for models of timm: swap."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from harness.cli.app import Positional, must_be_new, note, out_console, shown


def swap(
    timm_model: Annotated[str, Positional],
    *,
    attention: str,
    first: Annotated[int | None, shown("BLOCKS")] = None,
    set: tuple[str, ...] = (),
    checkpoint: Annotated[Path | None, shown("FILE")] = None,
    ema: bool = False,
    allow_partial_weights: bool = False,
    out: Annotated[Path | None, shown("FILE")] = None,
) -> int:
    """Put an attention in the place of softmax in a vision transformer of timm: what it has and costs before and after.

    All weights outside of the attention's own stay. `--out` saves them as `{"model": ...}`; it is read into
    `backbones.swap.swap(timm.create_model(...), ...)`. Nothing is downloaded.

    Args:
        timm_model: a VisionTransformer, as in vit_small_patch16_224 or deit3_base_patch16_224.
        attention: the attention to swap in, as in "focused(focusing_factor=4)".
        first: change so many blocks from the start; left out, all of them.
        set: arguments of timm.create_model, as in img_size=384 num_classes=100.
        checkpoint: the weights to start from (of timm, pth or safetensors); left out, they are random.
        ema: take the moving average in that file.
        allow_partial_weights: take of that file what fits, report the rest, and leave it as initialised.
        out: where the weights go, with the attention in place; an existing file is not overwritten.
    """
    import results
    from harness.cli.selection import settings
    from harness.cli.swapping import Swap
    from harness.training.loading import weights_in

    if checkpoint is None and (ema or allow_partial_weights):
        option = "--ema" if ema else "--allow-partial-weights"
        raise ValueError(f"{option} has no effect without --checkpoint")
    if out is not None:
        must_be_new(out)
    task = Swap.of(timm_model, attention, settings(set), first)
    weights = None if checkpoint is None else weights_in(checkpoint, ema=ema, strict=not allow_partial_weights)
    sheet = task.sheet()
    loaded = "" if weights is None and out is None else task.save(weights, out)
    results.show(sheet, out_console)
    for line in (loaded, f"wrote {out}" if out is not None else ""):
        if line:
            note(line)
    return 0

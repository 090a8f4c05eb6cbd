"""The commands that show what there is: list, show."""

from __future__ import annotations

from typing import Annotated, Literal

import tyro

from harness.cli.app import Positional, check_at_least, out_console, say, shown
from harness.cli.options import AttentionOption, PresetArgument, SetOption

BATCH = 64
"""Images, where --fit asks for no other number."""

Precision = Literal["fp32", "bf16", "fp16"]


def list_(kind: Annotated[str, Positional, tyro.conf.arg(metavar="[KIND]")] = "all") -> int:
    """List attentions with their options, backbones, sweeps and tasks.

    For example:
        attention-bench list attentions

    Args:
        kind: attentions, backbones, sweeps, tasks, or all.
    """
    from harness.cli import catalogue

    say(catalogue.listing(kind), end="")
    return 0


def show(
    preset: PresetArgument,
    *,
    attention: AttentionOption = None,
    set: SetOption = (),
    fit: bool = False,
    batch: Annotated[int | None, shown("IMAGES", "with --fit: the batch.", default=str(BATCH))] = None,
    precision: Annotated[Precision | None, shown("fp32|bf16|fp16", "with --fit: as in run.", default="fp32")] = None,
) -> int:
    """Show a model stage by stage: map, tokens, windows, heads, attention, parameters and GMACs.

    For example:
        attention-bench show swin_t --attention "focused(focusing_factor=4)" --set stages=LLSS
        attention-bench show swin_t --fit --batch 128 --precision bf16

    Args:
        fit: show also the memory that a batch takes, estimated without a GPU, and the largest batches that fit.
    """
    from harness.cli.specs import settings, specs_of
    from harness.measures.resolved import resolved_table
    from results import sheets

    for option, value in (("--batch", batch), ("--precision", precision)):
        if value is not None and not fit:
            raise ValueError(f"{option} has no effect without --fit")
    check_at_least(1, "--batch", batch)
    (spec,) = specs_of(preset, () if attention is None else (attention,), settings(set))
    sheets.show(resolved_table(spec), out_console)
    if fit:
        from harness.estimates.memory import memory_sheet

        say("")
        sheets.show(memory_sheet(spec, BATCH if batch is None else batch, precision or "fp32"), out_console)
    return 0

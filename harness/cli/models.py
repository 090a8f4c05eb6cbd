"""The commands that show what there is: list, show."""

from __future__ import annotations

from typing import Annotated

import tyro

from harness.cli.app import Positional, out_console, say
from harness.cli.options import AttentionOption, PresetArgument, SetOption


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
) -> int:
    """Show a model stage by stage: map, tokens, windows, heads, attention, parameters and GMACs.

    For example:
        attention-bench show swin_t --attention "focused(focusing_factor=4)" --set stages=LLSS
    """
    from harness.cli.specs import settings, specs_of
    from harness.measures.resolved import resolved_table
    from results import sheets

    (spec,) = specs_of(preset, () if attention is None else (attention,), settings(set))
    sheets.show(resolved_table(spec), out_console)
    return 0

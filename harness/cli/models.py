"""The commands that show what there is: list, show."""

from __future__ import annotations

from typing import Annotated

from harness.cli.app import Positional, out_console, say, shown, warn


def list_(kind: Annotated[str, Positional] = "all") -> int:
    """What there is: attentions with their options, backbones, sweeps and tasks.

    Args:
        kind: attentions, backbones, sweeps, tasks, or all of them.
    """
    import attentions
    from harness.cli import catalogue

    for line in attentions.broken_packages():
        warn(line)
    say(catalogue.listing(kind), end="")
    return 0


def show(
    preset: Annotated[str, Positional],
    *,
    attention: Annotated[str | None, shown("ATTENTION")] = None,
    set: tuple[str, ...] = (),
) -> int:
    """The resolved table of a model: maps, tokens, windows, heads, attention, parameters and GMACs per stage.

    Args:
        preset: a backbone, as in `attention-bench list backbones`.
        attention: the attention under test, as in "focused(focusing_factor=4)"; left out, the preset's own.
        set: other values of the preset, as in window=7 stages=LLSS image_size=384.
    """
    import results
    from harness.cli.selection import described, settings
    from harness.measures.resolved import resolved

    (spec,) = described(preset, () if attention is None else (attention,), settings(set))
    results.show(resolved(spec), out_console)
    return 0

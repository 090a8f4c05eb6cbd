"""The command that draws what is recorded: figure."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from harness.cli.app import Positional, note, shown
from harness.cli.options import FoldersOption, SourcesArgument, WhereOption
from harness.cli.outputs import check_files, write_files
from harness.cli.sheets import Recorded, recorded

if TYPE_CHECKING:
    from results.figures import Figure, Which

_RECORDS = ("out", "where")

OPTIONS: dict[str, tuple[str, ...]] = {
    "accuracy": ("x", "ema", *_RECORDS),
    "forest": ("baseline", "ema", *_RECORDS),
    "ranks": ("x", *_RECORDS),
    "ablation": ("option", "ema", *_RECORDS),
    "grid": ("option", "ema", *_RECORDS),
    "breakdown": _RECORDS,
    "curves": ("ema", *_RECORDS),
    "scaling": (),
}
"""The kinds, and which of the options that not all take each of them takes."""


def figure(
    kind: Annotated[str, Positional, tyro.conf.arg(metavar="KIND")],
    sources: SourcesArgument = (),
    *,
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="FILE")],
    out: FoldersOption = (),
    where: WhereOption = (),
    x: Annotated[str | None, shown("METRIC", default="gmacs, or top1 of ranks")] = None,
    baseline: Annotated[str | None, shown("ATTENTION", default="softmax")] = None,
    option: Annotated[tuple[str, ...], shown("NAME ...")] = (),
    ema: bool = False,
    title: Annotated[str | None, shown("TEXT")] = None,
    bare: bool = False,
) -> int:
    """Draw what is recorded, for a paper or a page.

    KIND is one of
        accuracy    accuracies against what they cost, with intervals and the Pareto front
        forest      differences of accuracies from a baseline, with intervals
        ranks       mean ranks of attentions over backbones, and what difference of them says something
        ablation    accuracies over the values of an option, a curve per attention
        grid        accuracies over two options, or of attentions by backbones
        breakdown   what multiply-adds are spent on
        curves      accuracy and loss after each epoch of trainings, and where they were resumed
        scaling     times, ratios and memory over the number of tokens, of the file that `scaling -o x.json` has written

    FILE ends in .pdf, .svg, .png (300 dots per inch), .html or .json (the Vega-Lite specification). What is drawn is
    also written beside it, to a file that ends in .csv; what a reader must know is below the picture. For example:
        attention-bench figure accuracy quickstart --where backbone=pvt_v2_micro --x latency_ms_p50 -o latency.pdf
        attention-bench figure forest --baseline "focused(kernel_size=None)" -o differences.svg
        attention-bench figure ablation ablation_dwc --option kernel_size -o kernels.pdf
        attention-bench figure scaling scaling.json -o scaling.pdf

    Args:
        kind: what is drawn, see above.
        output: the file to write.
        x: what accuracies are drawn against, or what ranks: gmacs, params_m, images_per_s, latency_ms_p50,
            train_images_per_s, train_step_ms_p50, infer_peak_allocated_mib, ...
        baseline: the attention that the others are compared with.
        option: an option of attentions or a field of models, as in kernel_size or stages; for grid two, or none.
        ema: take the accuracies of the moving averages of the weights.
        title: a line above the picture.
        bare: leave out the notes below the picture, for a caption of your own; they are printed all the same.
    """
    from results import figures, tables

    given = {"x": x is not None, "baseline": baseline is not None, "option": bool(option), "ema": ema}
    _check(kind, given | {"out": bool(out), "where": bool(where)})
    if kind == "ablation" and len(option) != 1:
        raise ValueError("an ablation takes one option, as in --option kernel_size")
    figures.check_ending(output)
    beside = output.with_suffix(".csv")
    if kind == "scaling":
        if len(sources) != 1:
            raise ValueError("scaling takes one file, as in figure scaling scaling.json -o scaling.pdf")
        found, (file,) = Recorded([], []), map(Path, sources)
        check_files([output, beside], [], [file])
        drawn = figures.scaling(file, title)
    else:
        found = recorded(sources, out)
        check_files([output, beside], found.folders)
        drawn = _drawn(kind, found, where, x, baseline or "softmax", option, "ema" if ema else "model", title)
        drawn = replace(drawn, notes=(*drawn.notes, *found.conflicts))
    content = figures.rendered(drawn, output.suffix, notes=not bare)
    write_files([(beside, tables.to_csv(drawn.data)), (output, content)], found.folders)
    for line in drawn.notes:
        note(line)
    return found.status


def _check(kind: str, given: dict[str, bool]) -> None:
    """Raise ValueError for an unknown kind, and for an option that it does not take."""
    if kind not in OPTIONS:
        near = difflib.get_close_matches(kind, OPTIONS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(OPTIONS)}"
        raise ValueError(f"unknown kind of figure {kind!r}; {hint}")
    for option in (name for name, is_given in given.items() if is_given and name not in OPTIONS[kind]):
        kinds = ", ".join(each for each, options in OPTIONS.items() if option in options)
        raise ValueError(f"--{option} has no effect on {kind}; it is for: {kinds}")


def _drawn(
    kind: str,
    found: Recorded,
    where: Sequence[str],
    x: str | None,
    baseline: str,
    option: Sequence[str],
    which: Which,
    title: str | None,
) -> Figure:
    from results import figures, tables

    match kind:
        case "curves":
            return figures.curves(found.of_rows(where), which, title)
        case "forest":
            comparisons = tables.comparisons(found.of_rows(where), baseline, which, origins=found.records)
            return figures.forest(comparisons, title)
    frame = found.frame(where)
    match kind:
        case "accuracy":
            return figures.accuracy(frame, x or "gmacs", which, title)
        case "ranks":
            return figures.ranks(frame, x or "top1", title)
        case "ablation":
            return figures.ablation(frame, option[0], which, title)
        case "grid":
            return figures.grid(frame, option, which, title)
        case "breakdown":
            return figures.breakdown(frame, title)
    raise AssertionError(kind)

"""The commands that show what is recorded: table, compare, reproduce."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from harness.cli.app import RUNS, Positional, check_at_least, error_console, kept_in, note, shown
from harness.cli.options import (
    CacheOption,
    DeviceOption,
    FoldersOption,
    OutOption,
    OutputOptions,
    PrecisionOption,
    SourcesArgument,
    WhereOption,
    WorkersOption,
)
from harness.cli.outputs import write_files
from harness.cli.sheets import emit, output_format, recorded

if TYPE_CHECKING:
    from results.tables import Sheet


def table(
    sources: SourcesArgument = (),
    *,
    out: FoldersOption = (),
    where: WhereOption = (),
    sort: Annotated[tuple[str, ...], shown("NAME ...", default="the order of the sweep, or by name")] = (),
    columns: Annotated[tuple[str, ...], shown("NAME[=TITLE] ...", default="the usual ones")] = (),
    pivot: Annotated[str | None, shown('"ROWS x COLUMNS"')] = None,
    output: tyro.conf.OmitArgPrefixes[OutputOptions] = OutputOptions(),  # noqa: B008
) -> int:
    """Print the table of all records in a folder, or of a sweep's cells, missing ones included; or write it to a file.

    For example:
        attention-bench table quickstart --columns params_m gmacs_attention --csv quickstart.csv
        attention-bench table quickstart --where backbone=pvt_v2_micro --sort top1 -o table.tex
        attention-bench table quickstart --pivot "attention x backbone" --columns top1 --format markdown

    Args:
        sort: columns to sort by, the better end of a metric on top; NAME:asc and NAME:desc say which end.
        columns: the columns to show, as in params_m latency_ms_p50 top1="Top-1 (%)"; --csv writes all of them.
        pivot: one metric, given by --columns, for each pair of values, as in "attention x backbone"; with several
            seeds, their mean and standard deviation.
    """
    from results import tables
    from results.garbage import no_collection

    with no_collection():
        found = recorded(sources, out)
        frame = found.frame(where, sort)
        chosen = tables.labelled(frame, columns)
        averaged: Sheet | None = None
        if pivot is not None:
            numbers, averaged = tables.pivoted(frame, pivot, list(chosen))
        else:
            numbers = tables.titled(frame, tables.shown_columns(frame, chosen)) if chosen else frame

        def sheet() -> Sheet:
            return (averaged or tables.sheet(frame, chosen)).with_notes(found.conflicts)

        emit(sheet, numbers, output, found.folders, complete=frame)
    return found.status


def compare(
    sources: SourcesArgument = (),
    *,
    out: FoldersOption = (),
    where: WhereOption = (),
    baseline: Annotated[str, tyro.conf.arg(metavar="ATTENTION")] = "softmax",
    ema: bool = False,
    evaluations: bool = False,
    rope: Annotated[float | None, shown("POINTS", default="nothing is called equal")] = None,
    output: tyro.conf.OmitArgPrefixes[OutputOptions] = OutputOptions(),  # noqa: B008
) -> int:
    """Compare trained attentions with a baseline: accuracies paired by image and by seed, with 95 % intervals.

    For example:
        attention-bench compare --baseline "focused(kernel_size=None)" --rope 0.2
        attention-bench compare --where backbone=swin_t "attention=softmax,focused(focusing_factor=3, kernel_size=5)"

    Args:
        baseline: the attention to compare with; with --evaluations, also a backbone or a file of weights.
        ema: compare the moving averages of the weights.
        evaluations: compare evaluations of given weights, not trainings: the images won and lost, by class.
        rope: the difference in points that is too small to matter: where the interval lies within it (the region of
            practical equivalence), the two are called practically equal.
    """
    from results import tables

    found = recorded(sources, out)
    if evaluations and ema:
        raise ValueError("--ema is of trainings; an evaluation says itself which weights it is of")
    records = found.of_rows(where)
    if evaluations:
        frame = tables.evaluations(records, baseline, rope)
        emit(lambda: tables.evaluated_sheet(frame), frame, output, found.folders)
        return found.status
    frame = tables.comparisons(records, baseline, "ema" if ema else "model", rope, origins=found.records)
    emit(lambda: tables.paired_sheet(frame), frame, output, found.folders)
    return found.status


def reproduce(
    paper: Annotated[str, Positional, tyro.conf.arg(metavar="PAPER")],
    *,
    data: Annotated[str | None, shown("FOLDER")] = None,
    weights: Annotated[Path | None, shown("FOLDER")] = None,
    allow_partial_data: bool = False,
    accuracy: Literal["any", "evaluated", "trained"] = "any",
    device: DeviceOption = "cpu",
    precision: PrecisionOption = "fp32",
    workers: WorkersOption = None,
    cache: CacheOption = None,
    out: OutOption = RUNS,
    figures: Annotated[Path | None, shown("FOLDER")] = None,
    output: tyro.conf.OmitArgPrefixes[OutputOptions] = OutputOptions(),  # noqa: B008
) -> int:
    """Print our parameters, GMACs and accuracies beside the published ones, row by row.

    Parameters and GMACs that are not recorded are counted first. With --data and --weights, each official file in that
    folder is evaluated first, as its own repository does:
        attention-bench reproduce flatten
        attention-bench reproduce flatten --data /data/imagenet --weights official --device cuda
        attention-bench reproduce flatten --figures figures

    Args:
        paper: flatten (FLatten Transformer, ICCV 2023).
        data: the folder of ImageNet-1K; only its val images are needed.
        weights: a folder with official weights, under the names that they are published by.
        allow_partial_data: take fewer than the 50,000 val images; their accuracies get no verdict.
        accuracy: show that of models evaluated from files, of models trained here, or any, which prefers the former.
        figures: draw the paper's figures there, its points and ours in one: accuracy against multiply-adds and against
            time, and its ablations; each as .pdf, as .svg, and its data as .csv.
    """
    from harness.cli.reproduction import drawn, our_numbers
    from harness.process.environment import readers_here
    from harness.process.ranks import process_group
    from harness.published.official import official_cells
    from harness.runner.run_all import run_all
    from results import tables

    published = tables.published_rows(paper)
    output_format(output, [out])  # before hours of work
    if figures is not None and figures.exists() and not figures.is_dir():
        raise ValueError(f"--figures {figures} is a file; it takes a folder")
    if (data is None) != (weights is None):
        raise ValueError("--data and --weights go together: images to evaluate, and the official files to evaluate")
    check_at_least(0, "--workers", workers)
    if data is not None and weights is not None:
        cells, missing = official_cells(
            weights,
            data,
            partial=allow_partial_data,
            device=device,
            precision=precision,
            workers=readers_here() if workers is None else workers,
            cache=kept_in(cache),
        )
        for line in missing:
            note(line)
        with process_group() as group:
            run_all(cells, out, error_console)
        if not group.first:
            return 0
    elif idle := [
        option
        for option, is_given in (
            ("--allow-partial-data", allow_partial_data),
            ("--device", device != "cpu"),
            ("--precision", precision != "fp32"),
            ("--workers", workers is not None),
            ("--cache", cache is not None),
        )
        if is_given
    ]:
        raise ValueError(f"{idle[0]} has no effect without --data and --weights")
    targets = tables.targets(published)
    ours = our_numbers(targets, out, error_console, accuracy=accuracy, partial=allow_partial_data)
    comparison = tables.compare(published, ours)
    emit(lambda: tables.comparison_sheet(comparison), comparison, output, [out])
    if figures is not None:
        write_files(drawn(paper, published, comparison, targets, out, figures), [out])
    return 0

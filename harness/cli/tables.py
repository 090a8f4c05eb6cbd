"""The commands that show what is recorded: table, compare, reproduce."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from harness.cli.app import Positional, error_console, note, shown, text
from harness.cli.sheets import frame_of, print_sheet, print_table, read_records, write_csv


def table(
    sweep: Annotated[str | None, Positional, shown("SWEEP")] = None,
    *,
    out: Path = Path("runs"),
    csv: Annotated[Path | None, shown("FILE")] = None,
    markdown: bool = False,
    columns: tuple[str, ...] = (),
) -> int:
    """The table of what is recorded in a folder; with a sweep, of its cells, missing ones included.

    Args:
        sweep: a sweep, as in `attention-bench list sweeps`, or file.py:function; left out, all records.
        out: folder of the records.
        csv: write all columns to this file, at full precision.
        markdown: print the table as Markdown.
        columns: the metrics to print, as in params_m gmacs_attention latency_ms_p50.
    """
    import results

    records, problems = read_records(out)
    expected = []
    if sweep is not None:
        from harness.sweeps.expand import expand

        expected = [(cell.key, cell.to_json()) for cell in expand(sweep)]
        wanted = {key for key, _ in expected}
        records = [record for record in records if record.key in wanted]
    if not records and not expected:
        if problems:
            return 1
        raise ValueError(f"there are no records in {out}")
    frame = frame_of(records, expected, out)
    print_table(frame, columns, markdown)
    if csv is not None:
        write_csv(csv, results.to_csv(frame))
    return 1 if problems else 0


def compare(
    *,
    out: Path = Path("runs"),
    baseline: str = "softmax",
    ema: bool = False,
    csv: Annotated[Path | None, shown("FILE")] = None,
    markdown: bool = False,
) -> int:
    """Accuracies of the attentions against a baseline, paired image by image and seed by seed, with 95 % intervals.

    Args:
        out: folder of the records of trained models, and of their run folders.
        baseline: the attention that the others are compared with, as in softmax or "focused(kernel_size=None)".
        ema: compare the moving averages of the weights.
        csv: write the comparison to this file.
        markdown: print it as Markdown.
    """
    import results

    records, problems = read_records(out)
    frame = results.comparisons(records, out, baseline, "ema" if ema else "model")
    print_sheet(results.paired_sheet(frame), markdown)
    if csv is not None:
        write_csv(csv, frame.to_csv(index=False, lineterminator="\n"))
    return 1 if problems else 0


def reproduce(
    paper: Annotated[str, Positional],
    *,
    data: Annotated[str | None, shown("FOLDER")] = None,
    weights: Annotated[Path | None, shown("FOLDER")] = None,
    allow_partial_data: bool = False,
    accuracy: Literal["any", "evaluated", "trained"] = "any",
    device: str = "cpu",
    precision: str = "fp32",
    workers: Annotated[int | None, shown("PROCESSES")] = None,
    cache: Annotated[Path | None, shown("FOLDER")] = None,
    out: Path = Path("runs"),
    csv: Annotated[Path | None, shown("FILE")] = None,
    markdown: bool = False,
) -> int:
    """Our parameters, GMACs and accuracies beside the published ones, row by row.

    With --data and --weights, the official files in that folder are evaluated first, each as its own repository does.

    Args:
        paper: flatten (FLatten Transformer, ICCV 2023).
        data: the folder of ImageNet-1K; only its val images are needed.
        weights: a folder with official weights, under the names that they are published by.
        allow_partial_data: take fewer than the 50,000 val images; their accuracies get no verdict.
        accuracy: of models evaluated from files, of models trained here, or any, which prefers the former.
        device: cpu or cuda, for the evaluation.
        precision: fp32, or autocast to bf16 or fp16.
        workers: processes that read images; left out, the machine's cores less one.
        cache: folder where decoded images are kept; no result depends on it.
        out: folder of the records; what is missing is counted now.
        csv: write the comparison to this file.
        markdown: print it as Markdown.
    """
    import results
    from harness.cli.reproduction import measured, official_cells
    from harness.process.environment import readers_here
    from harness.process.ranks import ranks
    from harness.runner.run_all import run_all

    published = results.published_rows(paper)
    if (data is None) != (weights is None):
        raise ValueError("--data and --weights go together: images to evaluate, and the official files to evaluate")
    if data is not None and weights is not None:
        cells, missing = official_cells(
            weights,
            data,
            partial=allow_partial_data,
            device=device,
            precision=precision,
            workers=readers_here() if workers is None else workers,
            cache=text(cache),
        )
        for line in missing:
            note(line)
        run_all(cells, out, error_console)
    elif allow_partial_data:
        raise ValueError("--allow-partial-data has no effect without --data and --weights")
    if not ranks().first:
        return 0
    targets = results.targets(published)
    ours = measured(targets, out, error_console, accuracy=accuracy, partial=allow_partial_data)
    comparison = results.compare(published, ours)
    print_sheet(results.comparison_sheet(comparison), markdown)
    if csv is not None:
        write_csv(csv, comparison.to_csv(index=False, lineterminator="\n"))
    return 0

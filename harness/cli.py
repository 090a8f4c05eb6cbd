"""The command line. Selects; Python configures. torch is imported when a command needs it, so that help is quick."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

Positional = tyro.conf.Positional


def _shown(metavar: str) -> object:
    """How help writes an option that may be left out."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="(optional)")


app = tyro.extras.SubcommandApp()
out_console = Console(highlight=False)
error_console = Console(stderr=True, highlight=False)


@app.command(name="list")
def list_(kind: Annotated[str, Positional] = "all") -> int:
    """What there is: attentions with their options, backbones, sweeps and tasks.

    Args:
        kind: attentions, backbones, sweeps, tasks, or all of them.
    """
    from harness import catalogue

    out_console.print(catalogue.listing(kind), markup=False, soft_wrap=True, end="")
    return 0


@app.command
def show(
    preset: Annotated[str, Positional],
    *,
    attention: Annotated[str | None, _shown("ATTENTION")] = None,
    set: tuple[str, ...] = (),
) -> int:
    """The resolved table of a model: maps, tokens, windows, heads, attention, parameters and GMACs per stage.

    Args:
        preset: a backbone, as in `attention-bench list backbones`.
        attention: the attention under test, as in "focused(focusing_factor=4)"; left out, the preset's own.
        set: other values of the preset, as in window=7 stages=LLSS image_size=384.
    """
    import results
    from harness.resolved import resolved
    from harness.selection import described, settings

    (spec,) = described(preset, () if attention is None else (attention,), settings(set))
    results.show(resolved(spec), out_console)
    return 0


@app.command
def run(
    sweep: Annotated[str | None, Positional, _shown("SWEEP")] = None,
    *,
    only: tuple[str, ...] = (),
    out: Path = Path("runs"),
    backbone: tuple[str, ...] = (),
    attention: tuple[str, ...] = (),
    task: tuple[str, ...] = (),
    set: tuple[str, ...] = (),
    device: Annotated[str | None, _shown("cpu|cuda")] = None,
    precision: Annotated[str | None, _shown("fp32|bf16|fp16")] = None,
    mode: Annotated[str | None, _shown("eager|compiled")] = None,
    channels_last: bool = False,
    batch: Annotated[int | None, _shown("IMAGES")] = None,
    data: Annotated[str | None, _shown("NAME|FOLDER")] = None,
    epochs: Annotated[int | None, _shown("EPOCHS")] = None,
    seed: tuple[int, ...] = (),
    isolate: bool = False,
    dry_run: bool = False,
) -> int:
    """Measure what is not recorded yet, and print the table. A sweep by name, or an ad-hoc grid.

    A sweep: `attention-bench run quickstart`, or a function of your own, `my_sweeps.py:name`.
    A grid: `attention-bench run --backbone swin_t pvt_t --attention softmax "focused(focusing_factor=4)" --task speed`.

    Args:
        sweep: a sweep, as in `attention-bench list sweeps`, or file.py:function.
        only: keep the cells whose name holds one of these texts.
        out: folder of the records.
        backbone: presets of the grid.
        attention: attentions of the grid; left out, each preset's own.
        task: costs, speed or train.
        set: other values of the presets of the grid, as in window=7 stages=LLSS image_size=384.
        device: cpu or cuda, for speed and training.
        precision: fp32, or autocast to bf16 or fp16, for speed and training.
        mode: eager or compiled, for speed.
        channels_last: lay images out channels last, for speed.
        batch: images per batch, for speed (that of training is part of its recipe).
        data: an embedded image set, or a folder with train/<class>/ and val/<class>/, for training.
        epochs: length of training.
        seed: seeds of training; several make a cell each.
        isolate: measure each cell in a process of its own: one that is killed is a failed row, and the rest goes on.
        dry_run: print the cells and whether they are recorded, and measure nothing.
    """
    from harness.runner import recorded, run_all
    from harness.selection import adjusted, select, settings

    cells = select(sweep, backbones=backbone, attentions=attention, tasks=task, overrides=settings(set), only=only)
    cells = adjusted(
        cells,
        device=device,
        precision=precision,
        mode=mode,
        channels_last=channels_last or None,
        batch=batch,
        data=data,
        epochs=epochs,
        seeds=seed,
    )
    if dry_run:
        for cell in cells:
            state = "recorded" if recorded(cell, out) else "to do"
            out_console.print(f"{cell.key}  {state:8}  {cell.label}", markup=False, soft_wrap=True)
        return 0
    records = run_all(cells, out, out_console, isolate)
    _print_table(records, [(cell.key, cell.to_json()) for cell in cells], columns=(), markdown=False)
    out_console.print(f"{len(records)} record{'s' * (len(records) != 1)} in {out}", markup=False, soft_wrap=True)
    failed = sum(record.status == "failed" for record in records)
    if failed:
        error_console.print(f"attention-bench: {failed} of {len(records)} cells failed", style="red")
    return 1 if failed else 0


@app.command
def table(
    sweep: Annotated[str | None, Positional, _shown("SWEEP")] = None,
    *,
    out: Path = Path("runs"),
    csv: Annotated[Path | None, _shown("FILE")] = None,
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

    if not out.is_dir():
        raise ValueError(f"there is no folder {out}; --out names the folder of the records")
    records, problems = results.read_all(out)
    expected = []
    if sweep is not None:
        from harness.sweeps import expand

        expected = [(cell.key, cell.to_json()) for cell in expand(sweep)]
        wanted = {key for key, _ in expected}
        records = [record for record in records if record.key in wanted]
    for problem in problems:
        error_console.print(f"attention-bench: damaged record left out: {problem}", markup=False, soft_wrap=True)
    if not records and not expected:
        if problems:
            return 1
        raise ValueError(f"there are no records in {out}")
    _print_table(records, expected, columns, markdown)
    if csv is not None:
        results.write_text(csv, results.to_csv(results.table(records, expected)))
        error_console.print(f"wrote {csv}", markup=False, soft_wrap=True)
    return 1 if problems else 0


@app.command
def reproduce(
    paper: Annotated[str, Positional],
    *,
    out: Path = Path("runs"),
    csv: Annotated[Path | None, _shown("FILE")] = None,
    markdown: bool = False,
) -> int:
    """Our parameters, GMACs and accuracies beside the published ones, row by row.

    Args:
        paper: flatten (FLatten Transformer, ICCV 2023).
        out: folder of the records; what is missing is counted now.
        csv: write the comparison to this file.
        markdown: print it as Markdown.
    """
    import results
    from harness.reproduce import measured

    published = results.published_rows(paper)
    ours = measured(results.targets(published), out, error_console)
    comparison = results.compare(published, ours)
    sheet = results.comparison_sheet(comparison)
    if markdown:
        out_console.print(results.to_markdown(sheet), markup=False, soft_wrap=True, end="")
    else:
        results.show(sheet, out_console)
    if csv is not None:
        results.write_text(csv, comparison.to_csv(index=False))
        error_console.print(f"wrote {csv}", markup=False, soft_wrap=True)
    return 0


def _print_table(records: Sequence, expected: Sequence, columns: Sequence[str], markdown: bool) -> None:
    import results

    sheet = results.sheet(results.table(records, expected), list(columns) or None)
    if markdown:
        out_console.print(results.to_markdown(sheet), markup=False, soft_wrap=True, end="")
    else:
        results.show(sheet, out_console)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status: 0, 1 where a cell failed or a record is damaged, 2 for bad input."""
    # torch says so of timm's own imports; a user can do nothing about it.
    warnings.filterwarnings("ignore", message="`torch.jit", category=FutureWarning)
    warnings.filterwarnings("ignore", message="`torch.jit", category=DeprecationWarning)
    description = "Attention variants for vision transformers, compared fairly in five backbones."
    try:
        return app.cli(
            prog="attention-bench",
            description=description,
            args=arguments,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    except ValueError as problem:
        error_console.print(f"attention-bench: {problem}", markup=False, soft_wrap=True, style="red")
        return 2
    except KeyboardInterrupt:
        error_console.print(
            "attention-bench: interrupted; the running cell is lost, what was recorded stays", style="red"
        )
        return 130

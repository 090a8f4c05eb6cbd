"""The command line. Selects; Python configures. torch is imported when a command needs it, so that help is quick."""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from harness.cli_common import (
    CERTIFICATES,
    CellOptions,
    Positional,
    app,
    count,
    error_console,
    out_console,
    shown,
    text,
)

if TYPE_CHECKING:
    import pandas as pd

    from results import Sheet


@app.command(name="list")
def list_(kind: Annotated[str, Positional] = "all") -> int:
    """What there is: attentions with their options, backbones, sweeps and tasks.

    Args:
        kind: attentions, backbones, sweeps, tasks, or all of them.
    """
    import attentions
    from harness import catalogue

    for line in attentions.broken():
        error_console.print(f"attention-bench: {line}", markup=False, soft_wrap=True)
    out_console.print(catalogue.listing(kind), markup=False, soft_wrap=True, end="")
    return 0


@app.command
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
    from harness.measures.resolved import resolved
    from harness.selection import described, settings

    (spec,) = described(preset, () if attention is None else (attention,), settings(set))
    results.show(resolved(spec), out_console)
    return 0


@app.command
def run(
    choice: tyro.conf.OmitArgPrefixes[CellOptions],
    *,
    out: Path = Path("runs"),
    isolate: bool = False,
    dry_run: bool = False,
) -> int:
    """Measure what is not recorded yet, and print the table. A sweep by name, or an ad-hoc grid.

    A sweep: `attention-bench run quickstart`, or a function of your own, `my_sweeps.py:name`.
    A grid: `attention-bench run --backbone swin_t pvt_t --attention softmax "focused(focusing_factor=4)" --task speed`.

    Args:
        choice: which cells.
        out: folder of the records.
        isolate: measure each cell in a process of its own: one that is killed is a failed row, and the rest goes on.
        dry_run: print the cells and whether they are recorded, and measure nothing.
    """
    return _measure(choice.cells(), out, isolate=isolate, dry_run=dry_run)


@app.command
def train(
    preset: Annotated[str, Positional],
    *,
    data: str,
    recipe: Annotated[str | None, shown("NAME")] = None,
    change: tuple[str, ...] = (),
    attention: Annotated[str | None, shown("ATTENTION")] = None,
    set: tuple[str, ...] = (),
    weights: Annotated[Path | None, shown("FILE")] = None,
    ema: bool = False,
    allow_partial_weights: bool = False,
    seed: tuple[int, ...] = (0,),
    device: str = "cpu",
    precision: str = "fp32",
    mode: str = "eager",
    workers: Annotated[int | None, shown("PROCESSES")] = None,
    device_batch: Annotated[int | None, shown("IMAGES")] = None,
    checkpoint_minutes: float = 10.0,
    cache: Annotated[Path | None, shown("FOLDER")] = None,
    tensorboard: bool = False,
    out: Path = Path("runs"),
    dry_run: bool = False,
) -> int:
    """Train one model by a recipe. Asked again, it goes on where it was, however it ended; once done it is not
    repeated.

    Several devices: `torchrun --nproc-per-node 8 -m harness train flatten_swin_t --data /data/imagenet --device cuda`.

    Args:
        preset: a backbone, as in `attention-bench list backbones`.
        data: an image set by name, or a folder (see `data check`); imagenet=FOLDER is held to be ImageNet-1K.
        recipe: the preset whose published recipe is used, or micro, or folder; left out, the preset's own.
        change: other values of the recipe, as in epochs=100 batch=512 lr=1e-3 clip_grad=None evaluation=squash.
        attention: the attention under test, as in "focused(focusing_factor=4)"; left out, the preset's own.
        set: other values of the preset, as in window=7 stages=LLSS image_size=384 num_classes=100.
        weights: start from this file (official, or of a run; a run folder means its newest checkpoint).
        ema: take the moving average in that file.
        allow_partial_weights: take of that file what fits, report the rest, and leave it as initialised.
        seed: several make a run each.
        device: cpu or cuda.
        precision: fp32, or autocast to bf16 or fp16.
        mode: eager or compiled.
        workers: processes that read images, for each device; left out, the machine's cores less one.
        device_batch: most images at once on a device; the recipe's batch is reached by accumulation.
        checkpoint_minutes: time between two checkpoints within an epoch.
        cache: folder where decoded evaluation images are kept; no result depends on it.
        tensorboard: write logs for TensorBoard into the run folder.
        out: folder of the records and run folders.
        dry_run: print what would be trained and whether it is recorded.
    """
    from harness.cells import Cell, Train
    from harness.published.recipes import ASSUMED, FINE_TUNED
    from harness.selection import data_source, described, settings
    from harness.selection import recipe as recipe_named
    from harness.training.loading import weights_in

    (spec,) = described(preset, () if attention is None else (attention,), settings(set))
    source = data_source(data)
    task = Train(
        recipe_named(recipe, spec, source, settings(change, option="--change")),
        source,
        device=device,
        precision=precision,  # type: ignore[arg-type]
        mode=mode,  # type: ignore[arg-type]
        weights=None if weights is None else weights_in(weights, ema=ema, strict=not allow_partial_weights),
        workers=_workers(source) if workers is None else workers,
        device_batch=device_batch,
        checkpoint_minutes=checkpoint_minutes,
        cache=text(cache),
        tensorboard=tensorboard,
    )
    if weights is None and (ema or allow_partial_weights):
        raise ValueError("--ema and --allow-partial-weights have no effect without --weights")
    if weights is None and recipe is None and spec.name in FINE_TUNED:
        raise ValueError(
            f"the recipe of {spec.name} fine-tunes {FINE_TUNED[spec.name]}: give its weights (--weights), or another "
            "--recipe"
        )
    if recipe is None and spec.name in ASSUMED:
        error_console.print(f"{spec.name}: {ASSUMED[spec.name]}", markup=False, soft_wrap=True)
    return _measure([Cell(spec, replace(task, seed=each)) for each in seed], out, dry_run=dry_run)


@app.command
def evaluate(
    preset: Annotated[str | None, Positional, shown("PRESET")] = None,
    *,
    checkpoint: Path,
    data: str,
    attention: Annotated[str | None, shown("ATTENTION")] = None,
    set: tuple[str, ...] = (),
    transform: tuple[str, ...] = (),
    ema: bool = False,
    allow_partial_weights: bool = False,
    device: str = "cpu",
    precision: str = "fp32",
    batch: int = 128,
    workers: Annotated[int | None, shown("PROCESSES")] = None,
    cache: Annotated[Path | None, shown("FOLDER")] = None,
    out: Path = Path("runs"),
    dry_run: bool = False,
) -> int:
    """Evaluate weights from a file on every val image, exactly: none padded, none dropped, on any number of devices.

    Args:
        preset: the backbone of an official file; a checkpoint of a run knows its own.
        checkpoint: a file of weights; a run folder means its newest checkpoint.
        data: an image set by name, or a folder (see `data check`); imagenet=FOLDER is held to be ImageNet-1K.
        attention: the attention under test; left out, the preset's own.
        set: other values of the preset, as in image_size=384.
        transform: squash, short_side or pad, with the crop's share as in short_side:0.9; several make a row each. Left
            out, that of the checkpoint's recipe, or of the preset's own repository.
        ema: take the moving average in the file.
        allow_partial_weights: take of the file what fits, report the rest, and leave it as initialised.
        device: cpu or cuda.
        precision: fp32, or autocast to bf16 or fp16.
        batch: images at once; part of what is recorded, since the last bits of logits depend on it.
        workers: processes that read images; left out, the machine's cores less one.
        cache: folder where decoded images are kept; no result depends on it.
        out: folder of the records.
        dry_run: print what would be evaluated and whether it is recorded.
    """
    from harness.cells import Cell, Evaluate
    from harness.selection import data_source, evaluated, settings

    source = data_source(data)
    spec, weights, views = evaluated(
        checkpoint, preset, attention, settings(set), transform, ema=ema, strict=not allow_partial_weights
    )
    cells = [
        Cell(
            spec,
            Evaluate(
                weights,
                source,
                view,
                device,
                precision,  # type: ignore[arg-type]
                batch,
                _workers(source) if workers is None else workers,
                text(cache),
            ),
        )
        for view in views
    ]
    return _measure(cells, out, dry_run=dry_run)


def _measure(cells: list, out: Path, *, isolate: bool = False, dry_run: bool = False) -> int:
    """Runs the cells together with the other processes of the job, and prints the table; the exit status."""
    from harness.process.ranks import ranks
    from harness.runner.records import recorded
    from harness.runner.run_all import run_all

    if dry_run:
        for cell in cells:
            state = "recorded" if recorded(cell, out) else "to do"
            out_console.print(f"{cell.key}  {state:8}  {cell.label}", markup=False, soft_wrap=True)
        return 0
    records = run_all(cells, out, out_console, isolate)
    if not ranks().first:
        return 0
    _print_table(records, [(cell.key, cell.to_json()) for cell in cells], out, columns=(), markdown=False)
    out_console.print(f"{count(len(records), 'record')} in {out}", markup=False, soft_wrap=True)
    failed = sum(record.status == "failed" for record in records)
    if failed:
        error_console.print(f"attention-bench: {failed} of {len(records)} cells failed", style="red")
    return 1 if failed else 0


def _workers(source: object) -> int:
    """Processes that read images, unless the user says how many: none for small sets that are held in memory."""
    if getattr(source, "root", None) is None:
        return 0
    return _cores()


def _cores() -> int:
    """This process's share of the machine's cores, less the one that it works on itself."""
    from harness.process.environment import readers_of

    return readers_of(len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


@app.command
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

    records, problems = _records(out)
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
    _print_table(records, expected, out, columns, markdown)
    if csv is not None:
        _write_csv(csv, results.to_csv(_table(records, expected, out)))
    return 1 if problems else 0


@app.command
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

    records, problems = _records(out)
    frame = results.comparisons(records, out, baseline, "ema" if ema else "model")
    _print_sheet(results.paired_sheet(frame), markdown)
    _write_csv(csv, frame.to_csv(index=False, lineterminator="\n"))
    return 1 if problems else 0


@app.command
def data(
    action: Annotated[Literal["check"], Positional],
    root: Annotated[Path, Positional],
    *,
    workers: Annotated[int | None, shown("PROCESSES")] = None,
    classes: Annotated[int | None, shown("NUMBER")] = None,
) -> int:
    """Look at an image folder before days of training on it: layout, counts, class order, and every image decoded.

    Args:
        action: check.
        root: the folder, in any layout that training takes (class folders, tars, zips, webdataset shards, parquet).
        workers: processes that decode; left out, the machine's cores less one.
        classes: how many classes there should be; left out, any number of them will do.
    """
    from rich.progress import Progress

    from harness.images.check import check, lines

    assert action == "check"
    with Progress(console=error_console, disable=not error_console.is_terminal, transient=True) as bar:
        rows = {split: bar.add_task(split, total=None) for split in ("train", "val")}
        report = check(
            root,
            workers=_cores() if workers is None else workers,
            num_classes=classes,
            progress=lambda split, done, images: bar.update(rows[split], completed=done, total=images),
        )
    for line in lines(report):
        out_console.print(line, markup=False, soft_wrap=True)
    return report.status


@app.command
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
    from harness.process.ranks import ranks
    from harness.reproduce import measured, official_cells
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
            workers=_cores() if workers is None else workers,
            cache=text(cache),
        )
        for line in missing:
            error_console.print(line, markup=False, soft_wrap=True)
        run_all(cells, out, error_console)
    elif allow_partial_data:
        raise ValueError("--allow-partial-data has no effect without --data and --weights")
    if not ranks().first:
        return 0
    targets = results.targets(published)
    ours = measured(targets, out, error_console, accuracy=accuracy, partial=allow_partial_data)
    comparison = results.compare(published, ours)
    _print_sheet(results.comparison_sheet(comparison), markdown)
    _write_csv(csv, comparison.to_csv(index=False))
    return 0


def _records(out: Path) -> tuple[list, list[str]]:
    """The whole records of a folder, and a line for each damaged one, which is said."""
    import results

    if not out.is_dir():
        raise ValueError(f"there is no folder {out}; --out names the folder of the records")
    records, problems = results.read_all(out)
    for problem in problems:
        error_console.print(f"attention-bench: damaged record left out: {problem}", markup=False, soft_wrap=True)
    return records, problems


def _print_table(records: Sequence, expected: Sequence, out: Path, columns: Sequence[str], markdown: bool) -> None:
    import results

    _print_sheet(results.sheet(_table(records, expected, out), list(columns) or None), markdown)


def _table(records: Sequence, expected: Sequence, out: Path) -> pd.DataFrame:
    """The frame of the records, with what the certificates in the folder say of their attentions."""
    import results

    return results.table(records, expected, results.certificates(out / CERTIFICATES))


def _print_sheet(sheet: Sheet, markdown: bool) -> None:
    import results

    if markdown:
        out_console.print(results.to_markdown(sheet), markup=False, soft_wrap=True, end="")
    else:
        results.show(sheet, out_console)


def _write_csv(path: Path | None, text: str) -> None:
    """Writes a table to the file that --csv names, if it names one."""
    import results

    if path is not None:
        results.write_text(path, text)
        error_console.print(f"wrote {path}", markup=False, soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status: 0, 1 where a cell failed or a record is damaged, 2 for bad input."""
    # Here, so that their commands stand behind those above.
    from harness import cli_attentions as cli_attentions
    from harness import cli_jobs as cli_jobs
    from harness import cli_timm as cli_timm

    # torch says so of timm's own imports; a user can do nothing about it.
    warnings.filterwarnings("ignore", message="`torch.jit", category=FutureWarning)
    warnings.filterwarnings("ignore", message="`torch.jit", category=DeprecationWarning)
    description = (
        "Attention variants for vision transformers, compared fairly in five backbones.\n\n"
        "Every command takes --import FILE.py or --import package.module, anywhere in the line and as often as needed: "
        "it loads attentions of your own, which then have names like all others."
    )
    # Of several processes, which say the same, the first one speaks; one that cannot be of them speaks for itself.
    rank, world = (os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE"))
    quiet = rank.isdecimal() and world.isdecimal() and 0 < int(rank) < int(world)
    out_console.quiet = error_console.quiet = quiet
    try:
        imports, rest = _imports(arguments)
        if imports:
            import attentions

            for each in imports:
                attentions.load(each)
        with _processes():
            return app.cli(
                prog="attention-bench",
                description=description,
                args=rest,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except ValueError as problem:
        error_console.print(f"attention-bench: {problem}", markup=False, soft_wrap=True, style="red")
        return 2
    except KeyboardInterrupt:
        line = "attention-bench: interrupted; what was recorded stays, a training goes on from its checkpoint"
        error_console.print(line, soft_wrap=True, style="red")
        return 130
    except RuntimeError as problem:
        status = getattr(problem, "status", None)
        if status is None:
            raise
        error_console.print(f"attention-bench: {problem}", markup=False, soft_wrap=True, style="red")
        return status


def _imports(arguments: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """What --import names, wherever it stands in a command line, and the rest of the line.

    It is an option of every command, before and after its name, which tyro does not know of.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--import", action="append", default=[], dest="imports")
    try:
        known, rest = parser.parse_known_args(arguments)
    except argparse.ArgumentError:
        raise ValueError(
            "--import takes a Python file or an installed module, as in --import my_attention.py"
        ) from None
    return known.imports, rest


def _processes() -> AbstractContextManager:
    """The other processes of the job, if a launcher has started several; torch is needed for them only."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return nullcontext()
    from harness.process.ranks import process_group

    return process_group()

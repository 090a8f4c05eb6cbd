"""The commands that measure: run, train, evaluate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from harness.cli.app import RUNS, Positional, check_at_least, kept_in, note, out_console, say, shown, warn
from harness.cli.options import (
    AttentionOption,
    CacheOption,
    CellOptions,
    DataOption,
    DeviceOption,
    EmaOption,
    OutOption,
    PartialWeightsOption,
    PrecisionOption,
    PresetArgument,
    SetOption,
    WorkersOption,
)
from harness.cli.sheets import Recorded, print_sheet

if TYPE_CHECKING:
    from harness.cells import Cell, DataSource


def run(
    choice: tyro.conf.OmitArgPrefixes[CellOptions],
    *,
    out: OutOption = RUNS,
    isolate: bool = False,
    retry_disturbed: bool = False,
    dry_run: bool = False,
) -> int:
    """Measure the cells of a sweep or of a grid that are not recorded yet, and print their table.

    A sweep by name, one of your own (a function that returns cells), and a grid:
        attention-bench run quickstart
        attention-bench run my_sweeps.py:my_sweep
        attention-bench run --backbone swin_t pvt_t --attention softmax "focused(focusing_factor=4)" --task speed

    Args:
        choice: which cells, and values in place of their own.
        isolate: measure each cell in a process of its own: if one is killed, its cell fails and the others run.
        retry_disturbed: measure again the recorded cells whose speed was disturbed by other work on the machine; tables
            mark them.
        dry_run: print the cells and whether they are recorded; measure nothing.
    """
    return _measure(choice.cells(), out, isolate=isolate, retry_disturbed=retry_disturbed, dry_run=dry_run)


def train(
    preset: PresetArgument,
    *,
    data: DataOption,
    recipe: Annotated[str | None, shown("NAME", default="the preset's own")] = None,
    change: Annotated[tuple[str, ...], shown("NAME=VALUE ...", default="the recipe's own")] = (),
    attention: AttentionOption = None,
    set: SetOption = (),
    weights: Annotated[Path | None, shown("FILE", default="random weights")] = None,
    ema: EmaOption = False,
    allow_partial_weights: PartialWeightsOption = False,
    seed: Annotated[tuple[int, ...], tyro.conf.arg(metavar="SEED ...")] = (0,),
    device: DeviceOption = "cpu",
    precision: PrecisionOption = "fp32",
    mode: Annotated[str, tyro.conf.arg(metavar="eager|compiled")] = "eager",
    workers: WorkersOption = None,
    device_batch: Annotated[int | None, shown("IMAGES", default="no limit")] = None,
    checkpoint_minutes: Annotated[float, tyro.conf.arg(metavar="MINUTES")] = 10.0,
    cache: CacheOption = None,
    tensorboard: bool = False,
    out: OutOption = RUNS,
    dry_run: bool = False,
) -> int:
    """Train one model by a recipe. Run again, it resumes, however it ended; once done, it is not repeated.

    On one device, and on eight:
        attention-bench train deit_micro --data fashion_mnist_14k --change epochs=5
        torchrun --nproc-per-node 8 -m harness train flatten_swin_t --data imagenet=/data/imagenet --device cuda

    Args:
        recipe: the preset whose published recipe is used, or micro, or folder.
        change: other values of the recipe, as in epochs=100 batch=512 lr=1e-3 clip_grad=None evaluation=squash.
        weights: start from this file: an official one, or a checkpoint (a run folder means its newest).
        seed: several make a run each.
        mode: how the model runs.
        device_batch: the most images on a device at once; the recipe's batch is reached by accumulation.
        checkpoint_minutes: the time between two checkpoints within an epoch.
        tensorboard: write logs for TensorBoard into the run folder.
        dry_run: print what would be trained and whether it is recorded; train nothing.
    """
    from harness.cells import Cell, Train, distinct
    from harness.cli.selection import data_source, recipe_named
    from harness.cli.specs import settings, specs_of
    from harness.published.recipes import ASSUMED, FINE_TUNED
    from harness.training.loading import weights_in

    (spec,) = specs_of(preset, () if attention is None else (attention,), settings(set))
    if not seed:
        raise ValueError("--seed takes one number or more")
    check_at_least(0, "--checkpoint-minutes", checkpoint_minutes)
    source = data_source(data)
    task = Train(
        recipe_named(recipe, spec, source, settings(change, option="--change")),
        source,
        device=device,
        precision=precision,  # type: ignore[arg-type]
        mode=mode,  # type: ignore[arg-type]
        weights=None if weights is None else weights_in(weights, ema=ema, strict=not allow_partial_weights),
        workers=_workers(workers, source),
        device_batch=device_batch,
        checkpoint_minutes=checkpoint_minutes,
        cache=kept_in(cache),
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
        note(f"{spec.name}: {ASSUMED[spec.name]}")
    return _measure(distinct([Cell(spec, replace(task, seed=each)) for each in seed]), out, dry_run=dry_run)


def evaluate(
    preset: Annotated[str | None, Positional, shown("[PRESET]")] = None,
    *,
    checkpoint: Annotated[Path, tyro.conf.arg(metavar="FILE")],
    data: DataOption,
    attention: AttentionOption = None,
    set: SetOption = (),
    transform: Annotated[
        tuple[str, ...],
        shown("KIND[:SHARE] ...", default="that of the checkpoint's recipe, or of the preset's own repository"),
    ] = (),
    ema: EmaOption = False,
    allow_partial_weights: PartialWeightsOption = False,
    device: DeviceOption = "cpu",
    precision: PrecisionOption = "fp32",
    batch: Annotated[int, tyro.conf.arg(metavar="IMAGES")] = 128,
    workers: WorkersOption = None,
    cache: CacheOption = None,
    out: OutOption = RUNS,
    dry_run: bool = False,
) -> int:
    """Evaluate weights from a file on every val image: none padded, none dropped, on any number of devices.

    A run's checkpoint, which knows its model, and an official file:
        attention-bench evaluate --checkpoint runs/KEY --data imagenet=/data/imagenet
        attention-bench evaluate swin_t --checkpoint swin_tiny_patch4_window7_224.pth --data imagenet=/data/imagenet

    Args:
        preset: the backbone of an official file; a checkpoint of a run knows its own.
        checkpoint: a file of weights; a run folder means its newest checkpoint.
        transform: squash, short_side or pad, with the crop's share of the resized side, as in short_side:0.9; several
            make a row each.
        batch: images at once; part of what is recorded, since the last bits of logits depend on it.
        dry_run: print what would be evaluated and whether it is recorded; evaluate nothing.
    """
    from harness.cells import Cell, Evaluate
    from harness.cli.selection import data_source, evaluated
    from harness.cli.specs import settings

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
                _workers(workers, source),
                kept_in(cache),
            ),
        )
        for view in views
    ]
    return _measure(cells, out, dry_run=dry_run)


def _measure(
    cells: Sequence[Cell],
    out: Path,
    *,
    isolate: bool = False,
    retry_disturbed: bool = False,
    dry_run: bool = False,
) -> int:
    """Run the cells together with the other processes of the job, and print the table; return the exit status."""
    from harness.process.ranks import process_group
    from harness.runner.run_all import run_all
    from results import tables
    from results.wording import count

    if dry_run:
        _print_states(cells, out, retry_disturbed)
        return 0
    with process_group() as group:
        records = run_all(cells, out, out_console, isolate, retry_disturbed)
    if not group.first:
        return 0
    print_sheet(tables.sheet(Recorded([out], records, [(cell.key, cell.to_json()) for cell in cells]).frame()))
    say(f"{count(len(records), 'record')} in {out}")
    failed = sum(record.status == "failed" for record in records)
    if failed:
        warn(f"{failed} of {len(records)} cells failed", style="red")
    return 1 if failed else 0


def _print_states(cells: Sequence[Cell], out: Path, retry_disturbed: bool) -> None:
    """Print what --dry-run asks for: for each cell its key, whether it is recorded, and its name."""
    from harness.runner.records import is_disturbed, recorded

    for cell in cells:
        record = recorded(cell, out)
        is_left = record is None or (retry_disturbed and is_disturbed(record, cell))
        state = "to do" if is_left else "recorded"
        say(f"{cell.key}  {state:8}  {cell.label}")


def _workers(asked: int | None, source: DataSource) -> int:
    """Return the number of processes that read images; by default none for a set that is held in memory."""
    from harness.process.environment import readers_here

    check_at_least(0, "--workers", asked)
    if asked is not None:
        return asked
    return 0 if source.root is None else readers_here()

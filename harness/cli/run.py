"""The commands that measure: run, train, evaluate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from harness.cli.app import Positional, note, out_console, say, shown, text, warn
from harness.cli.options import CellOptions
from harness.cli.sheets import frame_of, print_table

if TYPE_CHECKING:
    from harness.cells import Cell, DataSource


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
    from harness.cli.selection import data_source, described, settings
    from harness.cli.selection import recipe as recipe_named
    from harness.published.recipes import ASSUMED, FINE_TUNED
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
        note(f"{spec.name}: {ASSUMED[spec.name]}")
    return _measure([Cell(spec, replace(task, seed=each)) for each in seed], out, dry_run=dry_run)


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
    from harness.cli.selection import data_source, evaluated, settings

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


def _measure(cells: Sequence[Cell], out: Path, *, isolate: bool = False, dry_run: bool = False) -> int:
    """Runs the cells together with the other processes of the job, and prints the table; the exit status."""
    from harness.process.ranks import ranks
    from harness.runner.records import recorded
    from harness.runner.run_all import run_all
    from results.wording import count

    if dry_run:
        for cell in cells:
            state = "recorded" if recorded(cell, out) else "to do"
            say(f"{cell.key}  {state:8}  {cell.label}")
        return 0
    records = run_all(cells, out, out_console, isolate)
    if not ranks().first:
        return 0
    print_table(frame_of(records, [(cell.key, cell.to_json()) for cell in cells], out))
    say(f"{count(len(records), 'record')} in {out}")
    failed = sum(record.status == "failed" for record in records)
    if failed:
        warn(f"{failed} of {len(records)} cells failed", style="red")
    return 1 if failed else 0


def _workers(source: DataSource) -> int:
    """Processes that read images, unless the user says how many: none for small sets that are held in memory."""
    from harness.process.environment import readers_here

    return 0 if source.root is None else readers_here()

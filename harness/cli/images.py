"""The commands for image sets: data check, and data race."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from harness.cli.app import Positional, check_at_least, error_console, note, out_console, say, shown
from harness.cli.outputs import check_files, write_files
from harness.cli.race import ratio_cells

if TYPE_CHECKING:
    from harness.racing.inputs import Reading
    from results.tables import Sheet

RECIPE = "flatten_swin_t"


def data(
    action: Annotated[Literal["check", "race"], Positional],
    root: Annotated[str, Positional, tyro.conf.arg(metavar="FOLDER")],
    *,
    workers: Annotated[int | None, shown("PROCESSES", default="the machine's cores less one")] = None,
    classes: Annotated[int | None, shown("NUMBER", default="any number")] = None,
    recipe: Annotated[str | None, shown("PRESET", default=RECIPE)] = None,
    batch: Annotated[int | None, shown("IMAGES", default="64")] = None,
    device: Annotated[str | None, shown("cpu|cuda", default="cpu")] = None,
    seconds: Annotated[float | None, shown("SECONDS", default="20")] = None,
    output: Annotated[
        Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE", help_behavior_hint="(optional)")
    ] = None,
) -> int:
    """Check an image folder before days of training on it, or race the input of a training with timm's loader.

    For example:
        attention-bench data check /data/imagenet --classes 1000
        attention-bench data race /data/imagenet --recipe flatten_swin_t --workers 8

    check: layout, counts, class order; decode every image. race: images per second by timm's loader and by the inputs
    that a recipe takes, with the same transform, measured in turn; each round reads the train split six times.

    Args:
        action: what to do with the folder.
        root: the folder, in any layout that training takes (class folders, tars, zips, webdataset shards, parquet);
            where parquet files leave a choice of columns, with their names: /data/cifar100,label=fine_label. race takes
            class folders.
        workers: processes that decode images.
        classes: check: how many classes there must be.
        recipe: race: the preset with whose recipe and image size images are read.
        batch: race: images per batch.
        device: race: where images are normalised, erased and mixed.
        seconds: race: the least time to measure for, per reader.
        output: race: write what was measured to this .json file as well.
    """
    from harness.process.environment import readers_here

    check_at_least(0, "--workers", workers)
    check_at_least(1, "--classes", classes)
    workers = readers_here() if workers is None else workers
    if action == "check":
        given = {"--recipe": recipe, "--batch": batch, "--device": device, "--seconds": seconds, "-o": output}
        if others := [option for option, value in given.items() if value is not None]:
            raise ValueError(f"{others[0]} is for data race: data check takes --workers and --classes")
        return _check(root, workers, classes)
    if classes is not None:
        raise ValueError("--classes is for data check: data race reads whatever classes there are")
    check_at_least(2, "--batch", batch)
    if seconds is not None and not 0 < seconds < float("inf"):
        raise ValueError(f"--seconds {seconds}: it takes a number above 0")
    return _race(Path(root), workers, recipe or RECIPE, batch or 64, device or "cpu", seconds or 20.0, output)


def _check(root: str, workers: int, classes: int | None) -> int:
    from rich.progress import Progress

    from harness.cells.source import folder_and_columns
    from harness.images.check import check_images, report_lines

    folder, columns = folder_and_columns(root)
    with Progress(console=error_console, disable=not error_console.is_terminal, transient=True) as bar:
        rows = {split: bar.add_task(split, total=None) for split in ("train", "val")}
        report = check_images(
            folder,
            columns=columns,
            workers=workers,
            num_classes=classes,
            progress=lambda split, done, images: bar.update(rows[split], completed=done, total=images),
        )
    for line in report_lines(report):
        say(line)
    return report.status


def _race(root: Path, workers: int, name: str, batch: int, device: str, seconds: float, output: Path | None) -> int:
    import torch

    from backbones import preset
    from harness.cells.runtime import check_runtime
    from harness.images.layouts import find_split, open_split
    from harness.process.environment import check_device, environment
    from harness.published.recipes import recipe_of
    from harness.racing.inputs import race_inputs
    from results import tables

    check_runtime(device, "fp32")
    check_device(device)
    if output is not None:
        if output.suffix != ".json":
            raise ValueError(f"-o {output}: its name must end in .json")
        check_files([output], [])
    found = find_split(root, "train")
    if found.layout != "class folders":
        raise ValueError(f"{found.path} is not class folders ({found.layout}), which are what timm's loader reads here")
    readings = race_inputs(
        found.path,
        open_split(found),
        preset(name),
        recipe_of(name),
        batch=batch,
        workers=workers,
        device=torch.device(device),
        min_seconds=seconds,
        report=note,
    )
    about = environment(device)
    tables.show(input_sheet(readings, name, workers, batch, about), out_console)
    if output is not None:
        line = {"--recipe": name, "--workers": workers, "--batch": batch, "--device": device, "--seconds": seconds}
        words = ["attention-bench", "data", "race", str(root), *(str(word) for pair in line.items() for word in pair)]
        plain = {"command": shlex.join(words), "environment": about, "results": [row_of(each) for each in readings]}
        write_files([(output, json.dumps(plain, indent=2) + "\n")], [])
    return 0


def input_sheet(readings: list[Reading], name: str, workers: int, batch: int, about: dict[str, Any]) -> Sheet:
    """Return the table of a race of inputs."""
    from results.tables import Sheet
    from results.wording import count

    rows = []
    for each in readings:
        low, middle, high = (f"{value:.4g}" for value in each.images_per_s)
        ratio = ["", "baseline"] if each.ratio is None else ratio_cells(each.ratio)
        rows.append([each.reader, f"{middle} ({low} to {high})", *ratio])
    disturbed = next((each.ratio.disturbed for each in readings if each.ratio and each.ratio.disturbed), None)
    notes = [f"The machine was disturbed, and nothing is decided: {disturbed}."] if disturbed else []
    notes += [
        f"The recipe of {name}: {count(readings[0].images, 'image')} in batches of {batch}, read by "
        f"{count(workers, 'worker')}, up to what the model gets. x timm: time over that of timm's loader, measured in "
        "turn here. The first images of pillow were compared with timm's, and are the same bits.",
        f"{about['device_name'] or about['device']}; torch {about['torch']}.",
    ]
    return Sheet(("input", "images/s (quartiles)", "x timm (95 %)", "verdict"), rows, frozenset({1, 2}), notes)


def row_of(reading: Reading) -> dict[str, Any]:
    """Return what is known of a reader as plain values."""
    ratio = reading.ratio
    return {
        "input": reading.reader,
        "images": reading.images,
        "seconds": reading.seconds,
        "images_per_s": reading.images_per_s[1],
        "ratio": ratio and ratio.value,
        "ratio_low": ratio and ratio.low,
        "ratio_high": ratio and ratio.high,
        "rounds": ratio and ratio.blocks,
        "disturbed": ratio and ratio.disturbed,
    }

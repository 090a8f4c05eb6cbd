"""What the modules of the command line share: the program, its two streams, and which cells a command means."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console

if TYPE_CHECKING:
    from harness.cells import Cell

Positional = tyro.conf.Positional


CERTIFICATES = "certificates"
"""Where certificates lie in the folder of the records."""


def shown(metavar: str) -> object:
    """How help writes an option that may be left out."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="(optional)")


app = tyro.extras.SubcommandApp()
out_console = Console(highlight=False)
error_console = Console(stderr=True, highlight=False)


@dataclass(frozen=True)
class CellOptions:
    """The cells of a sweep by name, or of an ad-hoc grid, with values replaced.

    Args:
        sweep: a sweep, as in `attention-bench list sweeps`, or file.py:function.
        only: keep the cells whose name holds one of these texts.
        backbone: presets of the grid.
        attention: attentions of the grid (those of your own with --import FILE.py); left out, each preset's own.
        task: costs, speed or train.
        set: other values of the presets of the grid, as in window=7 stages=LLSS image_size=384.
        device: cpu or cuda, for speed, training and evaluation.
        precision: fp32, or autocast to bf16 or fp16, for speed, training and evaluation.
        mode: eager or compiled, for speed and training.
        channels_last: lay images out channels last, for speed.
        batch: images per batch, for speed (that of training is part of its recipe).
        data: an image set by name, or a folder (see `data check`), for training and evaluation.
        epochs: length of training.
        seed: seeds of training; several make a cell each.
        workers: processes that read images, for each device.
        device_batch: most images at once on a device in training; the recipe's batch is reached by accumulation.
        cache: folder where decoded evaluation images are kept; no result depends on it.
    """

    sweep: Annotated[str | None, Positional, shown("SWEEP")] = None
    only: tuple[str, ...] = ()
    backbone: tuple[str, ...] = ()
    attention: tuple[str, ...] = ()
    task: tuple[str, ...] = ()
    set: tuple[str, ...] = ()
    device: Annotated[str | None, shown("cpu|cuda")] = None
    precision: Annotated[str | None, shown("fp32|bf16|fp16")] = None
    mode: Annotated[str | None, shown("eager|compiled")] = None
    channels_last: bool = False
    batch: Annotated[int | None, shown("IMAGES")] = None
    data: Annotated[str | None, shown("NAME|FOLDER")] = None
    epochs: Annotated[int | None, shown("EPOCHS")] = None
    seed: tuple[int, ...] = ()
    workers: Annotated[int | None, shown("PROCESSES")] = None
    device_batch: Annotated[int | None, shown("IMAGES")] = None
    cache: Annotated[Path | None, shown("FOLDER")] = None

    def cells(self) -> list[Cell]:
        """Raises ValueError, in one line, for anything unknown, and for a value that no cell has a use for."""
        from harness.selection import adjusted, given, narrowed, select, settings

        cells = select(
            self.sweep,
            backbones=self.backbone,
            attentions=self.attention,
            tasks=self.task,
            overrides=settings(self.set),
        )
        values = given(
            device=self.device,
            precision=self.precision,
            mode=self.mode,
            channels_last=self.channels_last or None,
            batch=self.batch,
            data=self.data,
            epochs=self.epochs,
            seed=self.seed or None,
            workers=self.workers,
            device_batch=self.device_batch,
            cache=text(self.cache),
        )
        return adjusted(narrowed(cells, self.only), values, cells)


def count(number: int, noun: str) -> str:
    """A number and what is counted: "1 job", "2 processes"."""
    plural = "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{plural * (number != 1)}"


def must_be_new(out: Path) -> None:
    """Raises ValueError for a file that would be overwritten."""
    if out.exists():
        raise ValueError(f"{out} exists: move it away, or give another --out")


def text(path: Path | None) -> str | None:
    return None if path is None else str(path)

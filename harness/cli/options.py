"""The options that several commands take: which cells they are about."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from harness.cli.app import Positional, shown, text

if TYPE_CHECKING:
    from harness.cells import Cell


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
        from harness.cli.selection import adjusted, given, narrowed, select, settings

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

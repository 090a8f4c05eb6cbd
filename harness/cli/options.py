"""The options that several commands take: how each is written in help, and which cells they mean."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from harness.cli.app import Positional, kept_in, shown

if TYPE_CHECKING:
    from harness.cells import Cell

# An option of one command only, or whose help differs, is described in the docstring of its command.

PresetArgument = Annotated[
    str,
    Positional,
    tyro.conf.arg(metavar="PRESET", help="a backbone, as in `attention-bench list backbones`."),
]
SweepArgument = Annotated[
    str | None,
    Positional,
    shown("[SWEEP]", "a sweep, as in `attention-bench list sweeps`, or file.py:function."),
]
AttentionOption = Annotated[
    str | None,
    shown("ATTENTION", 'the attention under test, as in "focused(focusing_factor=4)".', default="the preset's own"),
]
SetOption = Annotated[
    tuple[str, ...],
    shown(
        "NAME=VALUE ...", "other values of the preset, as in window=7 stages=LLSS image_size=384.", default="its own"
    ),
]
DataOption = Annotated[
    str,
    tyro.conf.arg(
        metavar="NAME|FOLDER",
        help="an image set by name, or a folder (see `data check`); imagenet=FOLDER is checked to be ImageNet-1K.",
    ),
]
DeviceOption = Annotated[str, tyro.conf.arg(metavar="cpu|cuda", help="the device that the model runs on.")]
PrecisionOption = Annotated[str, tyro.conf.arg(metavar="fp32|bf16|fp16", help="fp32, or autocast to bf16 or fp16.")]
WorkersOption = Annotated[
    int | None,
    shown("PROCESSES", "processes that read images, per device.", default="the machine's cores less one"),
]
CacheOption = Annotated[
    Path | None,
    shown("FOLDER", "the folder to keep decoded evaluation images in; no result depends on it."),
]
EmaOption = Annotated[bool, tyro.conf.arg(help="take the moving average in the file of weights.")]
PartialWeightsOption = Annotated[
    bool, tyro.conf.arg(help="take the weights in the file that fit; report the others and leave them as initialised.")
]
OutOption = Annotated[Path, tyro.conf.arg(metavar="FOLDER", help="the folder of records and run folders.")]
SourcesArgument = Annotated[
    tuple[str, ...],
    Positional,
    shown(
        "[SWEEP|FOLDER ...]",
        "what to show: sweeps (`attention-bench list sweeps`, or file.py:function) with the cells that are missing, or "
        "folders of records.",
        default="all in --out",
    ),
]
FoldersOption = Annotated[
    tuple[Path, ...],
    tyro.conf.UseAppendAction,
    shown("FOLDER", "a folder of records, which is only read; may be given several times.", default="runs"),
]
WhereOption = Annotated[
    tuple[str, ...],
    shown(
        "NAME=VALUE ...",
        "keep the rows in which columns have these values, as in backbone=swin_t seed=0,1 and, in quotes, "
        '"attention=focused(focusing_factor=3, kernel_size=5)".',
    ),
]


@dataclass(frozen=True)
class OutputOptions:
    """Where a table goes, and in which form.

    Args:
        format: text, csv, markdown, latex, html, json, parquet or timm.
        output: write the table to this file, in place of printing it.
        csv: write every column to this file as well, at full precision.
        wide: print all columns, however narrow the terminal is.
    """

    format: Annotated[str | None, shown("FORMAT", default="by the file's ending, or text")] = None
    output: Annotated[
        Path | None,
        tyro.conf.arg(aliases=["-o"], metavar="FILE", help_behavior_hint="(optional)"),
    ] = None
    csv: Annotated[Path | None, shown("FILE")] = None
    wide: bool = False


@dataclass(frozen=True)
class CellOptions:
    """The cells of a sweep by name, or of an ad-hoc grid, with values replaced.

    Args:
        only: keep the cells whose name contains one of these texts.
        backbone: presets of the grid.
        attention: attentions of the grid; those of your own need --import FILE.py.
        task: tasks of the grid: costs, speed, train.
        set: other values of the grid's presets, as in window=7 stages=LLSS image_size=384.
        device: where speed, training and evaluation run.
        precision: fp32, or autocast to bf16 or fp16, for speed, training and evaluation.
        mode: how models run, for speed and training.
        channels_last: lay images out channels last, for speed.
        runtime: what runs the model, for speed: torch, or an exported graph in inference, float32 and on a CPU.
        batch: images per batch, for speed (that of training is part of its recipe).
        data: an image set by name, or a folder (see `data check`), for training and evaluation.
        epochs: the length of training.
        seed: seeds of training; several make a cell each.
        workers: processes that read images, per device.
        device_batch: the most images on a device at once, for training; the recipe's batch is reached by accumulation.
    """

    sweep: SweepArgument = None
    only: Annotated[tuple[str, ...], shown("TEXT ...", default="all cells")] = ()
    backbone: Annotated[tuple[str, ...], shown("PRESET ...")] = ()
    attention: Annotated[tuple[str, ...], shown("ATTENTION ...", default="each preset's own")] = ()
    task: Annotated[tuple[str, ...], shown("TASK ...")] = ()
    set: Annotated[tuple[str, ...], shown("NAME=VALUE ...", default="each preset's own")] = ()
    device: Annotated[str | None, shown("cpu|cuda", default="the cells' own")] = None
    precision: Annotated[str | None, shown("fp32|bf16|fp16", default="the cells' own")] = None
    mode: Annotated[str | None, shown("eager|compiled", default="the cells' own")] = None
    channels_last: bool = False
    runtime: Annotated[str | None, shown("torch|onnxruntime|openvino", default="the cells' own")] = None
    batch: Annotated[int | None, shown("IMAGES", default="the cells' own")] = None
    data: Annotated[str | None, shown("NAME|FOLDER", default="the cells' own")] = None
    epochs: Annotated[int | None, shown("EPOCHS", default="the recipes' own")] = None
    seed: Annotated[tuple[int, ...], shown("SEED ...", default="the cells' own")] = ()
    workers: Annotated[int | None, shown("PROCESSES", default="the cells' own")] = None
    device_batch: Annotated[int | None, shown("IMAGES", default="the cells' own")] = None
    cache: CacheOption = None

    def cells(self) -> list[Cell]:
        """Return the cells.

        Raises:
            ValueError: in one line, for anything unknown, and for a value that no cell has a use for.
        """
        from harness.cli.replacing import adjusted, given
        from harness.cli.selection import narrowed, select
        from harness.cli.specs import settings

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
            runtime=self.runtime,
            batch=self.batch,
            data=self.data,
            epochs=self.epochs,
            seed=self.seed or None,
            workers=self.workers,
            device_batch=self.device_batch,
            cache=kept_in(self.cache),
        )
        return adjusted(narrowed(cells, self.only), values, cells)

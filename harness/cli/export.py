"""The command that writes a model for a runtime, and says whether it is right there: export."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from harness.cli.app import Positional, check_at_least, must_be_new, note, say, shown
from harness.cli.options import AttentionOption, EmaOption, SetOption
from harness.cli.outputs import check_files, write_files

if TYPE_CHECKING:
    from torch import Tensor

    from harness.runtimes.exports import Export
    from harness.runtimes.gate import Agreement
    from harness.seeing.models import Viewed
    from harness.training.deployed import ImagesOf

TRACED = 2
"""Images at which a graph with an open batch is traced."""

TRIED = (1, 3)
"""Images at which it is compared: not those that it was traced at."""

CALIBRATE = 300
"""Train images that a graph in int8 is calibrated on."""


def export(
    model: Annotated[str, Positional, tyro.conf.arg(metavar="PRESET|PRESET=FILE|CHECKPOINT")],
    *,
    format: Annotated[Literal["onnx", "openvino", "torch-export"], tyro.conf.arg(metavar="onnx|openvino|torch-export")],
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="FILE")],
    batch: Annotated[str, tyro.conf.arg(metavar="IMAGES|dynamic")] = "1",
    attention: AttentionOption = None,
    set: SetOption = (),
    ema: EmaOption = False,
    seed: Annotated[int, tyro.conf.arg(metavar="SEED")] = 0,
    limit: Annotated[float, tyro.conf.arg(metavar="SECONDS")] = 600.0,
    precision: Annotated[Literal["fp32", "int8"], tyro.conf.arg(metavar="fp32|int8")] = "fp32",
    data: Annotated[str | None, shown("NAME|FOLDER")] = None,
    calibrate: Annotated[int | None, shown("IMAGES", default=f"{CALIBRATE}")] = None,
) -> int:
    """Write a model for ONNX Runtime, OpenVINO or torch.export, once its outputs there are compared with PyTorch's.

    For example:
        attention-bench export runs/KEY --format onnx --batch dynamic -o model.onnx
        attention-bench export swin_t --attention "focused(focusing_factor=4)" --format openvino -o model.xml
        attention-bench export runs/KEY --format openvino --precision int8 --data fashion_mnist_14k -o model.xml

    FILE ends in .onnx, .xml (its weights are beside it, in .bin) or .pt2; FILE.json beside it has the verdict,
    versions, and how often the graph has each operator. Where the runtime is wrong, a line says which part of the model
    is the first to differ, and the status is 1.

    In int8 what counts is the accuracy: of all val images of --data, how many are right in float32 or in int8 alone.

    Args:
        model: a backbone by name, with random weights; PRESET=FILE for weights that do not say their model; a
            checkpoint or a folder of a run.
        format: what to write; the runtime that reads it must be installed.
        output: the file to write; nothing is overwritten.
        batch: the number of images that the graph takes, or dynamic for any number.
        seed: the seed of random weights.
        limit: the most time that the export may take, and that to int8.
        precision: of what is written. int8: in ONNX Runtime the products with weights, whose inputs are measured as
            they come; in OpenVINO all products and convolutions, in ranges found on train images (NNCF).
        data: int8: an image set by name, or a folder (see `data check`), of the classes of the model.
        calibrate: int8 in OpenVINO: how many train images the ranges are found on.
    """
    from harness.cli.repeating import imports
    from harness.process.environment import environment
    from harness.runtimes.bisection import said_of_first_wrong
    from harness.runtimes.exports import Exportable, exported, quantised
    from harness.runtimes.formats import FORMATS
    from harness.runtimes.sessions import open_session

    int8 = precision == "int8"
    FORMATS[format].versions(int8=int8)
    files = _files(output, format)
    images = _images(batch)
    if not 0 < limit < float("inf"):
        raise ValueError(f"--limit {limit}: it takes a number above 0")
    calibrate = _calibrated(format, data, calibrate, int8=int8)
    viewed = _viewed(model, attention, set, ema=ema, seed=seed)
    real = _images_of(viewed, data) if data is not None else None
    subject = Exportable(viewed.model, (_random(viewed, images or TRACED),), viewed.spec)
    note(f"{viewed.label}: exporting")
    made = exported(subject, format, dynamic=images is None, limit=limit)
    if real is not None:
        note(f"{viewed.label}: to int8")
        some = real.some(calibrate, images or 1) if calibrate else None
        made = quantised(made, some, f"train images of {data}", limit=limit)
    session = open_session(made)
    lost = None if real is None else real.lost(viewed.model, session, images, note)
    tried = [] if lost else [images] if images else TRIED
    found = {number: _compared(viewed, session, number) for number in tried}
    right = lost.right if lost else all(each.right for each in found.values())
    wrong = [number for number, each in found.items() if not each.right]
    first = None
    if wrong:
        note(f"{viewed.label}: looking for the first part that differs")
        given = (_random(viewed, wrong[0]),)
        first = said_of_first_wrong(subject, format, dynamic=images is None, tried=given, limit=limit)
    line: dict[str, Any] = {"--format": format, "--batch": batch, "--attention": attention, "--seed": seed}
    words = [word for name, value in line.items() if value is not None for word in (name, str(value))]
    words += [*(["--set", *set] if set else []), *(["--ema"] if ema else [])]
    words += ["--precision", precision, "--data", str(data)] if int8 else []
    words += ["--calibrate", str(calibrate)] if calibrate else []
    words += imports(str(viewed.spec.attention))
    about = {
        "command": shlex.join(["attention-bench", "export", model, *words, "-o", str(output)]),
        "model": viewed.spec.to_json(),
        "weights": viewed.weights,
        "export": made.about,
        "session": session.about,
        "right": right,
        "gate": [{"batch": number, **each.plain()} for number, each in found.items()],
        "first_wrong": first,
        "environment": environment("cpu"),
        **({"accuracy": lost.plain()} if lost else {}),
    }
    contents: list[tuple[Path, str | bytes]] = [
        (file, source.read_bytes()) for file, source in zip(files[:-1], made.files, strict=True)
    ]
    write_files([*contents, (files[-1], json.dumps(about, indent=2) + "\n")], [])
    say(f"{viewed.label}, {viewed.weights}: {_described(made)}")
    for number, each in found.items():
        at = f" at {number} image{'s' * (number != 1)}" if images is None else ""
        say(f"{session}{at}: {each}")
    if lost:
        say(f"{session}: {lost}")
    if first is not None:
        say(first)
    return 0 if right else 1


def _files(output: Path, format: str) -> list[Path]:
    """Return the files to write, the verdict last. Raises ValueError, in one line, where one cannot be."""
    from harness.runtimes.formats import FORMATS

    ending = FORMATS[format].ending
    if output.suffix != ending:
        raise ValueError(f"-o {output}: the name of a file for --format {format} must end in {ending}")
    weights = [output.with_suffix(".bin")] if format == "openvino" else []
    files = [output, *weights, output.with_name(f"{output.name}.json")]
    for file in files:
        must_be_new(file, "-o")
    check_files(files, [])
    return files


def _images(batch: str) -> int | None:
    """Return the number of images, None for any."""
    if batch == "dynamic":
        return None
    if not batch.isdecimal():
        raise ValueError(f"--batch {batch}: it takes a number from 1 up, or dynamic")
    check_at_least(1, "--batch", int(batch))
    return int(batch)


def _calibrated(format: str, data: str | None, calibrate: int | None, *, int8: bool) -> int | None:
    """Return the number of images to calibrate on, None for none. Raises ValueError, in one line, for bad options."""
    from harness.runtimes.formats import FORMATS, INT8

    kind = FORMATS[format].int8
    if not int8:
        for option, given in (("--data", data), ("--calibrate", calibrate)):
            if given is not None:
                raise ValueError(f"{option} has no effect without --precision int8")
        return None
    if kind is None:
        raise ValueError(f"--format {format} has no int8; allowed: {', '.join(INT8)}")
    if data is None:
        raise ValueError("--precision int8 is compared on real images: name them with --data")
    if not kind.calibrated:
        if calibrate is not None:
            raise ValueError(f"--calibrate is for openvino: in {format} the ranges are those of each call")
        return None
    check_at_least(1, "--calibrate", calibrate)
    return CALIBRATE if calibrate is None else calibrate


def _images_of(viewed: Viewed, data: str) -> ImagesOf:
    """Return the images of --data. Raises ValueError, in one line, for none, and for a model that is not trained."""
    from harness.cli.selection import data_source
    from harness.training.deployed import ImagesOf

    if viewed.weights.startswith("random weights"):
        raise ValueError("--precision int8 is of trained weights: name a checkpoint, or PRESET=FILE")
    return ImagesOf(data_source(data), viewed.spec, viewed.preprocessing)


def _viewed(model: str, attention: str | None, set: tuple[str, ...], *, ema: bool, seed: int) -> Viewed:
    """Return the model that a line names. Raises ValueError, in one line, where there is none."""
    from harness.cli.selection import checkpoint_named, preprocessing_of
    from harness.cli.specs import settings, specs_of
    from harness.seeing.models import viewed

    if not 0 <= seed < 2**63:
        raise ValueError(f"--seed {seed}: it takes a number from 0 to {2**63 - 1}")
    if "=" in model or Path(model).exists():
        if attention is not None or set:
            raise ValueError("--attention and --set are of a preset; a checkpoint says what model it is of")
        return viewed(*checkpoint_named(model, ema), seed=seed)
    if ema:
        raise ValueError("--ema has no effect without weights: name a checkpoint, or PRESET=FILE")
    (spec,) = specs_of(model, () if attention is None else (attention,), settings(set))
    return viewed(spec, None, preprocessing_of(spec), seed=seed)


def _random(viewed: Viewed, number: int) -> Tensor:
    import torch

    generator = torch.Generator().manual_seed(number)
    return torch.randn(number, viewed.spec.in_channels, *viewed.spec.image_size, generator=generator)


def _compared(viewed: Viewed, session: Any, number: int) -> Agreement:
    from harness.runtimes.gate import agreement

    return agreement(viewed.model, session, (_random(viewed, number),))


def _described(made: Export) -> str:
    """Return in one line what a graph is made of."""
    about, operators = made.about, made.about["operators"]
    opset = f", opset {about['opset']}" if about["opset"] else ""
    most = ", ".join(f"{count} {name}" for name, count in list(operators.items())[:5])
    return f"{sum(operators.values())} operators by {about['exporter']}{opset}: {most}{', ...' * (len(operators) > 5)}"

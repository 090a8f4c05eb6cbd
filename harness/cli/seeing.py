"""The commands that look at attentions inside models: maps, analyze."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from harness.cli.app import check_at_least, error_console, note, out_console, shown
from harness.cli.options import DataOption, DeviceOption, EmaOption, SetOption
from harness.cli.outputs import check_files, write_files

if TYPE_CHECKING:
    from backbones import BackboneSpec
    from harness.cells import Preprocessing, Weights
    from harness.seeing.maps import BlockMaps, Part, Query
    from harness.seeing.models import Viewed

MOST = 4_000_000
"""Weights that a file of maps may hold."""

CheckpointsOption = Annotated[
    tuple[str, ...],
    shown(
        "FILE ...",
        "weights to look at: a checkpoint or a folder of a run, or PRESET=FILE for a file that does not say its model; "
        "with --preset, files for it and its attention.",
    ),
]
PresetOption = Annotated[
    str | None,
    shown("PRESET", "a backbone, as in `attention-bench list backbones`; without --checkpoint with random weights."),
]
AttentionsOption = Annotated[
    tuple[str, ...], shown("ATTENTION ...", "attentions of the preset, one model each.", default="the preset's own")
]
SeedOption = Annotated[int, tyro.conf.arg(metavar="SEED", help="the seed of random weights.")]


def maps(
    *,
    image: Annotated[Path, tyro.conf.arg(metavar="FILE")],
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="FILE")],
    checkpoint: CheckpointsOption = (),
    preset: PresetOption = None,
    attention: AttentionsOption = (),
    set: SetOption = (),
    against: Annotated[tuple[str, ...], shown("MODEL ...")] = (),
    ema: EmaOption = False,
    stage: Annotated[int, tyro.conf.arg(metavar="STAGE")] = 1,
    block: Annotated[int, tyro.conf.arg(metavar="BLOCK")] = 0,
    query: Annotated[str, shown("CELL|class|all", default="the middle of the map")] = "",
    part: Literal["together", "attention", "convolution"] = "together",
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    title: Annotated[str | None, shown("TEXT")] = None,
    bare: bool = False,
) -> int:
    """Draw what a token attends to, over the image: all heads and their mean, several models on one scale of colours.

    Also of attentions that never form a map, as linear ones: it is found by pushing unit values through them. For
    example:
        attention-bench maps --preset deit_t --attention softmax focused --image cat.jpg -o maps.png
        attention-bench maps --checkpoint runs/KEY --against swin_t=official.pth --image cat.jpg --query 97 -o maps.pdf
        attention-bench maps --checkpoint runs/KEY --image cat.jpg --query all -o maps.html

    FILE ends in .png, .svg, .pdf, .html or .json; with several queries, an .html or .json has a slider. The weights are
    also written beside it, to a file that ends in .csv.

    Args:
        image: the image to look at, which each model gets as in its evaluation.
        output: the file to write.
        against: further models: a checkpoint, a folder of a run, PRESET=FILE, or a preset with random weights.
        stage: the stage of the block, from 1.
        block: the block in its stage, from 0.
        query: the cell of the first model's map, row by row from 0, whose token is looked at; class for the class
            token; all for a slider over every cell. Of other models, the cell at the same place of the image.
        part: of attentions with a depthwise convolution of the values, both together, or one of them.
        title: a line above the picture.
        bare: leave out the notes below the picture, for a caption of your own; they are printed all the same.
    """
    from harness.seeing.maps import block_places, maps_of, read_query, same_place
    from harness.seeing.models import read_image
    from results import figures, tables

    figures.check_ending(output)
    files = [output.with_suffix(".csv"), output]
    check_files(files, [], [image])
    photo = read_image(image)
    models = _viewed(checkpoint, preset, attention, set, against, ema=ema, seed=seed, device=device)
    places = [block_places(model.model, stage, block) for model in models]
    grids = [branches[0].grid for branches in places]
    middle = grids[0].height // 2 * grids[0].width + grids[0].width // 2
    queries = read_query(query or str(middle), grids[0])
    if len(queries) > 1 and output.suffix not in (".html", ".json"):
        raise ValueError(f"--query all needs a slider: -o FILE.html or FILE.json, not {output.suffix}")
    heads = [sum(place.site.heads for place in branches) for branches in places]
    number = len(queries) * sum(g.height * g.width * h for g, h in zip(grids, heads, strict=True))
    if number > MOST:
        raise ValueError(
            f"all queries would be {number:,} weights; up to {MOST:,} are drawn: name one, or a later stage"
        )
    seen, found = [], []
    for model, grid in zip(models, grids, strict=True):
        pixels = model.pixels(photo)
        try:
            own = [same_place(each, grids[0], grid) for each in queries]
            found.append(maps_of(model.model, model.normalised(pixels), stage, block, own, part))
        except ValueError as problem:
            raise ValueError(f"{model.label}: {problem}") from problem
        seen.append(_seen(model, pixels, found[-1], own))
    drawn = figures.maps(seen, _map_notes(models, found, image), title)
    content = figures.rendered(drawn, output.suffix, notes=not bare)
    write_files(list(zip(files, (tables.to_csv(drawn.data), content), strict=True)), [])
    for line in drawn.notes:
        note(line)
    return 0


def analyze(
    *,
    data: DataOption,
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="FOLDER")],
    checkpoint: CheckpointsOption = (),
    preset: PresetOption = None,
    attention: AttentionsOption = (),
    set: SetOption = (),
    ema: EmaOption = False,
    images: Annotated[int, tyro.conf.arg(metavar="IMAGES")] = 200,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    title: Annotated[str | None, shown("TEXT")] = None,
) -> int:
    """Say what the attention of each block is like over many images: rank, entropy, distance, focus, and its time.

    For example:
        attention-bench analyze --checkpoint runs/KEY runs/OTHER --data fashion_mnist -o analysis
        attention-bench analyze --preset deit_t --attention softmax focused --data imagenet=/data/imagenet -o analysis

    FOLDER gets analysis.csv, the figure as analysis.svg and analysis.pdf, and analysis.json, which says of which images
    and weights it is.

    Args:
        output: the folder to write to.
        images: how many val images, drawn at random with the seed.
        seed: of random weights, and of the choice of the images.
        title: a line above the figure.
    """
    from harness.cli.selection import data_source
    from harness.seeing.analysis import analysed
    from results import figures, tables

    check_at_least(2, "--images", images)
    files = [output / f"analysis{ending}" for ending in (".csv", ".json", ".svg", ".pdf")]
    check_files(files, [])
    source = data_source(data)
    models = _viewed(checkpoint, preset, attention, set, (), ema=ema, seed=seed, device=device)
    import pandas as pd
    from rich.progress import Progress

    with Progress(console=error_console, disable=not error_console.is_terminal, transient=True) as bar:
        task = bar.add_task("images", total=images * len(models))
        rows, about = analysed(models, source, images, seed, lambda: bar.advance(task))
    frame = pd.DataFrame(rows)
    tables.show(tables.analysis_sheet(frame), out_console)
    drawn = figures.analysis(frame, title)
    contents: list[str | bytes] = [
        tables.to_csv(frame),
        json.dumps(about, indent=2) + "\n",
        *(figures.rendered(drawn, ending) for ending in (".svg", ".pdf")),
    ]
    write_files(list(zip(files, contents, strict=True)), [])
    return 0


def _viewed(
    checkpoints: Sequence[str],
    preset: str | None,
    attentions: Sequence[str],
    settings_given: Sequence[str],
    against: Sequence[str],
    *,
    ema: bool,
    seed: int,
    device: str,
) -> list[Viewed]:
    """Return the models that a line names; raise ValueError, in one line, where there is none or one is unknown."""
    from harness.cli.selection import checkpoint_named, preprocessing_of, weights_named
    from harness.cli.specs import settings, specs_of
    from harness.process.environment import check_device
    from harness.seeing.models import viewed

    check_device(device)
    if not 0 <= seed < 2**63:
        raise ValueError(f"--seed {seed}: it takes a number from 0 to {2**63 - 1}")
    if not checkpoints and preset is None:
        raise ValueError("name a model: --checkpoint FILE, or --preset PRESET for random weights")
    if preset is None and (attentions or settings_given):
        raise ValueError("--attention and --set are of --preset; a checkpoint says what model it is of")
    found: list[tuple[BackboneSpec, Weights | None, Preprocessing]]
    if checkpoints and preset is not None:
        if len(attentions) > 1:
            raise ValueError("the files of --checkpoint have one attention: name one, or leave out --checkpoint")
        (spec,) = specs_of(preset, attentions, settings(settings_given))
        found = [(spec, weights_named(text, ema), preprocessing_of(spec)) for text in checkpoints]
    elif preset is not None:
        found = [
            (spec, None, preprocessing_of(spec)) for spec in specs_of(preset, attentions, settings(settings_given))
        ]
    else:
        found = [checkpoint_named(text, ema) for text in checkpoints]
    for text in against:
        known = "=" in text or (text != "" and Path(text).exists())
        found += (
            [checkpoint_named(text, ema)] if known else [(s, None, preprocessing_of(s)) for s in specs_of(text, (), {})]
        )
    return _told_apart([viewed(*each, seed=seed, device=device) for each in found])


def _told_apart(models: list[Viewed]) -> list[Viewed]:
    """Return the models with short labels that differ: with their weights where backbone and attention are the same."""
    import pandas as pd

    from results import tables

    short, _ = tables.shortened(pd.Series([str(model.spec.attention) for model in models]))
    labels = [f"{model.spec.name} {short[str(model.spec.attention)]}" for model in models]
    told = [
        f"{label}, {model.weights}" if labels.count(label) > 1 else label
        for model, label in zip(models, labels, strict=True)
    ]
    if twice := next((label for label in told if told.count(label) > 1), None):
        raise ValueError(f"one model is named twice: {twice}")
    return [replace(model, label=label) for model, label in zip(models, told, strict=True)]


def _seen(model: Viewed, pixels: Any, found: BlockMaps, queries: Sequence[Query]) -> Any:
    import numpy as np

    from harness.seeing.models import as_jpeg
    from results.figures import Seen

    width = found.grid.width
    return Seen(
        label=model.label,
        image=as_jpeg(pixels),
        cells=(found.grid.height, found.grid.width),
        queries=tuple(None if isinstance(each, str) else each[0] * width + each[1] for each in queries),
        weights=np.stack([each.weights for each in found.queries]),
        windows=found.windows,
        shift=found.shift,
    )


_KINDS = {
    "per head": "the product of the map and the values is the output",
    "per channel": "each channel has a map of its own; drawn is the mean over the channels of a head",
    "jacobian": "not linear in the values channel by channel; drawn are norms of its Jacobian at this image",
}
_PARTS: dict[Part, str] = {
    "together": "",
    "attention": "Without the depthwise convolution of the values.",
    "convolution": "Only the depthwise convolution of the values, the mean over the channels of a head.",
}


def _map_notes(models: Sequence[Viewed], found: Sequence[BlockMaps], image: Path) -> list[str]:
    """Return what a reader must know: which block of what, with which weights, and what kind of map it is."""
    first = found[0]
    lines = [f"{image.name}: stage {first.stage}, block {first.block}. {_PARTS[first.part]}".strip()]
    for model, maps in zip(models, found, strict=True):
        kinds = [_KINDS[each] for each in maps.kind.split(" and ")] if maps.part != "convolution" else []
        if maps.part == "together" and maps.convolved:
            kinds.append("what its convolution adds is the mean over the channels of a head")
        kind = f": {'; '.join(kinds)}" if kinds else ""
        prefix = max(float(abs(query.prefix).sum()) for query in maps.queries) if maps.grid.prefix else 0.0
        class_token = " Weights of the class token are not drawn." if prefix else ""
        lines.append(f"{model.spec.name} {model.spec.attention}, {model.weights}{kind}.{class_token}")
    return lines

"""The command scaling: attentions raced at growing numbers of tokens, by themselves or in a model of larger images."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from harness.cli.app import check_at_least, note, out_console, shown
from harness.cli.options import DeviceOption, PrecisionOption
from harness.cli.outputs import write_files
from harness.cli.race import WORKS, command_of, plain_of, roofs_of, row_of, runtime_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.measures.roofline import Roof
    from harness.racing.candidates import Candidate
    from harness.racing.race import Measured
    from harness.racing.scaling import Crossover, Exponent, Size
    from results.tables import Sheet


def scaling(
    *,
    attention: Annotated[tuple[str, ...], shown("CANDIDATE ...")] = (),
    tokens: Annotated[str | None, shown("LEAST:MOST", default="49:3136")] = None,
    dim: Annotated[int | None, shown("CHANNELS", default="96")] = None,
    heads: Annotated[int | None, shown("HEADS", default="3")] = None,
    backbone: Annotated[str | None, shown("PRESET")] = None,
    image_size: Annotated[str | None, shown("LEAST:MOST", default="224:896")] = None,
    work: Literal["forward", "both", "train"] = "both",
    batch: Annotated[int, tyro.conf.arg(metavar="IMAGES")] = 1,
    device: DeviceOption = "cpu",
    precision: PrecisionOption = "fp32",
    seconds: Annotated[float, tyro.conf.arg(metavar="SECONDS")] = 1.0,
    reference: Annotated[str | None, shown("ATTENTION")] = None,
    output: Annotated[
        Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE", help_behavior_hint="(optional)")
    ] = None,
) -> int:
    """Race attentions at growing numbers of tokens: exponents, and from how many tokens on one is faster.

    For example:
        attention-bench scaling --attention softmax focused linear --tokens 49:16384
        attention-bench scaling --attention softmax focused@compiled --dim 64 --heads 2 --work forward -o scaling.csv
        attention-bench scaling --attention softmax focused --backbone swin_t --image-size 224:896 -o scaling.json

    By itself, an attention has the whole square map as one window: every token meets every other. In a backbone, which
    tokens meet is said below the table, for each size. What runs out of memory is a point without a number, and is not
    tried at larger sizes.

    Args:
        attention: what is raced, as `race` takes it; the first is the baseline.
        tokens: the range of the numbers of tokens; those of the square maps in it are taken, each about twice the last.
        dim: channels of a token.
        heads: heads, which share the channels.
        backbone: race models, this preset with each attention, at growing images.
        image_size: the range of the sides of the images, in pixels; the multiples of 32 that the preset takes, each a
            quarter larger than the last or more.
        work: a forward pass without gradients, forward and backward, or (models) a training step with AdamW.
        batch: images.
        precision: fp32, or autocast to bf16 or fp16, of candidates that do not say theirs.
        seconds: the least time to measure for, per candidate and size.
        reference: what foreign candidates must equal, outputs and gradients, with the same parameters.
        output: write to this file as well, .json (everything, which `figure scaling` draws), .csv or .md.
    """
    from harness.process.environment import environment
    from harness.racing.candidates import read_candidates
    from harness.racing.race import Setup
    from harness.racing.scaling import scale
    from results import tables

    of_maps = {"--tokens": tokens, "--dim": dim, "--heads": heads}
    of_images = {"--backbone": backbone, "--image-size": image_size}
    runtime = runtime_of(device, precision, batch, seconds, output)
    _check_form(of_maps, of_images, work)
    candidates = read_candidates(attention, runtime.precision, reference)
    if candidates[0].is_model:
        raise ValueError(f"--attention {candidates[0].label}: it takes attentions, not presets (--backbone does)")
    sizes = _sizes(candidates, tokens, dim, heads, backbone, image_size)
    measured = scale(sizes, Setup(work, runtime, seconds), note)
    about = environment(device)
    sheet = scaling_sheet(sizes, measured, work, batch, about)
    tables.show(sheet, out_console)
    if output is not None:
        options: dict[str, Any] = {**of_maps, **of_images, "--work": work, "--batch": batch, "--device": device}
        options |= {"--precision": precision, "--seconds": seconds, "--reference": reference}
        command = command_of(["attention-bench", "scaling", "--attention", *attention], options, candidates)
        roofs = roofs_of(candidates, runtime)
        circumstances = {"command": command, "work": work, "batch": batch, "backbone": backbone, "environment": about}
        write_files([(output, _content(output.suffix, sheet, sizes, measured, roofs, circumstances))], [])
    problems = [each for point in measured for each in point.results if each.problem and not each.out_of_memory]
    return 1 if problems else 0


def _check_form(of_maps: dict[str, Any], of_images: dict[str, Any], work: str) -> None:
    """Raise ValueError for options of maps beside --backbone, and for those of models without it."""
    if of_images["--backbone"] is None:
        if of_images["--image-size"] is not None:
            raise ValueError("--image-size is for models: name one, as in --backbone swin_t")
        if work == "train":
            raise ValueError("--work train is for models (--backbone); attentions take forward or both")
        for option in ("--dim", "--heads"):
            if of_maps[option] is not None:
                check_at_least(1, option, of_maps[option])
    elif given := [option for option, value in of_maps.items() if value is not None]:
        raise ValueError(f"{given[0]} is for attentions by themselves; --backbone takes --image-size")


def _sizes(
    candidates: Sequence[Candidate],
    tokens: str | None,
    dim: int | None,
    heads: int | None,
    backbone: str | None,
    image_size: str | None,
) -> list[Size]:
    from harness.racing.scaling import images_between, maps_between

    if backbone is not None:
        return images_between(candidates, backbone, *_range("--image-size", image_size or "224:896", "224:1024"))
    least, most = _range("--tokens", tokens or "49:3136", "49:16384")
    return maps_between(candidates, least, most, dim or 96, heads or 3)


def _range(option: str, text: str, example: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if match is None or not 0 < int(match[1]) <= int(match[2]):
        raise ValueError(f"{option} {text}: write it as in {example}")
    return int(match[1]), int(match[2])


def scaling_sheet(
    sizes: Sequence[Size], measured: Sequence[Measured], work: str, batch: int, about: dict[str, Any]
) -> Sheet:
    """Return the table: a row per candidate, a column per size, the exponents and the crossover."""
    from harness.racing.scaling import crossover, exponents
    from results.tables import Sheet

    labels = [each.label for each in sizes[0].candidates]
    rows, notes = [], []
    for at, label in enumerate(labels):
        results = [each.results[at] for each in measured]
        times = [f"{1e3 * each.quartiles[1]:.4g}" if each.seconds else "" for each in results]
        found = exponents(sizes, results)
        faster = "" if at == 0 else _shown(crossover(sizes, results))
        rows.append([label, *times, _grown(found["seconds"]), _grown(found["peak_mib"]), faster])
        failed = next(((size, each) for size, each in zip(sizes, results, strict=True) if each.problem), None)
        if failed:
            notes.append(f"{label}: from {_named(failed[0])} on {failed[1].problem}.")
    for size, point in zip(sizes, measured, strict=True):
        if point.disturbed:
            notes.append(f"{_named(size)}: disturbed, {point.disturbed}.")
        if size.windows:
            notes.append(f"{_named(size)}: tokens meet in {size.windows}.")
    by = "by tokens; the whole map is one window" if sizes[0].place else "by size; what is fixed by the preset stays so"
    notes.append(
        f"ms: median of {WORKS[work]}, batch {batch}, {by}. Exponents: of the number of tokens, of the time and of the "
        f"peak of memory, at the last sizes. Faster from: where the time passes that of {labels[0]}, measured in turn "
        "here, and the two sizes between which that is decided."
    )
    notes.append(f"{about['device_name'] or about['device']}; threads: {about['threads']}; torch {about['torch']}.")
    columns = [f"{size.number:,}" if size.place else _named(size) for size in sizes]
    headers = ["candidate", *columns, "exponent (95 %)", "of memory", "faster from"]
    return Sheet(headers, rows, frozenset(range(1, len(headers))), notes)


def _named(size: Size) -> str:
    return f"{size.number:,} tokens" if size.place else f"{size.number}x{size.number}"


def _grown(found: Exponent | None) -> str:
    return "" if found is None else f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"


def _shown(found: Crossover) -> str:
    """Return a crossover with its interval, in words where one end is open or nothing is decided."""
    low, high = (None if end is None else f"{end:,}" for end in (found.low, found.high))
    if found.at is None:
        open_ended = f"more than {low}" if high is None else f"at most {high}"
        return "not decided" if low is None and high is None else open_ended
    if low is None and high is None:
        return f"{found.at:,.0f} (not decided)"
    between = f"{low} to {high}" if found.decided else f"more than {low}" if high is None else f"at most {high}"
    return f"{found.at:,.0f} ({between})"


def _content(
    ending: str,
    sheet: Sheet,
    sizes: Sequence[Size],
    measured: Sequence[Measured],
    roofs: Sequence[Roof],
    circumstances: dict[str, Any],
) -> str:
    """Return what a file with this ending holds."""
    from results import tables

    if ending == ".md":
        return tables.to_markdown(sheet)
    if ending == ".csv":
        import pandas as pd

        rows = [
            {**_size_of(size), **row_of(point.place, each, roof)}
            for size, point in zip(sizes, measured, strict=True)
            for each, roof in zip(point.results, roofs, strict=True)
        ]
        return tables.to_csv(pd.DataFrame(rows).drop(columns="place"))
    points = [{**_size_of(size), **plain_of(point, roofs)} for size, point in zip(sizes, measured, strict=True)]
    plain = {"kind": "scaling", **circumstances, "fitted": _fitted(sizes, measured), "sizes": points}
    return json.dumps(plain, indent=2) + "\n"


def _size_of(size: Size) -> dict[str, Any]:
    of_a_model = {} if size.place else {"image_size": size.number, "windows": size.windows}
    return {"tokens": size.tokens, **of_a_model}


def _fitted(sizes: Sequence[Size], measured: Sequence[Measured]) -> dict[str, Any]:
    """Return the exponents of each candidate, and from where on it is faster than the first."""
    from harness.racing.scaling import crossover, exponents

    fitted = {}
    for at, candidate in enumerate(sizes[0].candidates):
        results = [each.results[at] for each in measured]
        found = {f"exponent_of_{name}": each and asdict(each) for name, each in exponents(sizes, results).items()}
        crossed = crossover(sizes, results) if at else None
        fitted[candidate.label] = {
            **found,
            "faster_from": None if crossed is None else {**asdict(crossed), "decided": crossed.decided},
        }
    return fitted

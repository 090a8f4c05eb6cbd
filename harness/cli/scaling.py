"""The command scaling: attentions raced at growing numbers of tokens."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from harness.cli.app import check_at_least, note, out_console, shown
from harness.cli.options import DeviceOption, PrecisionOption
from harness.cli.outputs import check_files, write_files
from harness.cli.race import command_of, plain_of, row_of

if TYPE_CHECKING:
    from harness.racing.race import Measured
    from harness.racing.scaling import Crossover
    from results.tables import Sheet

ENDINGS = (".json", ".csv", ".md")


def scaling(
    *,
    attention: Annotated[tuple[str, ...], shown("CANDIDATE ...")] = (),
    tokens: Annotated[str, tyro.conf.arg(metavar="LEAST:MOST")] = "49:3136",
    dim: Annotated[int, tyro.conf.arg(metavar="CHANNELS")] = 96,
    heads: Annotated[int, tyro.conf.arg(metavar="HEADS")] = 3,
    work: Literal["forward", "both"] = "both",
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

    Every token meets every other: the whole square map is one window. What runs out of memory is a point without a
    number, and is not tried with more tokens.

    Args:
        attention: what is raced, as `race` takes it; the first is the baseline.
        tokens: the range of the numbers of tokens; those of the square maps in it are taken, each about twice the last.
        dim: channels of a token.
        heads: heads, which share the channels.
        work: a forward pass without gradients, or forward and backward.
        batch: images.
        precision: fp32, or autocast to bf16 or fp16, of candidates that do not say theirs.
        seconds: the least time to measure for, per candidate and number of tokens.
        reference: what foreign candidates must equal, outputs and gradients, with the same parameters.
        output: write to this file as well, .json (everything), .csv or .md.
    """
    from harness.cells import Runtime
    from harness.cells.runtime import check_runtime
    from harness.process.environment import check_device, environment
    from harness.racing.candidates import read_candidates
    from harness.racing.race import Setup
    from harness.racing.scaling import places_between, scale
    from results import tables

    check_runtime(device, precision)
    check_device(device)
    for option, number in (("--batch", batch), ("--dim", dim), ("--heads", heads)):
        check_at_least(1, option, number)
    if not 0 < seconds < float("inf"):
        raise ValueError(f"--seconds {seconds}: it takes a number above 0")
    least, _, most = tokens.partition(":")
    if not (least.isdecimal() and most.isdecimal()):
        raise ValueError(f"--tokens {tokens}: write it as in 49:16384")
    if output is not None:
        if output.suffix not in ENDINGS:
            raise ValueError(f"-o {output}: its name must end in {', '.join(ENDINGS)}")
        check_files([output], [])
    runtime = Runtime(device, precision=precision, batch=batch)  # type: ignore[arg-type]
    candidates = read_candidates(attention, runtime.precision, reference)
    if candidates[0].is_model:
        raise ValueError(f"--attention {candidates[0].label}: it takes attentions, not presets")
    places = places_between(int(least), int(most), dim, heads)
    measured = scale(candidates, places, Setup(work, runtime, seconds), note)
    about = environment(device)
    labels = [each.label for each in candidates]
    sheet = scaling_sheet(measured, labels, work, batch, about)
    tables.show(sheet, out_console)
    if output is not None:
        options: dict[str, Any] = {"--tokens": tokens, "--dim": dim, "--heads": heads, "--work": work, "--batch": batch}
        options |= {"--device": device, "--precision": precision, "--seconds": seconds, "--reference": reference}
        command = command_of(["attention-bench", "scaling", "--attention", *attention], options, candidates)
        write_files([(output, _content(output.suffix, sheet, measured, command, about))], [])
    problems = [each for point in measured for each in point.results if each.problem and not each.out_of_memory]
    return 1 if problems else 0


def scaling_sheet(measured: list[Measured], labels: list[str], work: str, batch: int, about: dict[str, Any]) -> Sheet:
    """Return the table: a row per candidate, a column per number of tokens, the exponent and the crossover."""
    from harness.racing.scaling import crossover, exponent
    from results.tables import Sheet

    sizes = [int(each.place) for each in measured]
    rows, notes = [], []
    for at, label in enumerate(labels):
        results = [each.results[at] for each in measured]
        times = [f"{1e3 * each.quartiles[1]:.4g}" if each.seconds else "" for each in results]
        found = exponent(sizes, results)
        grown = "" if found is None else f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"
        rows.append([label, *times, grown, "" if at == 0 else _shown(crossover(sizes, results))])
        failed = next(((n, each) for n, each in zip(sizes, results, strict=True) if each.problem), None)
        if failed:
            notes.append(f"{label}: from {failed[0]:,} tokens on {failed[1].problem}.")
    notes += [f"{point.place} tokens: disturbed, {point.disturbed}." for point in measured if point.disturbed]
    what = "a forward pass" if work == "forward" else "forward and backward"
    notes.append(
        f"ms: median of {what}, batch {batch}, by tokens; the whole map is one window. Exponent: of N, at the last "
        f"points. Faster from: tokens at which the time passes that of {labels[0]}, measured in turn here, "
        "and the two between which that is decided."
    )
    notes.append(f"{about['device_name'] or about['device']}; threads: {about['threads']}; torch {about['torch']}.")
    headers = ["candidate", *(f"{n:,}" for n in sizes), "exponent (95 %)", "faster from"]
    return Sheet(headers, rows, frozenset(range(1, len(headers))), notes)


def _shown(found: Crossover) -> str:
    """Return a crossover with its interval, in words where one end is open."""
    if found.low is None and found.high is not None:
        return f"at most {found.high:,}"
    if found.high is None:
        return "not decided" if found.low is None else f"more than {found.low:,}"
    middle = "" if found.tokens is None else f"{found.tokens:,.0f} "
    return f"{middle}({found.low:,} to {found.high:,})"


def _content(ending: str, sheet: Sheet, measured: list[Measured], command: str, about: dict[str, Any]) -> str:
    """Return what a file with this ending holds."""
    from harness.racing.scaling import crossover, exponent
    from results import tables

    if ending == ".md":
        return tables.to_markdown(sheet)
    if ending == ".csv":
        import pandas as pd

        rows = [{"tokens": int(p.place), **row_of(p.place, each)} for p in measured for each in p.results]
        return tables.to_csv(pd.DataFrame(rows).drop(columns="place"))
    sizes = [int(each.place) for each in measured]
    fitted = {}
    for at, first in enumerate(measured[0].results):
        results = [each.results[at] for each in measured]
        slope = exponent(sizes, results)
        fitted[first.candidate] = {
            "exponent": slope and asdict(slope),
            "faster_from": asdict(crossover(sizes, results)) if at else None,
        }
    plain = {"command": command, "environment": about, "fitted": fitted, "tokens": [plain_of(p) for p in measured]}
    return json.dumps(plain, indent=2) + "\n"

"""The command race: candidates side by side, and what is written of them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from harness.cli.app import Positional, check_at_least, note, out_console, shown
from harness.cli.options import DeviceOption, PrecisionOption
from harness.cli.outputs import check_files, write_files

if TYPE_CHECKING:
    from harness.cells import Runtime
    from harness.measures.comparison import Ratio
    from harness.measures.roofline import Roof
    from harness.racing.candidates import Candidate
    from harness.racing.places import Place
    from harness.racing.race import Measured, Result
    from results.tables import Sheet

ENDINGS = (".json", ".csv", ".md")

WORKS = {"forward": "a forward pass", "both": "forward and backward", "train": "a training step with AdamW"}

HEADERS = ("place", "candidate", "ms (quartiles)", "x baseline (95 %)", "verdict", "peak MiB", "saved MiB")

ROOFLINE = ("bound by", "of the roof")
"""Columns that --roofline adds."""


def race(
    candidate: Annotated[
        tuple[str, ...], Positional, tyro.conf.arg(metavar="CANDIDATE ...", help_behavior_hint="(required)")
    ],
    *,
    at: Annotated[tuple[str, ...], shown("PRESET ...")] = (),
    site: Annotated[tuple[str, ...], shown("PRESET.STAGE|SIZES ...")] = (),
    layer: Literal["core", "layer"] = "core",
    work: Literal["forward", "both", "train"] = "both",
    batch: Annotated[int, tyro.conf.arg(metavar="IMAGES")] = 8,
    device: DeviceOption = "cpu",
    precision: PrecisionOption = "fp32",
    seconds: Annotated[float, tyro.conf.arg(metavar="SECONDS")] = 2.0,
    reference: Annotated[str | None, shown("ATTENTION|PRESET")] = None,
    roofline: bool = False,
    output: Annotated[
        Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE", help_behavior_hint="(optional)")
    ] = None,
) -> int:
    """Race attentions or models side by side in this process: ratios with intervals, of what is correct.

    For example:
        attention-bench race softmax focused linear --at swin_t
        attention-bench race softmax softmax@explicit "focused(kernel_size=3)@compiled" --site swin_t.1 pvt_tiny.1
        attention-bench race swin_t flatten_swin_t --work train --batch 8 -o race.json
        attention-bench race softmax my_kernel.py:attention --reference softmax --site dim=64,heads=2,grid=14x14

    Outputs and gradients are compared with float64 first; what is wrong gets no number, and the status is 1.

    Args:
        candidate: attentions, presets, or file.py:callable and module:callable of others, the baseline first; each may
            be followed by @eager, @compiled, @fp32, @bf16, @fp16, softmax by @fused, @explicit, and with --work forward
            what has a name by @onnxruntime, @openvino.
        at: race attentions at all stages of these presets; with --layer layer, at all stages under test.
        site: race attentions at stages, as in swin_t.1, or at sizes, as in dim=96,heads=3,grid=56x56 (and further, if
            need be: keys=7x7,prefix=1).
        layer: of attentions, the attention alone, or the preset's layer with its projections.
        work: a forward pass without gradients, forward and backward, or (models) a training step with AdamW.
        batch: images; a site of a preset has as many entries as they have windows.
        precision: fp32, or autocast to bf16 or fp16, of candidates that do not say theirs.
        seconds: the least time to measure for, per candidate and place.
        reference: what foreign candidates must equal, outputs and gradients, with the same parameters.
        roofline: show what share of the device's own roof each reaches, by a copy and a product measured here.
        output: write to this file as well, .json (everything), .csv or .md.
    """
    from harness.process.environment import environment
    from harness.racing.candidates import read_candidates
    from harness.racing.entries import check_layers
    from harness.racing.places import layers_of, places_of, read_place
    from harness.racing.race import Setup
    from harness.racing.race import race as race_
    from results import tables

    runtime = runtime_of(device, precision, batch, seconds, output)
    candidates = read_candidates(candidate, runtime.precision, reference)
    models = candidates[0].is_model
    if models and (at or site or layer != "core"):
        raise ValueError("models have no place: leave out --at, --site and --layer")
    if not models and work == "train":
        raise ValueError("--work train is for models; attentions take forward or both")
    found = [each for name in at for each in places_of(name, tested=layer == "layer")]
    found += [each for text in site for each in read_place(text)]
    if layer == "layer":
        found = layers_of(found)
        check_layers(found)
    if not models and not found:
        raise ValueError("attentions are raced somewhere: --at swin_t, or --site swin_t.1")
    places: list[Place | None] = [None] if models else [*found]
    setup = Setup(work, runtime, seconds, layer=layer == "layer")
    measured = [race_(candidates, place, setup, note) for place in places]
    about = environment(device)
    roofs = roofs_of(candidates, runtime) if roofline or output is not None else []
    sheet = race_sheet(measured, [each.label for each in candidates], setup.work, batch, about, roofs)
    if not roofline:
        sheet = sheet.without(ROOFLINE)
    tables.show(sheet, out_console)
    if output is not None:
        line: dict[str, Any] = {"--layer": layer, "--work": work, "--batch": batch, "--device": device}
        line |= {"--precision": precision, "--seconds": seconds, "--reference": reference}
        words = [
            "attention-bench",
            "race",
            *candidate,
            *(["--at", *at] if at else []),
            *(["--site", *site] if site else []),
        ]
        command = command_of(words, line, candidates)
        write_files([(output, _content(output.suffix, sheet, measured, roofs, command, about))], [])
    return 1 if any(result.problem for each in measured for result in each.results) else 0


def runtime_of(device: str, precision: str, batch: int, seconds: float, output: Path | None) -> Runtime:
    """Return how candidates run that do not say it themselves; nothing is written yet.

    Raises ValueError, in one line, for what is not there, is out of range, or cannot be written.
    """
    from harness.cells import Runtime
    from harness.cells.runtime import check_runtime
    from harness.process.environment import check_device

    check_runtime(device, precision)
    check_device(device)
    check_at_least(1, "--batch", batch)
    if not 0 < seconds < float("inf"):
        raise ValueError(f"--seconds {seconds}: it takes a number above 0")
    if output is not None:
        if output.suffix not in ENDINGS:
            raise ValueError(f"-o {output}: its name must end in {', '.join(ENDINGS)}")
        check_files([output], [])
    return Runtime(device, precision=precision, batch=batch)  # type: ignore[arg-type]


def roofs_of(candidates: Sequence[Candidate], runtime: Runtime) -> list[Roof]:
    """Measure the roof of the device in the precision of each candidate."""
    from harness.measures.roofline import measure_roof

    note("the device's own copy and product: measuring")
    return [measure_roof(runtime.device, each.precision) for each in candidates]


def race_sheet(
    measured: list[Measured], labels: list[str], work: str, batch: int, about: dict[str, Any], roofs: Sequence[Roof]
) -> Sheet:
    """Return the table of a race; several places end with the geometric mean of their ratios.

    `roofs`: that of each candidate, or none, and the columns on them are empty.
    """
    from harness.racing.race import OWN, mean_ratio
    from results.tables import Sheet
    from results.wording import count

    rows, notes = [], []
    for each in measured:
        for at, result in enumerate(each.results):
            cells = _cells(result, baseline=at == 0)
            rows.append([each.place, result.candidate, *cells, *_roof_cells(result, roofs[at] if roofs else None)])
            where = f"{result.candidate} at {each.place}" if each.place else result.candidate
            if result.problem:
                notes.append(f"{where}: {result.problem}.")
            elif result.own_share > OWN:
                notes.append(f"{where}: {100 * result.own_share:.1f} % of its time may be the harness's own.")
        if each.disturbed:
            notes.append(f"{each.place or 'The machine'} was disturbed, and nothing is decided: {each.disturbed}.")
    if len(measured) > 1:
        for at, label in enumerate(labels[1:], 1):
            ratios = [ratio for each in measured if (ratio := each.results[at].ratio) is not None]
            mean = mean_ratio(ratios) if len(ratios) == len(measured) else None
            rows.append(["geometric mean", label, "", *ratio_cells(mean), "", "", "", ""])
    threads = f", {count(about['threads'], 'thread')}" if about["device"] == "cpu" else ""
    notes.append(
        f"ms: median of {WORKS[work]} of {batch} images. x baseline: time over that of {labels[0]}, measured in turn "
        "here. peak: above parameters and inputs; saved: what forward keeps for backward, parameters apart."
    )
    notes.append(f"{about['device_name'] or about['device']}{threads}; torch {about['torch']}.")
    right = frozenset({2, 3, 5, 6, 8})
    sheet = Sheet((*HEADERS, *ROOFLINE), rows, right, notes)
    return sheet if any(row[0] for row in rows) else sheet.without(["place"])


def _cells(result: Result, *, baseline: bool) -> list[str]:
    """Return the columns of a result after its name."""
    if result.problem:
        return ["", "", "out of memory" if result.out_of_memory else "no number", "", ""]
    low, middle, high = (f"{1e3 * seconds:.4g}" for seconds in result.quartiles)
    ratio = ["", "baseline"] if baseline else ratio_cells(result.ratio)
    memory = ["" if mib is None else f"{mib:.1f}" for mib in (result.peak_mib, result.saved_mib)]
    return [f"{middle} ({low} to {high})", *ratio, *memory]


def _roof_cells(result: Result, roof: Roof | None) -> list[str]:
    if roof is None or result.needed is None or not result.seconds:
        return ["", ""]
    return [roof.bound(result.needed), f"{100 * roof.seconds(result.needed) / result.quartiles[1]:.2g} %"]


def ratio_cells(ratio: Ratio | None) -> list[str]:
    """Return a ratio with its interval, and what it decides."""
    if ratio is None:
        return ["", "no ratio"]
    verdict = ("faster" if ratio.value < 1 else "slower") if ratio.decided else "not decided"
    return [f"{ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f})", verdict]


def command_of(words: Sequence[str], options: dict[str, Any], candidates: Sequence[Candidate]) -> str:
    """Return the line that repeats a race: its first words, its options by name, and the files it takes."""
    from harness.cli.repeating import imports

    given = [word for name, value in options.items() if value is not None for word in (name, str(value))]
    known = [getattr(each.reference, "attention", each.reference) for each in candidates]
    files = dict.fromkeys(tuple(imports(str(each))) for each in known)
    return shlex.join([*words, *given, *(word for pair in files for word in pair)])


def _content(
    ending: str, sheet: Sheet, measured: list[Measured], roofs: Sequence[Roof], command: str, about: dict[str, Any]
) -> str:
    """Return what a file with this ending holds."""
    from results import tables

    if ending == ".md":
        return tables.to_markdown(sheet)
    if ending == ".csv":
        import pandas as pd

        rows = [row_of(each.place, *pair) for each in measured for pair in zip(each.results, roofs, strict=True)]
        return tables.to_csv(pd.DataFrame(rows))
    plain = {"command": command, "environment": about, "places": [plain_of(each, roofs) for each in measured]}
    return json.dumps(plain, indent=2) + "\n"


def row_of(place: str, result: Result, roof: Roof) -> dict[str, Any]:
    """Return the row of a CSV file; what there is no number of is None."""
    low, middle, high = (None,) * 3 if result.problem else (1e3 * seconds for seconds in result.quartiles)
    ratio, needed = result.ratio, result.needed
    return {
        "place": place,
        "candidate": result.candidate,
        "problem": result.problem,
        "ms_p25": low,
        "ms_p50": middle,
        "ms_p75": high,
        "ratio": ratio and ratio.value,
        "ratio_low": ratio and ratio.low,
        "ratio_high": ratio and ratio.high,
        "decided": ratio and ratio.decided,
        "rounds": ratio and ratio.blocks,
        "disturbed": ratio and ratio.disturbed,
        "peak_mib": result.peak_mib,
        "saved_mib": result.saved_mib,
        "sdpa_kernel": result.sdpa_kernel,
        "attention_path": result.paths,
        "calls_per_sample": result.repeats,
        "own_share": result.own_share,
        "least_bytes": needed and needed.bytes,
        "operations": needed and needed.operations,
        "roof_bytes_per_s": roof.bytes_per_s,
        "roof_operations_per_s": roof.operations_per_s,
        "roof_bound": needed and roof.bound(needed),
        "roof_share": None if needed is None or middle is None else 1e3 * roof.seconds(needed) / middle,
    }


def plain_of(measured: Measured, roofs: Sequence[Roof]) -> dict[str, Any]:
    """Return everything that is known of a place, block by block."""
    from harness.measures.quiet import shares

    pairs = zip(measured.results, roofs, strict=True)
    results = [
        {**row_of(measured.place, each, roof), "checked": each.checked, "runtime": each.runtime} for each, roof in pairs
    ]
    blocks = []
    if measured.rounds is not None:
        names = [measured.results[each].candidate for each in measured.ran]
        for block in measured.rounds.quiet.blocks:
            ratios = {name: measured.rounds.ratios(turn, 0, block) for turn, name in enumerate(names) if turn}
            usage = shares(block.spent)
            blocks.append({"ratios": ratios, "clock": block.clock, **asdict(block.state), **usage})
    return {
        "place": measured.place,
        "results": results,
        "blocks_over": measured.results[measured.ran[0]].candidate if measured.ran else None,
        "blocks": blocks,
        "disturbed": measured.disturbed,
    }

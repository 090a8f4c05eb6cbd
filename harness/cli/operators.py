"""The command operators: what each operator of a model takes in a forward pass, in torch and in other runtimes."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from harness.cli.app import note, out_console, shown
from harness.cli.options import DeviceOption, PresetArgument, SetOption
from harness.cli.outputs import write_files
from harness.cli.race import runtime_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.racing.operators import Operators
    from results.tables import Sheet

HEADERS = ("attention", "runtime", "operator", "part", "calls", "ms", "share")

PART_HEADERS = ("attention", "part", "in attentions", "in MLPs", "elsewhere", "ms", "share")

SMALL = 0.005
"""Share of a pass below which operators are one row together; files have all of them."""


def operators(
    preset: PresetArgument,
    *,
    attention: Annotated[tuple[str, ...], shown("ATTENTION ...", default="the preset's own")] = (),
    set: SetOption = (),
    runtime: Annotated[tuple[str, ...], shown("RUNTIME ...", default="torch")] = ("torch",),
    batch: Annotated[int, tyro.conf.arg(metavar="IMAGES")] = 8,
    device: DeviceOption = "cpu",
    seconds: Annotated[float, tyro.conf.arg(metavar="SECONDS")] = 0.5,
    output: Annotated[
        Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE", help_behavior_hint="(optional)")
    ] = None,
) -> int:
    """Say which operators of a model take how long in a forward pass, in torch, ONNX Runtime and OpenVINO.

    For example:
        attention-bench operators swin_t --attention softmax focused
        attention-bench operators swin_micro --runtime torch onnxruntime openvino -o operators.json

    Outputs are compared first, as in a race; what is wrong gets no number, and the status is 1. Of torch, a second
    table has the time by part: projections, products, convolutions, norms, copies and others, in attentions, in MLPs
    and elsewhere.

    Args:
        attention: attentions of the preset, one model each.
        runtime: torch, onnxruntime, openvino.
        batch: images.
        device: where torch runs; other runtimes have the CPU.
        seconds: the least time to measure for, per attention and runtime.
        output: write to this file as well, .json (everything), .csv or .md (the table of operators).
    """
    from attentions import unknown
    from harness.cli.repeating import imports
    from harness.cli.specs import settings, specs_of
    from harness.process.environment import environment
    from harness.racing.candidates import Candidate, check_runtimes
    from harness.racing.operators import operators as operators_
    from harness.runtimes.formats import RUNTIMES, check_installed
    from results import tables

    for option, values in (("--attention", attention), ("--runtime", runtime)):
        if twice := next((value for value in values if values.count(value) > 1), None):
            raise ValueError(f"{option} gives {twice} twice")
    for name in runtime:
        if name not in RUNTIMES:
            raise ValueError(unknown("runtime", name, RUNTIMES))
    check_installed(runtime)
    how = runtime_of(device, "fp32", batch, seconds, output)
    specs = specs_of(preset, attention, settings(set))
    labels = attention or [each.attention.name for each in specs]
    candidates = [
        Candidate(label, spec, runtime=name) for label, spec in zip(labels, specs, strict=True) for name in runtime
    ]
    check_runtimes(candidates, "forward", device)
    found = [operators_(each, how, seconds, note) for each in candidates]
    about = environment(device)
    sheet = _sheet(found, preset, batch, about)
    tables.show(sheet, out_console)
    if any(each.runtime == "torch" and each.rows for each in found):
        out_console.print()
        tables.show(_by_part(found), out_console)
    if output is not None:
        words = ["attention-bench", "operators", preset, *(["--attention", *attention] if attention else [])]
        words += [*(["--set", *set] if set else []), "--runtime", *runtime, "--batch", str(batch)]
        words += ["--device", device, "--seconds", str(seconds)]
        files = dict.fromkeys(tuple(imports(str(each.attention))) for each in specs)
        command = shlex.join([*words, *(word for pair in files for word in pair)])
        circumstances = {"command": command, "model": preset, "batch": batch, "environment": about}
        write_files([(output, _content(output.suffix, sheet, found, circumstances))], [])
    return 1 if any(each.problem for each in found) else 0


def _sheet(found: Sequence[Operators], preset: str, batch: int, about: dict[str, Any]) -> Sheet:
    from harness.measures.parts import OUTSIDE
    from results.tables import Sheet
    from results.wording import count

    rows, notes = [], []
    for each in found:
        name = f"{each.attention} in {each.runtime}"
        if each.problem:
            rows.append([each.attention, each.runtime, "no number", "", "", "", ""])
            notes.append(f"{name}: {each.problem}.")
            continue
        own = _by_operator(each)
        small = [name for name, (_, _, took) in own.items() if name != OUTSIDE and took < SMALL * each.profiled]
        if len(small) > 1:
            together = (None, sum(own[name][1] for name in small), sum(own[name][2] for name in small))
            own = {name: spent for name, spent in own.items() if name not in small}
            own[f"{len(small)} others"] = together
        for operator, (part, calls, took) in own.items():
            number = "" if operator == OUTSIDE else f"{calls:g}"
            cells = [operator, "" if part in (None, operator) else str(part), number, *_time(took, each.profiled)]
            rows.append([each.attention, each.runtime, *cells])
        notes.append(f"{name}: {_cost(each)}")
    notes.append(
        f"ms: of a forward pass of {preset}, {batch} images; an operator's own, without those that it calls. "
        f"{OUTSIDE}: Python, and what a runtime does between its nodes."
    )
    versions = [
        f"{name} {version}"
        for name, version in dict.fromkeys((each.runtime, (each.details or {}).get("version")) for each in found)
        if version
    ]
    threads = f", {count(about['threads'], 'thread')}" if about["device"] == "cpu" else ""
    made = ", ".join([f"torch {about['torch']}", *versions])
    notes.append(f"{about['device_name'] or about['device']}{threads}; {made}.")
    sheet = Sheet(HEADERS, rows, frozenset({4, 5, 6}), notes)
    return sheet if any(row[3] for row in rows) else sheet.without(["part"])


def _by_operator(each: Operators) -> dict[str, tuple[str | None, float, float]]:
    """Return the part, the calls and the seconds of each operator, wherever it runs, the slowest first."""
    found: dict[str, tuple[list[str], float, float]] = {}
    for row in each.rows:
        parts, calls, took = found.get(row.operator, ([], 0.0, 0.0))
        parts = parts if row.part is None or row.part in parts else [*parts, row.part]
        found[row.operator] = (parts, calls + row.calls, took + row.seconds)
    ordered = sorted(found.items(), key=lambda item: -item[1][2])
    return {name: (", ".join(parts) or None, calls, took) for name, (parts, calls, took) in ordered}


def _cost(each: Operators) -> str:
    """Return what a pass takes without and with its profile, and what follows for its operators."""
    from harness.racing.operators import BOUND

    assert each.cost is not None
    ratio = each.cost
    both = (
        f"{1e3 * each.plain:.4g} ms without profiling, {1e3 * each.profiled:.4g} ms with it, to which the operators "
        f"add up; x {ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f})."
    )
    if ratio.disturbed:
        both += f" It was disturbed: {ratio.disturbed}."
    if ratio.value > BOUND:
        both += f" That is more than {BOUND:g}: many short operators look slower than they are."
    return both


def _by_part(found: Sequence[Operators]) -> Sheet:
    """Return the table of the parts of torch's time."""
    from harness.measures.parts import PARTS, WHERE
    from results.tables import Sheet

    rows = []
    for each in found:
        if each.runtime != "torch":
            continue
        sums = {
            part: [sum(row.seconds for row in each.rows if (row.part, row.where) == (part, where)) for where in WHERE]
            for part in PARTS
            if any(row.part == part for row in each.rows)
        }
        sums = dict(sorted(sums.items(), key=lambda item: -sum(item[1])))
        total = [sum(column) for column in zip(*sums.values(), strict=True)]
        for part, took in ({**sums, "together": total} if sums else {}).items():
            times = [f"{1e3 * seconds:.4g}" if seconds else "" for seconds in took]
            rows.append([each.attention, part, *times, *_time(sum(took), each.profiled)])
    notes = ["In torch, by part. Projections: products with a weight, of linear layers; products: of two activations."]
    return Sheet(PART_HEADERS, rows, frozenset({2, 3, 4, 5, 6}), notes)


def _time(seconds: float, of: float) -> list[str]:
    return [f"{1e3 * seconds:.4g}", f"{100 * seconds / of:.1f} %"]


def _content(ending: str, sheet: Sheet, found: Sequence[Operators], circumstances: dict[str, Any]) -> str:
    """Return what a file with this ending holds."""
    from results import tables

    if ending == ".md":
        return tables.to_markdown(sheet)
    plain = [
        {**asdict(row), "ms": 1e3 * row.seconds, "share": row.seconds / each.profiled, "attention": each.attention}
        | {"runtime": each.runtime}
        for each in found
        for row in each.rows
    ]
    if ending == ".csv":
        import pandas as pd

        columns = ["attention", "runtime", "operator", "part", "where", "calls", "ms", "share"]
        return tables.to_csv(pd.DataFrame(plain, columns=columns))
    models = [
        {
            **{
                name: value for name, value in asdict(each).items() if name not in ("rows", "plain", "profiled", "cost")
            },
            "ms": 1e3 * each.plain or None,
            "ms_profiled": 1e3 * each.profiled or None,
            "cost": each.cost and asdict(each.cost),
            "operators": [
                {key: value for key, value in row.items() if key not in ("attention", "runtime", "seconds")}
                for row in plain
                if (row["attention"], row["runtime"]) == (each.attention, each.runtime)
            ],
        }
        for each in found
    ]
    return json.dumps({**circumstances, "models": models}, indent=2) + "\n"

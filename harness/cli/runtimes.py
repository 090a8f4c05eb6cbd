"""The command runtimes: attentions in backbones in several runtimes, which are right there, and their times."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from harness.cli.app import note, out_console, shown
from harness.cli.outputs import write_files
from harness.cli.race import ratio_cells, runtime_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.measures.comparison import Ratio
    from harness.racing.matrix import Row
    from results.tables import Sheet

MICRO = ("deit_micro", "pvt_micro", "pvt_v2_micro", "swin_micro", "cswin_micro")

HEADERS = ("backbone", "attention", "runtime", "outputs", "ms", "x torch (95 %)", "x softmax there (95 %)")


def runtimes(
    *,
    backbone: Annotated[tuple[str, ...], shown("PRESET ...", default="the five micro ones")] = MICRO,
    attention: Annotated[tuple[str, ...], shown("ATTENTION ...", default="all")] = (),
    runtime: Annotated[tuple[str, ...], shown("RUNTIME ...", default="onnxruntime openvino")] = (
        "onnxruntime",
        "openvino",
    ),
    batch: Annotated[int, tyro.conf.arg(metavar="IMAGES")] = 8,
    seconds: Annotated[float, tyro.conf.arg(metavar="SECONDS")] = 0.5,
    output: Annotated[
        Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE", help_behavior_hint="(optional)")
    ] = None,
) -> int:
    """Say of attentions in backbones in which runtimes they are right, and how fast, over PyTorch and over softmax.

    For example:
        attention-bench runtimes -o runtimes.csv
        attention-bench runtimes --backbone swin_t --attention softmax focused --runtime onnxruntime

    Each backbone is one race of all of its attentions in all runtimes, which are in memory together; a forward pass in
    float32 on the CPU. What is wrong there, or does not export, is a row without a time, with the reason below the
    table, and the first part of the model that differs.

    Args:
        backbone: presets.
        attention: attentions by name.
        runtime: onnxruntime, openvino; eager PyTorch is always among them.
        batch: images.
        seconds: the least time to measure for, per attention and runtime.
        output: write to this file as well, .json (everything), .csv or .md.
    """
    from attentions import AttentionSpec, names, unknown
    from harness.cli.repeating import imports
    from harness.process.environment import environment
    from harness.racing.candidates import Candidate, in_model
    from harness.racing.matrix import matrix
    from harness.racing.race import Setup
    from harness.runtimes.formats import RUNTIMES, check_installed
    from results import tables

    others = [name for name in RUNTIMES if name != "torch"]
    for name in runtime:
        if name not in others:
            raise ValueError(unknown("runtime", name, others))
    for option, values in (("--backbone", backbone), ("--attention", attention), ("--runtime", runtime)):
        if twice := next((value for value in values if values.count(value) > 1), None):
            raise ValueError(f"{option} gives {twice} twice")
    check_installed(runtime)
    setup = Setup("forward", runtime_of("cpu", "fp32", batch, seconds, output), seconds)
    candidates = [Candidate(text, AttentionSpec.parse(text)) for text in attention or names()]
    for each in backbone:
        for candidate in candidates:
            # What does not fit is refused before anything is measured.
            in_model(candidate, each)
    rows = [row for each in backbone for row in matrix(each, candidates, runtime, setup, note)]
    about = environment("cpu")
    sheet = _sheet(rows, batch, about)
    tables.show(sheet, out_console)
    if output is not None:
        words = ["attention-bench", "runtimes", "--backbone", *backbone]
        words += [*(["--attention", *attention] if attention else []), "--runtime", *runtime]
        words += ["--batch", str(batch), "--seconds", str(seconds)]
        files = dict.fromkeys(tuple(imports(text)) for text in attention)
        command = shlex.join([*words, *(word for pair in files for word in pair)])
        write_files([(output, _content(output.suffix, sheet, rows, {"command": command, "environment": about}))], [])
    return 1 if any(row.result.problem for row in rows) else 0


def _sheet(rows: Sequence[Row], batch: int, about: dict[str, Any]) -> Sheet:
    from results.tables import Sheet
    from results.wording import count

    cells, notes = [], []
    for row in rows:
        result = row.result
        time = "" if result.problem else f"{1e3 * result.quartiles[1]:.4g}"
        ratios = [_ratio_cell(each) for each in (row.over_torch, row.over_softmax)]
        cells.append([row.backbone, row.attention, row.runtime, _outputs(result.problem), time, *ratios])
        if result.problem:
            first = "" if row.first_wrong is None else f"; {row.first_wrong}"
            notes.append(f"{row.attention} in {row.backbone}, {row.runtime}: {result.problem}{first}.")
    for name in dict.fromkeys(row.backbone for row in rows):
        found = (each for row in rows if row.backbone == name for each in (row.over_torch, row.over_softmax))
        if disturbed := next((each.disturbed for each in found if each and each.disturbed), None):
            notes.append(f"{name} was disturbed, and nothing is decided: {disturbed}.")
    notes.append(
        f"ms: median of a forward pass of {batch} images. x torch: time over that of eager PyTorch; x softmax there: "
        "over the backbone with softmax in the same runtime; both measured in turn."
    )
    versions = {
        f"{row.runtime} {row.result.runtime['version']}": None for row in rows if row.result.runtime is not None
    }
    made = ", ".join([f"torch {about['torch']}", *versions])
    notes.append(f"{about['device_name'] or about['device']}, {count(about['threads'], 'thread')}; {made}.")
    return Sheet(HEADERS, cells, frozenset({4, 5, 6}), notes)


def _outputs(problem: str | None) -> str:
    """Return what a row says of the outputs; the note below the table has the rest."""
    if problem is None:
        return "right"
    if problem.startswith("wrong: "):
        return problem.partition(" on ")[0]
    return "no export" if "does not export" in problem else "no number"


def _ratio_cell(ratio: Ratio | None) -> str:
    return "" if ratio is None else ratio_cells(ratio)[0]


def _content(ending: str, sheet: Sheet, rows: Sequence[Row], circumstances: dict[str, Any]) -> str:
    """Return what a file with this ending holds."""
    from results import tables

    if ending == ".md":
        return tables.to_markdown(sheet)
    if ending == ".csv":
        import pandas as pd

        return tables.to_csv(pd.DataFrame([_plain(row) for row in rows]))
    plain = [{**_plain(row), "checked": row.result.checked, "runtime_details": row.result.runtime} for row in rows]
    return json.dumps({**circumstances, "rows": plain}, indent=2) + "\n"


def _plain(row: Row) -> dict[str, Any]:
    """Return the numbers of a row; what there is no number of is None."""
    low, middle, high = (None,) * 3 if row.result.problem else (1e3 * seconds for seconds in row.result.quartiles)
    plain: dict[str, Any] = {"backbone": row.backbone, "attention": row.attention, "runtime": row.runtime}
    plain |= {"problem": row.result.problem, "first_wrong": row.first_wrong}
    plain |= {"ms_p25": low, "ms_p50": middle, "ms_p75": high}
    for name, ratio in (("over_torch", row.over_torch), ("over_softmax", row.over_softmax)):
        values = asdict(ratio) if ratio is not None else dict.fromkeys(("value", "low", "high", "blocks", "disturbed"))
        plain |= {f"{name}_{key}": value for key, value in values.items()}
    return plain

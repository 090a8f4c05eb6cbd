"""The command that writes one page of what is recorded: report."""

from __future__ import annotations

import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from harness.cli.app import shown
from harness.cli.options import FoldersOption, SourcesArgument
from harness.cli.outputs import check_files, write_files
from harness.cli.sheets import recorded

if TYPE_CHECKING:
    import pandas as pd

    from results import Record
    from results.figures import Figure, Which
    from results.report import Paper

ENDINGS = (".html", ".htm")


def report(
    sources: SourcesArgument = (),
    *,
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="FILE")],
    out: FoldersOption = (),
    baseline: Annotated[str, tyro.conf.arg(metavar="ATTENTION")] = "softmax",
    ema: bool = False,
    figure: Annotated[tuple[Path, ...], shown("FILE.json ...")] = (),
    title: Annotated[str | None, shown("TEXT", default="the names of the sources")] = None,
) -> int:
    """Write one page to send around: an HTML file that opens offline, in which every number opens what it rests on.

    Its tables sort, filter and copy as CSV or LaTeX; its figures have axes to choose from. For example:
        attention-bench report quickstart -o report.html
        attention-bench report runs/mine runs/theirs --title "Ours and theirs" -o both.html
        attention-bench report quickstart --figure maps.json front.json -o report.html

    Args:
        output: the file to write, which ends in .html.
        baseline: the attention that the others are compared with, image by image; of evaluations, also a backbone or a
            file of weights.
        ema: compare the moving averages of the weights.
        figure: further figures to show: specifications of Vega-Lite, as `figure` and `maps` write them to .json files.
        title: the headline of the page.
    """
    if output.suffix not in ENDINGS:
        raise ValueError(f"{output}: a report ends in {' or '.join(ENDINGS)}")
    from results.figures import read_figure

    found = recorded(sources, out)
    check_files([output], found.folders)
    further = [read_figure(path) for path in figure]
    if not found.records:
        of = f" of {', '.join(sources)}" if sources else ""
        raise ValueError(f"there are no records{of} in {', '.join(map(str, found.folders))}")

    from harness.cli.repeating import commands
    from results.report import Report, report_page

    frame = found.frame()
    which: Which = "ema" if ema else "model"
    comparisons, uncompared = _compared(found.records, baseline, which)
    evaluations, unevaluated = _evaluated(found.records, baseline)
    if baseline != "softmax" and comparisons is None and evaluations is None and (why := uncompared or unevaluated):
        raise ValueError(why)
    published, keys = _published(found.records)
    folders = {str(folder) for folder in found.folders}
    page = report_page(
        Report(
            title=title or ", ".join(Path(source).name or source for source in sources or map(str, found.folders)),
            records=found.records,
            frame=frame,
            expected=found.expected,
            sources=[*(name for name in sources if name not in folders), *sorted(folders)],
            folders=found.folders,
            certificates=found.certificates,
            comparisons=comparisons,
            uncompared=uncompared,
            evaluations=evaluations,
            unevaluated=unevaluated,
            published=published,
            published_keys=keys,
            curves=_curves(found.records, which),
            further=further,
            commands=commands(found.records, [name for name in sources if not Path(name).is_dir()]),
            papers=_papers(frame["attention"]),
            notes=[*found.conflicts, *(f"Damaged, left out: {problem}" for problem in found.problems)],
            made=datetime.now(UTC).date().isoformat(),
        )
    )
    write_files([(output, page)], found.folders)
    return found.status


def _compared(records: list[Record], baseline: str, which: Which) -> tuple[pd.DataFrame | None, str]:
    """Return the paired comparison, or None and why there is none; nothing is said where nothing was trained."""
    from results import tables

    if not any(record.status == "done" and record.cell["task"]["name"] == "train" for record in records):
        return None, ""
    try:
        return tables.comparisons(records, baseline, which), ""
    except ValueError as problem:
        return None, str(problem)


def _evaluated(records: list[Record], baseline: str) -> tuple[pd.DataFrame | None, str]:
    """Return evaluations compared, or None and why not; nothing is said where no two are of the same images."""
    from results import tables

    done = [record for record in records if record.status == "done" and record.cell["task"]["name"] == "evaluate"]
    images = Counter(str(record.metrics.get("val_list")) for record in done if record.metrics.get("val_list"))
    if max(images.values(), default=0) < 2:
        return None, ""
    try:
        return tables.evaluations(records, baseline), ""
    except ValueError as problem:
        return None, str(problem)


def _published(records: list[Record]) -> tuple[pd.DataFrame | None, list[list[str]]]:
    """Return published rows that these records say anything about, with ours beside them, and the records of each.

    They are of the preferred source of each model; `reproduce` shows the others as well.
    """
    from harness.cli.reproduction import recorded_numbers
    from results import tables
    from results.tables.columns import rows_of

    parts: list[pd.DataFrame] = []
    keys: list[list[str]] = []
    for paper in tables.papers():
        published = tables.published_rows(paper)
        ours = recorded_numbers(tables.targets(published), records)
        known = {tables.describe(each): each for each in ours}
        preferred = [row["primary"] == "1" and tables.describe(row) in known for row in rows_of(published)]
        kept = published[preferred]
        if len(kept):
            parts.append(tables.compare(kept.reset_index(drop=True), ours))
            keys += [known[tables.describe(row)]["keys"] for row in rows_of(kept)]
    if not parts:
        return None, []
    import pandas as pd

    return pd.concat(parts, ignore_index=True), keys


def _curves(records: list[Record], which: Which) -> Figure | None:
    from results.figures import curves

    try:
        return curves(records, which)
    except ValueError:  # no run folder has epochs, or one is damaged, which its records say
        return None


def _papers(texts: Any) -> list[Paper]:
    """Return the papers of attentions, as far as their modules name them."""
    import attentions
    from results.report import paper_of

    known = set(attentions.names())
    found = []
    for name in dict.fromkeys(text.partition("(")[0] for text in texts.dropna()):
        if name in known:
            cls = attentions.lookup(name)
            about = sys.modules[cls.__module__].__doc__ or cls.__doc__ or ""
            found.append(paper_of(name, about))
    return [paper for paper in found if paper is not None]

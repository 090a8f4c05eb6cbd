"""The report page: one HTML file with its styles, its program, its data and the figures' library inside."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from results.certificates import Certificate
from results.figures import Figure, Given
from results.garbage import no_collection
from results.records import Record
from results.report.drawn import MANY, bundle, drawn, looks, theme
from results.report.listed import Spec, lacking_table, results_table, sheet_table, with_attentions
from results.report.methods import methods
from results.report.papers import Paper, bibtex
from results.report.places import frame_without_places, short_places, text_without_places
from results.report.provenance import Provenance, as_json
from results.tables.columns import rows_of
from results.tables.evaluated import evaluated_sheet
from results.tables.naming import shortened
from results.tables.paired_views import paired_sheet
from results.tables.reproduction import comparison_sheet
from results.wording import count


@dataclass
class Report:
    """What a page is about.

    `frame` is that of `results.tables.table`, of the `records` and the `expected` cells. `comparisons`, `evaluations`
    and `published` are the frames of `results.tables.comparisons`, `evaluations` and `compare`; `published_keys` has
    for each row of the last the keys of our records. Where there is no frame, the texts `uncompared` and `unevaluated`
    say why, if anything is to be said. `further` are figures that are shown as they are. `commands` are lines that
    measure records again, by their keys. `papers` are those of the attentions shown.
    """

    title: str
    records: Sequence[Record]
    frame: pd.DataFrame
    expected: Sequence[tuple[str, dict[str, Any]]] = ()
    sources: Sequence[str] = ()
    folders: Sequence[Path] = ()
    certificates: Sequence[Certificate] = ()
    comparisons: pd.DataFrame | None = None
    uncompared: str = ""
    evaluations: pd.DataFrame | None = None
    unevaluated: str = ""
    published: pd.DataFrame | None = None
    published_keys: Sequence[Sequence[str]] = ()
    curves: Figure | None = None
    further: Sequence[Given] = ()
    commands: Mapping[str, str] = field(default_factory=dict)
    papers: Sequence[Paper] = ()
    notes: Sequence[str] = ()
    made: str = ""


@no_collection()
def report_page(report: Report) -> str:
    """Return the page as HTML."""
    places = short_places({*report.folders, *(record.folder for record in report.records if record.folder)})
    report = replace(
        report,
        frame=frame_without_places(report.frame, places),
        sources=[places.get(source, source) for source in report.sources],
        notes=[text_without_places(line, places) for line in report.notes],
        uncompared=text_without_places(report.uncompared, places),
        unevaluated=text_without_places(report.unevaluated, places),
    )
    provenance = Provenance(report.records, report.certificates, report.commands, places)
    tables = {"results": results_table(report.frame, provenance)}
    if report.comparisons is not None:
        tables["pairs"] = _pairs(report.comparisons, provenance)
    if report.evaluations is not None:
        tables["evaluations"] = _evaluations(report.evaluations, provenance)
    if report.published is not None and len(report.published):
        keys = [[n for key in keys if (n := provenance.number(key)) is not None] for keys in report.published_keys]
        tables["published"] = _published(report.published, keys)
    lacking = lacking_table(report.records, report.expected, provenance)
    if lacking["count"]:
        tables["lacking"] = lacking
    curves = report.curves
    figures = drawn(report.frame, report.comparisons, None if curves is None else lambda: curves)
    data = {
        "attentions": _attentions(report.frame),
        "tables": tables,
        "figures": figures,
        "further": [each.spec for each in report.further],
        "theme": theme(),
        **provenance.data(),
    }
    return _template().render(
        title=report.title,
        summary=_summary(report),
        notes_of_results=tables["results"]["notes"],
        tables=tables,
        figures=figures,
        many=len(report.frame) > MANY,
        methods=methods(report.records, _paired_seeds(report.comparisons)),
        papers=report.papers,
        bibtex="\n\n".join(map(bibtex, report.papers)),
        report=report,
        css=_file("page.css"),
        js=_file("page.js"),
        # The program runs in the page; what records say is data, and never markup.
        vega=Markup(bundle()),
        data=Markup(as_json(data)),
    )


def _pairs(comparisons: pd.DataFrame, provenance: Provenance) -> Spec:
    trainings: dict[tuple[str, str], list[int]] = {}
    for number, record in enumerate(provenance.records):
        if record.cell["task"]["name"] == "train" and record.status == "done":
            backbone = record.cell["backbone"]
            trainings.setdefault((backbone["name"], backbone["attention"]), []).append(number)
    sources = [trainings.get((row["backbone"], row["attention"]), []) for row in rows_of(comparisons)]
    opening = ("top1", "SD", "difference", "95 % interval", "p")
    table = sheet_table(paired_sheet(comparisons), sources, opening)
    return with_attentions(table, list(comparisons["attention"]))


def _evaluations(frame: pd.DataFrame, provenance: Provenance) -> Spec:
    numbers = [provenance.number(row["key"]) for row in rows_of(frame)]
    opening = ("top1", "95 % interval", "difference", "its interval", "won", "lost", "p")
    table = sheet_table(evaluated_sheet(frame), [[] if n is None else [n] for n in numbers], opening)
    return with_attentions(table, list(frame["attention"]))


def _published(comparison: pd.DataFrame, sources: Sequence[Sequence[int]]) -> Spec:
    """Return published rows; what the headers are about is in their labels, and what no row has is hidden."""
    table = sheet_table(comparison_sheet(comparison), sources, ("ours", "diff"))
    quantity = ""
    for column in table["columns"]:
        if column["label"] in ("params_m", "gmacs", "top1"):
            quantity = column["label"]
            column["label"] = f"{quantity}, theirs"
        elif column["label"] in ("ours", "diff", "verdict"):
            column["label"] = f"{quantity}, {column['label']}"
        else:
            quantity = ""
        column["name"] = column["label"]
        unmeasured = quantity == "top1" and comparison["top1_kind"].isna().all()
        if unmeasured or column["label"] in ("by", "source") or column["label"].endswith(", diff"):
            column["hidden"] = True
    return table


def _attentions(frame: pd.DataFrame) -> list[dict[str, Any]]:
    found = looks(list(frame["attention"].dropna().unique()))
    short, _ = shortened(frame["attention"])
    return [
        {"text": text, "short": short[text], "colour": look.colour, "shape": look.shape, "filled": look.filled}
        for text, look in found.items()
    ]


def _summary(report: Report) -> list[str]:
    """Return facts for the head of the page."""
    models = report.frame[["backbone", "attention"]].drop_duplicates()
    attentions, backbones = report.frame["attention"].nunique(), report.frame["backbone"].nunique()
    facts = [
        f"{count(len(models), 'model')}: {count(attentions, 'attention')} in {count(backbones, 'backbone')}",
        count(len(report.records), "record"),
    ]
    failed = sum(record.status != "done" for record in report.records)
    missing = len(dict(report.expected).keys() - {record.key for record in report.records})
    facts += [f"{failed:,} failed"] if failed else []
    facts += [f"{missing:,} missing"] if missing else []
    return facts


def _file(name: str) -> Markup:
    return Markup((files("results.report") / name).read_text(encoding="utf-8"))


def _template() -> jinja2.Template:
    text = (files("results.report") / "page.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(text)


def _paired_seeds(comparisons: pd.DataFrame | None) -> int:
    """Return the largest number of seeds that a difference is over, 0 where there is none."""
    counts = [] if comparisons is None else comparisons["paired_seeds"].dropna().tolist()
    return int(max(counts, default=0))

"""Records as tables: for people, as CSV, beside each other and beside published numbers.

* `columns`: what each column of a table is about, and its name.
* `frames`: records as a frame, one row per model, speed circumstances and training circumstances; CSV.
* `paired`: accuracies compared image by image and seed by seed, with intervals.
* `views`, `sheets`: a frame as a table for people, on a terminal, as plain lines or as Markdown.
* `reproduction`: our numbers beside published ones, which are in `results/published` with their sources.
"""

from results.tables.frames import BREAKDOWN, METRICS, table, to_csv
from results.tables.notes import notes
from results.tables.paired import comparisons, paired_sheet
from results.tables.reproduction import (
    EVALUATED,
    IMAGENET_VAL,
    TRAINED,
    compare,
    comparison_sheet,
    describe,
    papers,
    published_rows,
    summary,
    targets,
)
from results.tables.selection import in_order, labelled, where
from results.tables.sheets import Sheet, show, to_markdown, to_plain
from results.tables.views import sheet

__all__ = [
    "BREAKDOWN",
    "EVALUATED",
    "IMAGENET_VAL",
    "METRICS",
    "TRAINED",
    "Sheet",
    "compare",
    "comparison_sheet",
    "comparisons",
    "describe",
    "in_order",
    "labelled",
    "notes",
    "paired_sheet",
    "papers",
    "published_rows",
    "sheet",
    "show",
    "summary",
    "table",
    "targets",
    "to_csv",
    "to_markdown",
    "to_plain",
    "where",
]

"""What was measured, and tables of it. Imports neither torch nor our other packages: tables render on a laptop.

* `records`: one measured cell is one JSON file, written completely or not at all.
* `certificates`: the laws by which an attention was tested, one JSON file per attention.
* `correctness`: which images a model got right, one bit per image.
* `columns`: what each column of a table is about, and its name.
* `tables`: records as a frame, one row per model, speed circumstances and training circumstances; CSV.
* `paired`: accuracies compared image by image and seed by seed, with intervals.
* `views`, `sheets`: a frame as a table for people, on a terminal, as plain lines or as Markdown.
* `reproduction`: our numbers beside published ones, which are in `published/` with their sources.
"""

from results.certificates import (
    Certificate,
    Verdict,
    certificate_summary,
    certificates,
    read_certificate,
    write_certificate,
)
from results.correctness import read_correct, write_correct
from results.paired import Difference, comparisons, paired_difference, paired_sheet
from results.records import Record, model_of, read, read_all, read_json, replacing, write, write_bytes, write_text
from results.reproduction import (
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
from results.sheets import Sheet, show, to_markdown, to_plain
from results.tables import BREAKDOWN, METRICS, table, to_csv
from results.views import notes, sheet

__all__ = [
    "BREAKDOWN",
    "EVALUATED",
    "IMAGENET_VAL",
    "METRICS",
    "TRAINED",
    "Certificate",
    "Difference",
    "Record",
    "Sheet",
    "Verdict",
    "certificate_summary",
    "certificates",
    "compare",
    "comparison_sheet",
    "comparisons",
    "describe",
    "model_of",
    "notes",
    "paired_difference",
    "paired_sheet",
    "papers",
    "published_rows",
    "read",
    "read_all",
    "read_certificate",
    "read_correct",
    "read_json",
    "replacing",
    "sheet",
    "show",
    "summary",
    "table",
    "targets",
    "to_csv",
    "to_markdown",
    "to_plain",
    "write",
    "write_bytes",
    "write_certificate",
    "write_correct",
    "write_text",
]

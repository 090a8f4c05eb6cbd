"""Records as tables: for people, as CSV, beside each other and beside published numbers.

* `columns`: what each column of a table is about, and its name.
* `frames`: records as a frame, one row per model, speed circumstances and training circumstances.
* `analyzed`: what blocks of models are like.
* `paired`, `paired_views`: accuracies compared image by image and seed by seed, with intervals; `evaluated`: those of
  given weights.
* `selection`, `pivot`: rows and columns chosen, ordered and named in words.
* `views`, `notes`, `ranking`: a frame as a table for people, with what they must know.
* `formats`: a table as text, CSV, Markdown, LaTeX, HTML, JSON, parquet, or in timm's columns.
* `schema`: what each column means.
* `reproduction`: our numbers beside published ones, which are in `results/published` with their sources;
  `sources`: where those contradict each other, and run times.
"""

from results.sheets import Sheet, show, to_markdown, to_plain, write_plain
from results.tables.analyzed import MEASURES, analysis_sheet
from results.tables.csv_format import to_csv
from results.tables.evaluated import evaluated_sheet, evaluations
from results.tables.formats import FORMATS, format_of, rendered
from results.tables.frames import BREAKDOWN, METRICS, table
from results.tables.naming import shortened
from results.tables.notes import notes
from results.tables.paired import comparisons
from results.tables.paired_views import paired_sheet
from results.tables.pivot import pivoted
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
from results.tables.selection import in_order, labelled, titled, where
from results.tables.sources import contradictions, published_times
from results.tables.views import sheet, shown_columns

__all__ = [
    "BREAKDOWN",
    "EVALUATED",
    "FORMATS",
    "IMAGENET_VAL",
    "MEASURES",
    "METRICS",
    "TRAINED",
    "Sheet",
    "analysis_sheet",
    "compare",
    "comparison_sheet",
    "comparisons",
    "contradictions",
    "describe",
    "evaluated_sheet",
    "evaluations",
    "format_of",
    "in_order",
    "labelled",
    "notes",
    "paired_sheet",
    "papers",
    "pivoted",
    "published_rows",
    "published_times",
    "rendered",
    "sheet",
    "shortened",
    "show",
    "shown_columns",
    "summary",
    "table",
    "targets",
    "titled",
    "to_csv",
    "to_markdown",
    "to_plain",
    "where",
    "write_plain",
]

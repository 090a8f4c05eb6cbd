"""A sheet as an HTML table that stands by itself: `report` makes the page with everything behind the numbers."""

import html
from typing import Any

import pandas as pd

from results.sheets import Sheet

_STYLE: list[Any] = [
    {"selector": "", "props": "border-collapse: collapse; font: 14px/1.5 system-ui, sans-serif"},
    {"selector": "th, td", "props": "padding: .25em .75em; border-bottom: 1px solid #ccc; text-align: left"},
    {"selector": "caption, tfoot td", "props": "border: 0; color: #555; font-size: 12px; text-align: left"},
    {"selector": ".number", "props": "text-align: right; font-variant-numeric: tabular-nums"},
    {"selector": ".best", "props": "font-weight: 700"},
    {"selector": ".second", "props": "text-decoration: underline"},
]


def to_html(sheet: Sheet) -> str:
    """Return a table with its style, every text escaped: the best number bold, the second underlined, notes below."""
    sheet = sheet.settled()
    classes = [["number" if p in sheet.right else "" for p in range(len(sheet.headers))] for _ in sheet.rows]
    for marked, name in ((sheet.best, "best"), (sheet.second, "second")):
        for row, position in marked:
            classes[row][position] += f" {name}"
    positions = range(len(sheet.headers))
    styler = pd.DataFrame(list(map(list, sheet.rows)), columns=positions).style
    styler = styler.hide(axis="index").format(escape="html").set_table_styles(_STYLE)
    styler = styler.set_td_classes(pd.DataFrame(classes, columns=positions))
    styler = styler.relabel_index([_label(header) for header in sheet.headers], axis=1)
    if sheet.title:
        styler = styler.set_caption(html.escape(sheet.title))
    notes = "".join(f'<tr><td colspan="{len(positions)}">{html.escape(note)}</td></tr>\n' for note in sheet.notes)
    foot = f"<tfoot>\n{notes}</tfoot>\n" if notes else ""
    table = styler.set_uuid("attention-bench").to_html(cell_ids=False)
    return str(table).replace("</table>", f"{foot}</table>")


def _label(header: str) -> str:
    # pandas fills in what is between braces.
    return html.escape(header).replace("{", "{{").replace("}", "}}")

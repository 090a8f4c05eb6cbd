"""Names and errors are texts of anyone: no form of a table breaks, and no row is torn apart."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.cells import cell_len

from results.sheets import Sheet, fitted, to_plain
from results.tables import FORMATS, labelled, rendered, sheet, table, titled
from tests.results.tables.compiling import compiled, needs_latex

NAMES = (
    "[0.5em] first", "* star", "two\nlines\r\nof\ttext", "\x1b[31mred\x1b[0m", "αβγ Δ", "漢字の注意", "é ß Ø ł ñ",
    "{braces} {0}", "--option", "\u202eright to left", "🎉", "–—“”’·≈∞→−", "\ud83d half", "a\u0301",
)  # fmt: skip


def frame_of(make: Any) -> pd.DataFrame:
    records = [
        make.record(f"k{n}", make.cell("swin_t", name, make.train(seed=n)), {"top1": 80.0 + n, "my_text": name})
        for n, name in enumerate(NAMES)
    ]
    return table(records)


@pytest.mark.parametrize("form", [form for form in FORMATS if form != "timm"])
def test_every_form_takes_any_text(make: Any, form: str) -> None:
    frame = frame_of(make)
    for title in NAMES:
        chosen = labelled(frame, [f"top1={title}", "my_text"])
        content = rendered(form, titled(frame, chosen), partial(sheet, frame, chosen))
        assert isinstance(content, bytes) or content.encode()


def test_a_row_is_one_line_and_steers_no_terminal(make: Any) -> None:
    frame = frame_of(make)
    lines = to_plain(sheet(frame, labelled(frame, ["top1", "my_text"]))).partition("\n\n")[0].splitlines()
    assert len(lines) == len(NAMES) + 1
    assert all(line.isprintable() for line in lines)
    assert "\\x1b[31mred\\x1b[0m" in "".join(lines)


def test_what_is_two_columns_wide_counts_as_two() -> None:
    view = Sheet(["name", "number"], [["漢" * 30, "1"], ["b", "22"]], frozenset({1}))
    lines = to_plain(view).splitlines()
    assert {cell_len(line) for line in lines} == {68}
    assert all(cell_len(line) <= 40 for line in to_plain(fitted(view, 40)).splitlines())


@needs_latex
def test_latex_compiles_whatever_the_names(make: Any, tmp_path: Path) -> None:
    frame = frame_of(make)
    chosen = [labelled(frame, [f"top1={title}", "my_text"]) for title in NAMES]
    said = compiled(tmp_path, [str(rendered("latex", frame, partial(sheet, frame, each))) for each in chosen])
    assert not re.search("Missing character", said)


def test_two_columns_of_one_title_are_refused(make: Any) -> None:
    frame = frame_of(make)
    with pytest.raises(ValueError, match="--columns: two columns have the title 'A'"):
        titled(frame, labelled(frame, ["top1=A", "my_text=A"]))

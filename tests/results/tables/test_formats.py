"""One table in every format: the same numbers, to the digit promised, and nothing that breaks the form."""

import html
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from results.sheets import Sheet
from results.tables import FORMATS, format_of, labelled, rendered, sheet, shown_columns, table, titled
from tests.results.tables.compiling import compiled, needs_latex

NASTY = r"a_b & 50% $x$ {y} #1 ~ ^ \z <script>alert(1)</script> | …"


@pytest.fixture
def frame(make: Any) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    records: list[Any] = []
    for backbone in ("swin_t", "pvt_t"):
        for attention in ("softmax", "none", "focused(kernel_size=None)", NASTY):
            key = f"{backbone}-{len(records)}"
            costs = {"params_m": float(rng.uniform(1, 90)), "gmacs": float(rng.uniform(0.1, 30))}
            top1 = float(rng.uniform(60, 85))
            accuracy = {"top1": top1, "top1_stderr": 0.2, "n_images": 50_000, "train_loss": math.nan}
            speed = {"images_per_s": float(rng.uniform(1, 5000)), "infer_disturbed": None}
            for task, metrics in ((make.costs, costs), (make.train(), accuracy), (make.speed(), speed)):
                cell = make.cell(backbone, attention, task, family=backbone)
                records.append(make.record(f"{key}-{task['name']}", cell, metrics))
    records[-1].metrics["infer_disturbed"] = "others used the cores"
    records[0].metrics["params_m"] = None
    return table(records)


NAMES = ("params_m", "gmacs", "images_per_s", "top1")


def cells_of(form: str, text: str) -> list[list[str]]:
    """The rows of a rendered table as texts, its marks taken off."""
    if form == "markdown":
        lines = [line for line in text.splitlines() if line.startswith("|")][2:]
        return [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    if form == "html":
        rows = re.findall(r"<tr>(.*?)</tr>", text.partition("<tbody>")[2].partition("</tbody>")[0], re.DOTALL)
        return [[html.unescape(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL)] for row in rows]
    if form == "latex":
        body = text.partition("\\midrule\n")[2].partition("\\bottomrule")[0]
        rows = [line.removesuffix(" \\\\") for line in body.splitlines()]
        return [[_unmarked(cell) for cell in re.split(r"(?<!\\) & ", row)] for row in rows]
    assert form == "text"
    lines = text.partition("\n\n")[0].splitlines()[1:]
    return [re.split(r"\s{2,}", line) for line in lines]


def _unmarked(cell: str) -> str:
    number = re.search(r"(\\num\{|\\bfseries |^\{?)([\d.]+)( \+- [\d.]+)?", cell)
    if number and not cell[:1].isalpha():
        disturbed = " (disturbed)" if "dagger" in cell else ""
        return number[2] + (number[3] or "").replace("+-", "±") + disturbed
    return "-" if cell in ("--", "{--}") else cell


@pytest.mark.parametrize("form", ["text", "markdown", "html", "latex"])
def test_the_digits_for_people_are_those_of_the_exact_numbers(frame: pd.DataFrame, form: str) -> None:
    chosen = labelled(frame, NAMES)
    rows = cells_of(form, str(rendered(form, frame, lambda: sheet(frame, chosen))))
    assert len(rows) == len(frame)
    for row, (_, exact) in zip(rows, frame.iterrows(), strict=True):
        for name, text in zip(NAMES, row[2:6] if form != "text" else row[-5:-1], strict=True):
            if text == "-":
                assert pd.isna(exact[name])
                continue
            number = text.partition(" ")[0]
            digits = len(number.partition(".")[2])
            assert float(number) == pytest.approx(exact[name], abs=0.5000001 * 10.0**-digits), (name, text)


def test_programs_get_the_exact_numbers(frame: pd.DataFrame) -> None:
    chosen = labelled(frame, NAMES)
    data = titled(frame, shown_columns(frame, chosen))
    view = sheet(frame, chosen)
    csv = pd.read_csv(io.StringIO(str(rendered("csv", data, lambda: view))), keep_default_na=False, na_values=[""])
    parquet = pd.read_parquet(io.BytesIO(rendered("parquet", data, lambda: view)))  # type: ignore[arg-type]
    document = json.loads(rendered("json", data, lambda: view))
    rows = pd.DataFrame(document["rows"])
    for found in (csv, parquet, rows):
        assert list(found.columns) == list(data.columns)
        assert found["attention"].tolist() == frame["attention"].tolist()
        for name in NAMES:
            np.testing.assert_array_equal(found[name].astype(float), frame[name].astype(float))
    assert document["columns"]["gmacs"] == {
        "text": "multiply-adds of products and convolutions for an image", "unit": "1e9", "better": "lower"
    }  # fmt: skip


def test_all_columns_go_through_json_and_parquet(frame: pd.DataFrame) -> None:
    view = sheet(frame)
    rows = json.loads(rendered("json", frame, lambda: view))["rows"]
    assert rows[0]["train_loss"] == "nan"
    back = pd.read_parquet(io.BytesIO(rendered("parquet", frame, lambda: view)))  # type: ignore[arg-type]
    assert back["train.seed"].tolist() == frame["train.seed"].tolist()
    assert back.shape == frame.shape


def test_texts_of_records_are_escaped(frame: pd.DataFrame) -> None:
    view = sheet(frame)
    page = str(rendered("html", frame, lambda: view))
    assert "<script>alert" not in page
    assert html.unescape(page).count("<script>alert(1)</script>") >= 2
    latex = str(rendered("latex", frame, lambda: view))
    assert r"a\_b \& 50\% \$x\$ \{y\} \#1 \textasciitilde{} \textasciicircum{} \textbackslash{}z" in latex


def test_the_best_is_bold_the_second_underlined_and_the_disturbed_has_a_dagger(frame: pd.DataFrame) -> None:
    view = sheet(frame, labelled(frame, NAMES))
    accuracies = frame.groupby("backbone")["top1"]
    position = view.headers.index("top1")
    assert {row for row, column in view.best if column == position} == set(accuracies.idxmax())
    speeds = view.headers.index("images_per_s")
    (disturbed,) = frame.index[frame["infer_disturbed"].notna()].tolist()
    assert (disturbed, speeds) not in view.best | view.second
    latex = str(rendered("latex", frame, lambda: view))
    assert latex.count(r"\bfseries") == 8
    assert latex.count(r"\underline") == 8
    assert latex.count(r"\textdagger") == 2, "the number and the note"
    assert "one multiply-add counts as one" in latex.partition("\\begin{tabular}")[0]
    assert "percent of 50,000 images" in latex.partition("\\begin{tabular}")[0]


@pytest.mark.parametrize("form", ["text", "markdown", "html", "latex"])
def test_each_form_says_once_what_stands_behind_an_accuracy(frame: pd.DataFrame, form: str) -> None:
    legend = "the standard error from the choice of the images, in points"
    assert str(rendered(form, frame, lambda: sheet(frame))).count(legend) == 1
    assert legend not in str(rendered(form, frame, lambda: sheet(frame, labelled(frame, ["gmacs"]))))


@needs_latex
@pytest.mark.parametrize("columns", [NAMES, ()], ids=["chosen", "usual"])
def test_latex_compiles_without_a_warning(frame: pd.DataFrame, tmp_path: Path, columns: tuple[str, ...]) -> None:
    text = str(rendered("latex", frame, lambda: sheet(frame, labelled(frame, columns))))
    said = compiled(tmp_path, [text], r"\usepackage[T1]{fontenc}\usepackage{lmodern}")
    wrong = [line for line in said.splitlines() if re.search(r"Warning|Overfull|Missing character", line)]
    assert [line for line in wrong if "Label(s)" not in line] == []
    assert (tmp_path / "paper.pdf").read_bytes().startswith(b"%PDF")


def test_timm_format_has_timms_columns(frame: pd.DataFrame) -> None:
    text = str(rendered("timm", frame, lambda: sheet(frame)))
    found = pd.read_csv(io.StringIO(text))
    assert text.startswith("model,img_size,top1,top1_err,top5,top5_err,param_count,crop_pct,interpolation\n")
    assert found["top1"].is_monotonic_decreasing
    assert (found["top1"] + found["top1_err"]).round(3).tolist() == [100.0] * len(found)
    assert set(found["img_size"]) == {224}
    with pytest.raises(ValueError, match="--format timm is for accuracies, and no row has one"):
        rendered("timm", frame[["backbone", "attention", "params_m"]], lambda: sheet(frame))


@pytest.mark.parametrize(
    ("file", "name", "found"),
    [
        (None, None, "text"), (None, "json", "json"), ("a.csv", None, "csv"), ("a.TEX", None, "latex"),
        ("a.csv", "timm", "timm"), ("a.dat", "csv", "csv"), ("a.parquet", None, "parquet"),
    ],
)  # fmt: skip
def test_the_format_is_named_or_that_of_the_ending(file: str | None, name: str | None, found: str) -> None:
    assert format_of(Path(file) if file else None, name) == found
    assert found in FORMATS


@pytest.mark.parametrize(
    ("file", "name", "said"),
    [
        ("a.xlsx", None, "no format has the ending of a.xlsx; --format names one, or it ends with .txt, .csv, .md"),
        ("a.csv", "latex", "--format latex does not fit a.csv, which ends as csv; latex is .tex"),
        (None, "excel", "unknown format 'excel'; there are: text, csv"),
    ],
)
def test_what_does_not_fit_is_one_line(file: str | None, name: str | None, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}"):
        format_of(Path(file) if file else None, name)


@pytest.mark.parametrize("form", ["text", "markdown", "html", "latex"])
def test_an_empty_table_is_one(form: str) -> None:
    assert "backbone" in str(rendered(form, table([]), lambda: sheet(table([]))))


def test_numbers_of_a_column_stand_below_each_other_in_latex() -> None:
    rows = [["a", "1234.5"], ["b", "2.0"], ["c", "-"], ["d", "33.0 (disturbed)"]]
    view = Sheet(["x", "gmacs"], rows, frozenset({1}), second=frozenset({(1, 1)}))
    latex = str(rendered("latex", pd.DataFrame(), lambda: view))
    assert "S[table-format=4.1]" in latex
    assert r"{\phantom{000}\underline{\num{2.0}}}" in latex
    assert "& {--} \\\\" in latex
    assert "retain-explicit-plus=true" in latex, "siunitx takes the sign off +0.66 otherwise"
    assert r"{33.0\textsuperscript{\textdagger}}" in latex


def test_a_column_of_disturbed_numbers_has_daggers_and_an_option_its_hyphens_in_latex() -> None:
    view = Sheet(["x", "images_per_s"], [["a", "33.0 (disturbed)"]], frozenset({1}), ["run --retry-disturbed"])
    latex = str(rendered("latex", pd.DataFrame(), lambda: view))
    assert r"a & 33.0\textsuperscript{\textdagger} \\" in latex
    assert "(disturbed)" not in latex
    assert "run -{}-retry-disturbed" in latex

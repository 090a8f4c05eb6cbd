"""The page as a file: what is in it, and that no text of a record is markup."""

import json
import re
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import results
from results import tables
from results.figures import AXES, curves, ranks
from results.report.provenance import as_json
from tests.results.report.pages import EVIL, PAPER, RUN, data_of, fashion, full_page, page_of, quickstart
from tests.results.tables.test_evaluated import Evaluated

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> str:
    return full_page(tmp_path_factory.mktemp("page") / "fashion")


class Elements(HTMLParser):
    """The names of the elements of a page, and the attributes that lead elsewhere."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.links: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "action", "srcset", "data")]


def test_the_files_of_the_page_are_packaged() -> None:
    for name in ("page.html", "page.css", "page.js"):
        assert (files("results.report") / name).is_file()


def test_it_leads_nowhere_else(full: str) -> None:
    found = Elements(full)
    assert all(link.startswith("#") for link in found.links), found.links
    assert "default-src 'none'" in full


def test_texts_of_records_are_no_markup(full: str) -> None:
    assert EVIL not in full
    assert "<img" not in re.sub(r"<script.*?</script>", "", full, flags=re.DOTALL)
    assert Elements(full).names.count("script") == 3
    texts = str(data_of(full)["shared"])
    assert "window.evil = 1</script>" in texts, "nothing of it is lost"


@pytest.mark.parametrize("text", ["<", ">", "&", "\u2028", "\u2029", "</script>", "<!--", "\ud800", "é"])
def test_json_in_a_script(text: str) -> None:
    written = as_json({"a": text})
    assert not set(written) & set("<>&\u2028\u2029")
    assert written.encode()
    assert as_json({}) == "{}"


def test_sections_are_those_of_what_is_there(full: str) -> None:
    for heading in ("Results", "Figures", "Paired comparison", "Published numbers", "Missing and failed", "Methods"):
        assert f">{heading}</h2>" in full
    costs = [record for record in quickstart() if record.cell["task"]["name"] == "costs" and record.status == "done"]
    page = page_of(costs)
    assert ">Results</h2>" in page
    for heading in ("Paired comparison", "Published numbers", "Missing and failed"):
        assert f">{heading}</h2>" not in page
    assert "There is none: no bits" in page_of(costs, uncompared="no bits")


def test_numbers_lead_to_their_records(full: str) -> None:
    data = data_of(full)
    table = data["tables"]["results"]
    columns = {column["name"]: column for column in table["columns"]}
    assert columns["gmacs"]["task"] == "costs"
    assert columns["top1"]["task"] == "train"
    for position, row in enumerate(table["rows"]):
        value = columns["top1"]["values"][position]
        if value is not None:
            record = data["records"][row["train"]]
            metrics = dict(zip(data["shared"][record["names"]], record["values"], strict=True))
            assert metrics["top1"] == value
            low, high = (columns["top1"][end][position] for end in ("low", "high"))
            assert low < value < high
    assert columns["top5"]["hidden"]
    assert not columns["top1"].get("hidden")


def test_what_is_behind_a_number(full: str) -> None:
    data = data_of(full)
    records = {record["key"]: record for record in data["records"]}
    shared = data["shared"]
    run = records[RUN]
    assert run["run"]["epochs"] == [[1, 75.0, 1.0], [2, 80.0, 0.5], [3, 85.0, 1 / 3]]
    assert run["run"]["resumed"] == [1.5]
    assert [start.get("ended") for start in run["run"]["starts"]] == [None, "done"]
    assert shared[run["command"]] == f"attention-bench again {EVIL} --seed 0 --out again"
    assert shared[run["task"]["recipe"]["shared"]]["epochs"] == 3
    assert shared[run["environment"]]["commit"].startswith("7240aea")
    assert records["a" * 16]["disturbed"] == {"infer": f"a neighbour {EVIL}"}
    assert "RuntimeError" in shared[records["0" * 16]["error"]]
    certified = [each for each in data["records"] if each.get("certificates")]
    assert certified
    assert shared[certified[0]["certificates"][0]]["laws"]
    assert len(shared) == len({str(each) for each in shared}), "equal values are there once"


def test_many_rows_have_the_figures_that_do_not_label_each(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("results.report.drawn.MANY", 8)
    trained = fashion(tmp_path / "fashion")
    page = page_of([*trained, *quickstart()], comparisons=tables.comparisons(trained), curves=curves(trained))
    assert [figure["name"] for figure in data_of(page)["figures"]] == ["forest", "ranks"]


def test_ranks_are_those_of_the_figure() -> None:
    records = [record for record in quickstart() if record.metrics]
    (figure,) = (each for each in data_of(page_of(records))["figures"] if each["name"] == "ranks")
    own = ranks(tables.table(records, (), results.certificates()), "gmacs")
    choices = {choice["label"]: choice for choice in figure["choices"]}
    assert {"top-1 (%)", AXES["gmacs"]} <= set(choices)
    assert choices[AXES["gmacs"]]["spec"] == json.loads(json.dumps(own.spec))


def test_evaluations_are_those_of_compare(make: Any, tmp_path: Path) -> None:
    given = Evaluated(make, tmp_path)
    bits = np.arange(300) % 3 > 0
    given.add("swin_t", "softmax", bits)
    given.add("flatten_swin_t", "focused", bits | (np.arange(300) % 7 == 0))
    frame = tables.evaluations(given.records, "swin_t")
    page = page_of(given.records, evaluations=frame)
    assert ">Evaluations compared</h2>" in page
    data = data_of(page)
    table = data["tables"]["evaluations"]
    sheet = tables.evaluated_sheet(frame)
    assert [column["label"] for column in table["columns"]] == list(sheet.headers)
    keys = [[data["records"][number]["key"] for number in row["records"]] for row in table["rows"]]
    assert keys == [[key] for key in frame["key"]]
    assert table["notes"] == sheet.below
    assert "They are not: no bits." in page_of(given.records, unevaluated="no bits")


def test_methods_and_references_are_to_paste(full: str) -> None:
    text = re.sub(r"<[^>]*>", " ", full)
    assert "papers print the same number as FLOPs" in text
    assert "Differences from a baseline are paired" in text
    assert PAPER.arxiv in text


def test_sizes(full: str) -> None:
    assert len(full.encode()) < 2 * MIB
    records = [record for record in quickstart() if record.metrics]
    page = page_of(records)
    assert len(page.encode()) < 2 * MIB
    assert [figure["name"] for figure in data_of(page)["figures"]] == ["accuracy", "ranks", "breakdown"]
    choices = data_of(page)["figures"][0]["choices"]
    assert len(choices) > 4, "an accuracy has several costs to be drawn against"

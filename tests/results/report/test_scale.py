"""A page of many records: its size, and how long a browser takes to show it."""

import copy
from pathlib import Path

import pytest

from results import Record
from tests.nightly import LONG
from tests.results.report.conftest import Open
from tests.results.report.pages import page_of, quickstart
from tests.results.report.test_browser import RESULTS, column, explored, header

MIB = 1024 * 1024
RECORDS, SECONDS = 5000, 2.0


def many(number: int) -> list[Record]:
    """Costs, speed and training of ever other models, each with numbers, a date and a recipe of its own."""
    found: list[Record] = []
    three = [record for record in quickstart() if record.metrics and record.key != "a" * 16]
    three.sort(key=lambda record: (record.cell["backbone"]["name"], record.cell["backbone"]["attention"]))
    groups = [[r for r in three if r.cell["task"]["name"] == name] for name in ("costs", "speed", "train")]
    while len(found) < number:
        model = len(found) // 3
        for group in groups:
            record = group[model % len(group)]
            backbone = record.cell["backbone"] | {"name": f"backbone_{model // 40}", "num_classes": 10 + model}
            task = copy.deepcopy(record.cell["task"])
            if task["name"] == "train":
                task["recipe"]["lr"] = 0.001 * (1 + model % 7)
            metrics = {
                name: value * (1 + model / 9999) if isinstance(value, float) and name != "top5" else value
                for name, value in record.metrics.items()
            }
            environment = record.environment | {"date": f"2026-11-28T00:00:{len(found):06}"}
            cell = {"backbone": backbone, "task": task}
            found.append(Record(f"{len(found):016x}", cell, "done", metrics, environment, folder=Path("runs")))
    return found[:number]


@pytest.fixture(scope="module")
def big_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("many") / "report.html"
    commands = {f"{number:016x}": f"attention-bench run sweep --only {number}" for number in range(RECORDS)}
    path.write_text(page_of(many(RECORDS), commands=commands), encoding="utf-8")
    return path


def test_size(big_file: Path) -> None:
    assert big_file.stat().st_size < 20 * MIB


def test_rows_come_as_the_reader_goes_down(open_page: Open, big_file: Path) -> None:
    page = open_page(big_file)
    assert page.locator(f"{RESULTS} output").inner_text() == "1,667 rows"
    assert len(column(page, "top1")) == 100
    page.locator(f"{RESULTS} .scroll").evaluate("(box) => { box.scrollTop = box.scrollHeight; }")
    page.wait_for_function("document.querySelectorAll('[data-table=results] tbody tr').length === 200")
    header(page, "top1").click()
    assert len(column(page, "top1")) == 100
    explored(page)
    assert page.locator("#art canvas").count() == 1


@LONG
def test_time(open_page: Open, big_file: Path) -> None:
    took = []
    for _ in range(3):
        page = open_page(big_file)
        took.append(page.evaluate("Number(document.documentElement.dataset.ready)") / 1000)
    assert min(took) < SECONDS, took

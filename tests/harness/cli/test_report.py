"""report: the page of folders and sweeps, commands that mean the cells they stand beside, and refusals."""

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

import results
from tests.harness.command_line import SHORT, Ask, photos, refused
from tests.results.conftest import Make
from tests.results.figures.common import FASHION, QUICKSTART
from tests.results.figures.test_reading import POINTS
from tests.results.report.pages import data_of
from tests.results.tables.test_evaluated import Evaluated

LEFT = "42ead137b9000bb7"
"""A training among those of Fashion-MNIST."""


@pytest.fixture
def runs(ask: Ask) -> None:
    shutil.copytree(QUICKSTART, "runs")
    shutil.copytree(FASHION, "seeds")


@pytest.mark.usefixtures("runs")
def test_a_page_of_a_folder(ask: Ask) -> None:
    answer = ask("report seeds -o report.html")
    assert (answer.status, answer.out, answer.err) == (0, "", "wrote report.html\n")
    page = Path("report.html").read_text()
    assert "<title>seeds</title>" in page
    assert "@inproceedings{han2023focused," in page
    data = data_of(page)
    assert data["tables"]["pairs"]["count"] == 4
    assert [figure["name"] for figure in data["figures"]] == ["forest"]
    assert len(data["records"]) == 20


@pytest.mark.usefixtures("runs")
def test_further_figures(ask: Ask) -> None:
    assert ask("figure breakdown runs --title 'Where they go' -o parts.json").status == 0
    assert ask("figure forest seeds -o forest.json").status == 0
    answer = ask("report seeds --figure parts.json forest.json -o a.html")
    assert (answer.status, answer.err) == (0, "wrote a.html\n")
    page = Path("a.html").read_text()
    for place, heading in enumerate(("Where they go", "forest"), 1):
        assert f'<h2 id="further-{place}" tabindex="-1">{heading}</h2>' in page
    assert len(data_of(page)["further"]) == 2


def test_evaluations_of_the_same_images_are_compared(ask: Ask) -> None:
    given = Evaluated(Make, Path("runs"))
    bits = np.arange(300) % 3 > 0
    given.add("swin_t", "softmax", bits)
    results.write(Path("runs"), given.records[0])
    assert ask("report -o a.html").status == 0
    assert "Evaluations compared" not in Path("a.html").read_text(), "there is nothing to compare it with"
    results.write(Path("runs"), given.add("flatten_swin_t", "focused", bits | (np.arange(300) % 7 == 0)))
    for baseline in ("softmax", "swin_t", "flatten_swin_t.pth"):
        assert ask(f"report --baseline {baseline} -o a.html").status == 0
        assert data_of(Path("a.html").read_text())["tables"]["evaluations"]["count"] == 2
    assert "no evaluation here is of 'hay'" in refused(ask, "report --baseline hay -o a.html")
    results.write(Path("runs"), given.add("swin_s", "softmax", ~bits))
    assert ask("report -o a.html").status == 0
    assert "They are not: the baseline &#39;softmax&#39; fits several: swin_s" in Path("a.html").read_text()


@pytest.mark.usefixtures("runs")
def test_a_sweep_has_its_missing_cells(ask: Ask) -> None:
    assert ask("report fashion_mnist --out runs --out seeds --title 'Two folders' -o a.html").status == 0
    page = Path("a.html").read_text()
    assert "<title>Two folders</title>" in page
    assert "lacking" not in data_of(page)["tables"]
    next(Path("seeds").glob("*.json")).unlink()
    assert ask("report fashion_mnist --out seeds -o a.html").status == 0
    lacking = data_of(Path("a.html").read_text())["tables"]["lacking"]
    assert lacking["count"] == 1


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("sweep", ["", "quickstart "])
def test_each_command_means_its_record(ask: Ask, sweep: str) -> None:
    assert ask(f"report {sweep}--out runs -o a.html").status == 0
    data = data_of(Path("a.html").read_text())
    assert len(data["records"]) == 24
    for record in data["records"]:
        program, *words = shlex.split(data["shared"][record["command"]])
        assert program == "attention-bench"
        answer = ask(shlex.join([*words, "--dry-run"]))
        assert answer.status == 0, answer.err
        assert [line.split()[0] for line in answer.out.splitlines()] == [record["key"]]


def test_published_numbers_stand_beside_recorded_ones(ask: Ask) -> None:
    assert ask("run --backbone deit_t --task costs").status == 0
    assert ask("report -o a.html").status == 0
    table = data_of(Path("a.html").read_text())["tables"]["published"]
    labels = [column["label"] for column in table["columns"]]
    assert "params_m, theirs" in labels
    assert all(row["records"] == [0] for row in table["rows"])
    assert table["count"] >= 1


@pytest.mark.usefixtures("runs")
def test_a_damaged_record_is_named_in_the_page(ask: Ask) -> None:
    next(Path("runs").glob("*.json")).write_text("{")
    answer = ask("report runs -o a.html")
    assert answer.status == 1
    assert "damaged, skipped" in answer.err
    assert "Damaged, left out: " in Path("a.html").read_text()


@pytest.mark.usefixtures("runs")
def test_a_page_says_nothing_of_the_machine_it_was_made_on(ask: Ask, tmp_path: Path) -> None:
    Path("anna").mkdir()
    shutil.copytree("seeds", "anna/runs")
    Path("ben").mkdir()
    shutil.copytree("seeds", "ben/runs")
    path = Path(f"ben/runs/{LEFT}.json")
    record = json.loads(path.read_text())
    record["metrics"]["loop_images_per_s"] = 1.0
    record["environment"]["host"] = "bens-machine"
    record["cell"]["task"]["data"]["root"] = "/home/ben/photos"
    path.write_text(json.dumps(record))
    Path("anna/runs/broken.json").write_text("{")
    assert ask(f"report {tmp_path}/anna/runs {tmp_path}/ben/runs -o a.html").status == 1
    page = Path("a.html").read_text()
    for secret in (str(tmp_path), "bens-machine", "/home/ben"):
        assert secret not in page
    for said in ("anna/runs", "ben/runs", "anna/runs/broken.json", '"photos"'):
        assert said in page


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_a_training_without_its_images_is_left_out_and_named_everywhere(ask: Ask, damage: str) -> None:
    bits = Path(f"seeds/{LEFT}/correct.npy")
    bits.unlink() if damage == "missing" else bits.write_bytes(b"damaged")
    said = f"not compared, as it is not known which images were right: seed 4 ({LEFT}/correct.npy: "
    answer = ask("compare seeds")
    assert answer.status == 0
    assert said in answer.out
    answer = ask("figure forest seeds -o a.svg")
    assert answer.status == 0
    assert said in answer.err
    assert ask("report seeds -o a.html").status == 0
    data = data_of(Path("a.html").read_text())
    assert any(said in note for note in data["tables"]["pairs"]["notes"])
    assert data["tables"]["pairs"]["count"] == 4


@pytest.mark.usefixtures("runs")
def test_without_any_images_nothing_is_compared(ask: Ask) -> None:
    for bits in Path("seeds").glob("*/correct.npy"):
        bits.unlink()
    said = "nothing to compare, as it is not known which images were right: "
    assert said in refused(ask, "compare seeds")
    assert said in refused(ask, "figure forest seeds -o a.svg")
    assert ask("report seeds -o a.html").status == 0
    assert said in Path("a.html").read_text()


@pytest.mark.usefixtures("runs")
def test_a_foreign_record_with_a_text_for_an_accuracy_is_shown_as_it_is(ask: Ask) -> None:
    record = json.loads(Path(f"seeds/{LEFT}.json").read_text())
    record["metrics"]["top1"] = "high"
    Path(f"seeds/{LEFT}.json").write_text(json.dumps(record))
    shutil.rmtree(f"seeds/{LEFT}")
    assert ask("report seeds -o a.html").status == 0
    assert "high" in Path("a.html").read_text()


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("runs -o a.pdf", "a.pdf: a report ends in .html or .htm"),
        ("runs -o a", "a: a report ends in .html or .htm"),
        ("runs -o folder.html", "cannot write folder.html: it is a folder"),
        ("runs -o a.html/a.html", "cannot write a.html/a.html: a.html is a file"),
        ("nowhere/runs -o a.html", "there is no folder nowhere/runs"),
        ("--out nowhere -o a.html", "there is no folder nowhere"),
        ("empty -o a.html", "there are no records in empty"),
        ("fashion_mnist --out empty -o a.html", "there are no records of fashion_mnist in empty"),
        ("quikstart -o a.html", "unknown sweep 'quikstart'"),
        ("seeds --figure nowhere.json -o a.html", "nowhere.json: cannot be read: No such file"),
        (f"seeds --figure seeds/{LEFT}.json -o a.html", "no specification of Vega-Lite 6"),
        ("seeds --figure loads.json -o a.html", "loads.json: a figure of a page loads nothing"),
        ("seeds --baseline hay -o a.html", "no trained model here has the attention 'hay'"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(ask: Ask, line: str, said: str) -> None:
    for folder in ("folder.html", "empty"):
        Path(folder).mkdir()
    Path("loads.json").write_text(json.dumps(POINTS | {"data": {"url": "http://127.0.0.1/a.csv"}}))
    Path("a.html").write_text("kept")
    assert said in refused(ask, f"report {line}")
    assert Path("a.html").read_text() == "kept"


MINE = '''"""My attention: nothing but the values. Doe et al., NeurIPS 2031, arXiv 3101.00001."""
from attentions import Attention, Macs, register

@register("mine")
class Mine(Attention):
    def forward(self, q, k, v, *, bias=None, x=None, regions=None):
        return v.mean(dim=1, keepdim=True).expand_as(q)

    def macs(self):
        return Macs(attention=0)
'''

LINES = (
    "run --backbone deit_micro swin_micro --attention linear --task costs --set num_classes=7",
    f"{SHORT} label_smoothing=0.1 evaluation=short_side:0.9 --attention focused --seed 3",
    "run --import mine.py --backbone deit_micro --attention mine --task costs",
)


@pytest.mark.usefixtures("users_attentions")
def test_commands_have_options_changes_and_files_of_the_user(ask: Ask) -> None:
    photos()
    Path("mine.py").write_text(MINE)
    for line in LINES:
        assert ask(line).status == 0
    assert ask("report --import mine.py -o a.html").status == 0
    page = Path("a.html").read_text()
    assert "@misc{doe2031mine," in page
    data = data_of(page)
    assert len(data["records"]) == 4
    for record in data["records"]:
        _, *words = shlex.split(data["shared"][record["command"]])
        assert ("--import" in words) == ("mine" in words)
        answer = ask(shlex.join([*words, "--dry-run"]))
        assert [line.split()[0] for line in answer.out.splitlines()] == [record["key"]], words


def test_a_cell_that_no_line_describes_has_no_command(ask: Ask) -> None:
    Path("own.py").write_text(OWN)
    assert ask("run own.py:few").status == 0
    assert ask("report -o a.html").status == 0
    (record,) = data_of(Path("a.html").read_text())["records"]
    assert "command" not in record
    assert ask("report own.py:few -o a.html").status == 0
    data = data_of(Path("a.html").read_text())
    (record,) = data["records"]
    assert data["shared"][record["command"]].startswith("attention-bench run own.py:few --only ")


OWN = """
from dataclasses import replace

from backbones import preset
from harness.cells import Cell, Costs

def few():
    return [Cell(replace(preset("deit_micro", num_classes=77), name="my own"), Costs())]
"""

"""table, compare and reproduce: what is recorded on the screen, as Markdown and as CSV, and what is damaged."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import backbones
import results
from backbones import preset, to_official
from harness.published import models, official
from results import tables
from tests.harness.command_line import SHORT, Ask, photos, records, refused
from tests.results.figures.common import FASHION

# table


def test_tables(ask: Ask, measured: Path) -> None:
    """Plain, of a sweep, as Markdown, and as CSV at full precision."""
    shutil.copytree(measured, "runs")
    (focused,) = (r for r in records() if r.cell["backbone"]["attention"].startswith("focused"))
    Path(f"runs/{focused.key}.json").unlink()
    plain = ask("table")
    assert (plain.status, plain.err) == (0, "")
    header, *rows = plain.out.partition("\n\n")[0].splitlines()
    columns = ["backbone", "attention", "params_m", "gmacs", "gmacs_fvcore", "certificate", "status"]
    assert header.split() == columns
    assert [row.split()[:3] for row in rows] == [["deit_micro", "linear", "0.21"], ["deit_micro", "softmax", "0.21"]]

    of_sweep = ask("table my_sweeps.py:costs")
    assert of_sweep.status == 0
    rows = of_sweep.out.partition("\n\n")[0].splitlines()[1:]
    assert [row.split()[1] for row in rows] == ["softmax", "linear", "focused"], "in the order of the sweep"
    assert ["missing" in row for row in rows] == [False, False, True]

    markdown = ask("table --format markdown").out
    assert markdown.startswith("| backbone | attention | params_m |")
    assert markdown.splitlines()[1].startswith("| --- | --- | ---: |")
    assert "| deit_micro | softmax | 0.21 |" in markdown

    chosen = ask("table --columns gmacs_attention gmacs_mlp")
    columns = ["backbone", "attention", "gmacs_attention", "gmacs_mlp", "certificate", "status"]
    assert chosen.out.split("\n")[0].split() == columns

    written = ask("table my_sweeps.py:costs --csv tables/costs.csv")
    assert written.status == 0
    assert written.err == "wrote tables/costs.csv\n"
    frame = pd.read_csv("tables/costs.csv").set_index("attention")
    assert list(frame["status"]) == ["done", "done", "missing"]
    for record in records():
        row = frame.loc[record.cell["backbone"]["attention"]]
        for name, value in record.metrics.items():
            assert row[name] == value, name
        assert row["record.costs.key"] == record.key


@pytest.mark.parametrize("form", ["text", "csv", "markdown", "latex", "json"])
def test_what_is_not_styled_is_printed_as_it_is_written(
    ask: Ask, measured: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    assert ask(f"table --out {measured} --format {form} -o table.any").status == 0
    for way in ("print", "out"):
        monkeypatch.setattr(f"harness.cli.sheets.out_console.{way}", None)  # minutes for many records
    printed = ask(f"table --out {measured} --format {form}")
    assert (printed.status, printed.out) == (0, Path("table.any").read_text())


def test_a_folder_by_several_paths_is_read_once(ask: Ask, measured: Path) -> None:
    shutil.copytree(measured, "runs")
    Path("runs/broken.json").write_text("{")
    Path("link").symlink_to("runs")
    found = ask(f"table runs {Path('runs').resolve()} link --out runs/")
    assert found.err.count("damaged, skipped: runs/broken.json") == 1
    assert found.err.count("damaged") == 1
    assert "folder" not in found.out.splitlines()[0]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("table quikstart --out .", "no folder quikstart; unknown sweep 'quikstart'; did you mean quickstart?"),
        ("reproduce flaten", "no published tables of 'flaten'; there are: flatten"),
    ],
)
def test_unknown_names_are_refused(ask: Ask, line: str, said: str) -> None:
    assert said in refused(ask, line)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("table", "there is no folder runs"),
        ("table --out nowhere", "there is no folder nowhere"),
        ("table --out my_sweeps.py", "there is no folder my_sweeps.py"),
        ("table nowhere", "there is no folder nowhere; unknown sweep 'nowhere' (allowed: "),
        ("table quickstart", "there is no folder runs"),
        ("table file.json", "file.json is a file; allowed are folders of records, and sweeps"),
        ("table --out empty", "there are no records in empty"),
        ("table my_sweeps.py:costs --out empty --columns nonsense", "no column 'nonsense'"),
        ("table my_sweeps.py:costs --out empty --sort status:up", "--sort status:up: the direction is asc or desc"),
    ],
)
def test_tables_of_nothing_are_refused(ask: Ask, line: str, said: str) -> None:
    Path("empty").mkdir()
    Path("file.json").write_text("{}")
    assert said in refused(ask, line)


DAMAGES: dict[str, Callable[[Path, Path], object]] = {
    "truncated": lambda path, other: path.write_bytes(path.read_bytes()[:300]),
    "empty": lambda path, other: path.write_bytes(b""),
    "garbage": lambda path, other: path.write_bytes(bytes(range(256)) * 4),
    "no record": lambda path, other: path.write_text('{"a": 1}'),
    "a list": lambda path, other: path.write_text("[1, 2]"),
    "another's content": lambda path, other: path.write_bytes(other.read_bytes()),
    "no metrics": lambda path, other: path.write_text(json.dumps(json.loads(path.read_text()) | {"metrics": None})),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_named_and_the_others_tabulated(ask: Ask, measured: Path, damage: str) -> None:
    shutil.copytree(measured, "runs")
    broken, other, _ = sorted(Path("runs").glob("*.json"))
    attention = results.read(broken).cell["backbone"]["attention"].partition("(")[0]
    DAMAGES[damage](broken, other)
    answer = ask("table")
    assert answer.status == 1
    assert answer.err.startswith("attention-bench: ")
    assert answer.err.count("\n") == 1
    assert str(broken) in answer.err
    table = answer.out.partition("\n\n")[0]
    assert table.count("deit_micro") == 2
    assert attention not in table
    # Of a sweep, the cell is missing; it runs again when asked for, and the damaged file is kept.
    content = broken.read_bytes()
    answer = ask("table my_sweeps.py:costs")
    assert answer.status == 1
    assert answer.out.count("missing (costs)") == 1
    answer = ask("run my_sweeps.py:costs")
    assert answer.status == 0
    assert "2 of 3 cells are recorded" in answer.out
    assert broken.with_suffix(".damaged").read_bytes() == content
    assert ask("table").status == 0


def test_nothing_but_damaged_records(ask: Ask) -> None:
    Path("runs").mkdir()
    Path("runs/one.json").write_text("{")
    Path("table.csv").write_text("of yesterday")
    answer = ask("table -o table.csv")
    assert answer.status == 2
    damaged, nothing = answer.err.splitlines()
    assert "runs/one.json: not a complete JSON file" in damaged
    assert nothing == "attention-bench: there are no whole records in runs"
    assert Path("table.csv").read_text() == "of yesterday"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "table runs --where seed=0 --where seed=1",
            "--where is given twice; its values follow one --where: --where",
        ),
        (
            "compare runs --baseline linear --baseline softmax",
            "--baseline is given twice; it takes one value",
        ),
        ("table runs -o a.csv -o b.csv", "-o is given twice; it takes one value: -o FILE"),
        ("table runs --output=a.csv -o b.csv", "-o is given twice"),
        ("figure forest runs --baseline=a --baseline b -o a.pdf", "--baseline is given twice"),
        ("reproduce flatten --out one --out two", "--out is given twice; it takes one value: --out FOLDER"),
        ("show deit_t --set window=7 --set heads=3", "--set is given twice"),
    ],
)
def test_an_option_is_given_once(ask: Ask, line: str, said: str) -> None:
    assert said in refused(ask, line)
    assert not list(Path().glob("a.*"))


def test_reproduce_looks_at_its_files_before_its_work(ask: Ask) -> None:
    assert "no format has the ending of table.xyz" in refused(ask, "reproduce flatten -o table.xyz")
    assert not Path("runs").exists()


# compare


def test_compare_pairs_images_and_seeds(ask: Ask) -> None:
    photos()
    for attention in ("softmax", "linear"):
        assert ask(f"{SHORT} --attention {attention} --seed 0 1").status == 0
    answer = ask("compare --csv paired.csv")
    assert (answer.status, answer.err) == (0, "wrote paired.csv\n")
    lines = answer.out.splitlines()
    assert re.match(r"deit_micro +softmax +2 .* baseline$", lines[1])
    assert re.match(r"deit_micro +linear +2 .* (better|worse|not distinguishable)$", lines[2])
    assert Path("paired.csv").read_text().count("\n") == 3
    assert "| linear" in ask("compare --format markdown").out
    assert "there are: " in refused(ask, "compare --baseline focused")
    assert "there is no folder nowhere" in refused(ask, "compare --out nowhere")


@pytest.mark.parametrize(
    ("where", "attentions"),
    [
        ("attention=softmax,linear", ["softmax", "linear"]),
        ('"attention=softmax,focused(focusing_factor=3, kernel_size=5)" seed=0,1,2', ["softmax", "focused"]),
        ('"attention=softmax,focused(focusing_factor=3, kernel_size=5) seed=0,1,2"', ["softmax", "focused"]),
    ],
)
def test_compare_of_some(ask: Ask, where: str, attentions: list[str]) -> None:
    shutil.copytree(FASHION, "runs")
    answer = ask(f"compare --where {where}")
    assert answer.status == 0
    rows = [line.split() for line in answer.out.partition("\n\n")[0].splitlines()[1:]]
    assert [row[1] for row in rows] == attentions
    assert {row[2] for row in rows} == {"3" if "seed" in where else "5"}
    assert "no row has seed=7; seed is " in refused(ask, "compare --where seed=7")


# reproduce


@pytest.fixture
def imagenet_of_a_sort(ask: Ask) -> None:
    """imagenet/val: 1,000 classes, an image each of noise. weights: an official file of PVTv2-B0, of random weights."""
    for number in range(1000):
        folder = Path(f"imagenet/val/n{number:08d}")
        folder.mkdir(parents=True)
        pixels = np.random.default_rng(number).integers(0, 256, (9, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "a.png")
    Path("weights").mkdir()
    spec = preset("pvt_v2_b0")
    torch.save({"model": to_official(backbones.build(spec).state_dict(), spec)}, "weights/pvt_v2_b0.pth")


@pytest.mark.usefixtures("imagenet_of_a_sort")
def test_reproduce_evaluates_the_official_files_that_are_there(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "published_rows", few(tables.published_rows))
    # A PVTv2 is the same at every size; of 224 pixels, its evaluation would take a minute here.
    for module in (official, models):
        monkeypatch.setattr(module, "preset", lambda name, **values: preset(name, **{"image_size": 32, **values}))
    line = "reproduce flatten --data imagenet --weights weights --workers 0"
    assert "is not ImageNet-1K: val has 1,000 images instead of 50,000" in refused_after_missing(ask, line)
    answer = ask(f"{line} --allow-partial-data --csv rows.csv")
    assert answer.status == 0
    missing = [text for text in answer.err.splitlines() if text.startswith("no weights for ")]
    assert len(missing) == len(official.OFFICIAL) - 1
    assert "no weights for swin_t: swin_tiny_patch4_window7_224.pth is not in weights" in missing
    (record,) = [record for record in records() if record.cell["task"]["name"] == "evaluate"]
    assert record.metrics["n_images"] == 1000
    assert record.cell["task"]["preprocessing"]["kind"] == "short_side"
    rows = [text for text in answer.out.splitlines() if text.startswith("PVTv2-B0 at 224")]
    assert len(rows) == 2
    assert all("partial: 1000 images" in row for row in rows)
    assert Path("rows.csv").is_file()


def few(published):
    """The rows of the two smallest models: counting all of them takes a minute."""

    def rows(paper: str):
        frame = published(paper)
        return frame[frame["model"].isin(["PVTv2-B0", "DeiT-T"])]

    return rows


def refused_after_missing(ask: Ask, line: str) -> str:
    answer = ask(line)
    assert answer.status == 2
    assert answer.out == ""
    return answer.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--data photos", "--data and --weights go together"),
        ("--weights photos", "--data and --weights go together"),
        ("--allow-partial-data", "--allow-partial-data has no effect without --data and --weights"),
        ("--device cuda", "--device has no effect without --data and --weights"),
        ("--precision bf16", "--precision has no effect without --data and --weights"),
        ("--workers 3", "--workers has no effect without --data and --weights"),
        ("--cache crops", "--cache has no effect without --data and --weights"),
        ("--data photos --weights photos --workers -1", "--workers -1: it takes a number from 0 up"),
        ("--data photos --weights nowhere", "weights folder nowhere does not exist"),
        ("--data photos --weights photos", "no official weights in photos; files are recognised by name"),
    ],
)
def test_reproduce_refuses(ask: Ask, line: str, said: str) -> None:
    photos()
    assert said in refused(ask, f"reproduce flatten {line}")

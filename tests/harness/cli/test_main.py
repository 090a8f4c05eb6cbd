"""The command line as a person meets it: what it prints, what it writes, its exit status, and what it refuses."""

import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
import torch
from rich.console import Console

import backbones
import results
from harness.cells import Speed
from harness.cli import selection
from harness.runner.run_all import run_all
from harness.sweeps.expand import SWEEPS, expand
from tests.harness.command_line import SWEEPS_FILE, Ask, images, photos, records, refused, tree

ROOT = Path(__file__).parents[3]
PATIENCE = 240.0
"""Seconds after which a process that should have got somewhere has hung."""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The records of my_sweeps.py:costs, to be copied."""
    folder = tmp_path_factory.mktemp("measured")
    (folder / "my_sweeps.py").write_text(SWEEPS_FILE)
    run_all(expand(f"{folder / 'my_sweeps.py'}:costs"), folder / "runs", Console(file=io.StringIO()))
    return folder / "runs"


# Help is quick, because nothing heavy is imported for it


def modules_after(command: str, cwd: Path) -> set[str]:
    """Top-level modules that a command line imports, in a process of its own."""
    code = (
        "import sys\n"
        "from harness.cli.main import main\n"
        "try:\n"
        "    status = main(sys.argv[1:])\n"
        "except SystemExit as leave:\n"
        "    status = leave.code\n"
        "print('\\n', *{name.partition('.')[0] for name in sys.modules})\n"
        "sys.exit(status)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *shlex.split(command)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("command", ["--help", "run --help", "show --help", "table --help"])
def test_help_imports_nothing_heavy(command: str, tmp_path: Path) -> None:
    loaded = modules_after(command, tmp_path)
    assert "harness" in loaded
    assert not loaded & {"torch", "torchvision", "timm", "fvcore", "pandas", "numpy", "scipy"}


def test_a_table_of_records_needs_no_torch(measured: Path, tmp_path: Path) -> None:
    shutil.copytree(measured, tmp_path / "runs")
    loaded = modules_after("table --csv table.csv", tmp_path)
    assert "pandas" in loaded
    assert not loaded & {"torch", "timm", "fvcore"}


def test_help_names_every_command(ask: Ask) -> None:
    answer = ask("--help")
    assert answer.status == 0
    assert all(f"• {command} " in answer.out for command in ("list", "show", "run", "table", "reproduce"))


# Bad input: one clear line, exit status 2, nothing written


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("show swin_x", "unknown preset 'swin_x'; did you mean swin_t or swin_s or swin_b?"),
        ("run --backbone pvt_x --task costs", "unknown preset 'pvt_x'; did you mean pvt_"),
        ("show swin_t --attention fokused", "unknown attention 'fokused'; did you mean focused? (allowed: "),
        (
            "show swin_t --attention 'focused(focusing=4)'",
            "unknown option of focused 'focusing'; did you mean focusing_factor? (allowed: focusing_factor, kernel",
        ),
        ("show swin_t --attention 'focused(4)'", "cannot read attention 'focused(4)'; write it as in focused("),
        ("show swin_t --attention ''", "cannot read attention ''"),
        ("show swin_t --attention 'focused(kernel_size=4)'", "kernel_size=4 is not allowed"),
        ("show swin_t --attention 'focused(kernel_size=x)'", "kernel_size='x' is not allowed"),
        ("show swin_t --attention 'softmax(fused=1)'", "fused=1 is not allowed; it takes bool"),
        ("run quikstart", "unknown sweep 'quikstart'; did you mean quickstart?"),
        ("table quikstart --out .", "unknown sweep 'quikstart'; did you mean quickstart?"),
        ("run --backbone swin_t --task cost", "unknown task 'cost'; did you mean costs? (allowed: costs, speed, tr"),
        ("show swin_t --set windw=7", "unknown override of swin_t (swin) 'windw'; did you mean window?"),
        ("show pvt_t --set window=7", "unknown override of pvt_tiny (pvt) 'window'"),
        ("show swin_t --set window", "cannot read --set 'window'; write it as in --set window=7"),
        ("list backbone", "unknown kind 'backbone'; did you mean backbones?"),
        ("reproduce flaten", "no published tables of 'flaten'; there are: flatten"),
    ],
)
def test_unknown_names_are_refused(ask: Ask, line: str, said: str) -> None:
    assert said in refused(ask, line)


@pytest.mark.parametrize(
    ("preset", "value"),
    [
        ("swin_t", "name=other"),
        ("swin_t", "attention=3"),
        ("swin_t", "stages=5"),
        ("swin_t", "stages=LLX"),
        ("swin_t", "stages=None"),
        ("swin_t", "num_classes=many"),
        ("swin_t", "num_classes=0"),
        ("swin_t", "in_channels=3.5"),
        ("swin_t", "image_size=large"),
        ("swin_t", "image_size=(224,224,3)"),
        ("swin_t", "window=x"),
        ("swin_t", "window=2.5"),
        ("swin_t", "window=None"),
        ("swin_t", "window=0"),
        ("swin_t", "softmax_window=x"),
        ("swin_t", "dim=x"),
        ("swin_t", "dim=0"),
        ("swin_t", "heads=x"),
        ("swin_t", "heads=(3,6)"),
        ("swin_t", "heads=None"),
        ("swin_t", "block_counts=None"),
        ("swin_t", "block_counts=(2,2,0,2)"),
        ("swin_t", "patch_size=0"),
        ("swin_t", "mlp_ratio=x"),
        ("swin_t", "honour_shift_mask=maybe"),
        ("pvt_t", "sr_ratios=None"),
        ("pvt_t", "sr_ratios=abcd"),
        ("pvt_t", "dims=(64,128)"),
        ("pvt_t", "mlp_ratios=x"),
        ("pvt_t", "class_token=perhaps"),
        ("pvt_v2_b2_li", "pooled_keys=perhaps"),
        ("cswin_t", "split_size=0"),
        ("cswin_t", "split_size=x"),
        ("deit_t", "depth=x"),
        ("deit_t", "depth=0"),
        ("deit_t", "patch_size=None"),
        ("deit_t", "patch_size=0"),
        ("deit_t", "mlp_ratio=x"),
    ],
)
def test_values_of_the_wrong_kind_are_refused(ask: Ask, preset: str, value: str) -> None:
    assert value.partition("=")[0] in refused(ask, f"show {preset} --set '{value}'")


@pytest.mark.parametrize("text", ["false", "False", "no", "0"])
def test_a_text_for_no_never_means_yes(ask: Ask, text: str) -> None:
    """Refused, or read as False; a text that is not empty is true to Python."""
    answer = ask(f"show flatten_swin_t --set window=7 honour_shift_mask={text}")
    assert answer.status == 2 or "Shift mask of focused in shifted windows: ignored" in answer.out


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("show deit_t --set image_size=225", "multiples of 16 (near: 224x224)"),
        ("show pvt_t --set image_size=100", "multiples of 32 (near: 96x96)"),
        ("show swin_t --set image_size=225", "multiples of 4 (near: 224x224)"),
        ("show swin_t --set image_size=200", "7x7 windows do not tile"),
        ("show cswin_t --set image_size=200", "stripes of 2 do not tile"),
        ("run --backbone swin_micro --task costs --set image_size=33", "multiples of"),
        ("show swin_t --set dim=97", "3 heads do not divide 97 channels"),
        ("show deit_t --set heads=5", "5 heads do not divide 192 channels"),
        ("show pvt_t --set sr_ratios=3333", "a spatial reduction of 3 does not divide; allowed there: 1, 2, 4,"),
        ("show swin_t --set window=9", "9x9 windows do not tile; allowed for window there: 1, 2, 4, 7, 8, 14, 28, 56"),
    ],
)
def test_what_does_not_divide_is_refused(ask: Ask, line: str, said: str) -> None:
    assert said in refused(ask, line)


LAYOUTS: dict[str, tuple[str, ...]] = {
    "two": ("train/cat", "train/dog", "val/cat", "val/dog"),
    "no_val": ("train/cat", "train/dog"),
    "no_train": ("val/cat", "val/dog"),
    "flat_val": ("train/cat", "train/dog", "val"),
    "flat": ("train", "val"),
    "others": ("train/cat", "train/dog", "val/cat", "val/eel"),
    "one": ("train/cat", "val/cat"),
    "classes": ("cat", "dog"),
}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            "nowhere",
            "--data nowhere: no such folder, and no image set of this name (fashion_mnist_14k, ",
        ),
        ("my_sweeps.py", "is not a folder"),
        ("empty", "empty is empty; expected train/<class>/*.jpg and val/<class>/*.jpg"),
        ("no_val", "no_val has no folder 'val'"),
        ("no_train", "no_train has no folder 'train'"),
        ("classes", "classes has no folder 'train'"),
        ("flat_val", "flat_val/val/0.jpg is not in a class folder directly under"),
        ("flat", "is not in a class folder"),
        ("others", "train and val must have the same classes; only in train: dog; only in val: eel"),
        ("one", "has only the class 'cat'"),
        ("two", "two has 2 classes, the model 10: --set num_classes=2"),
    ],
)
def test_image_folders_amiss_are_refused(ask: Ask, data: str, said: str) -> None:
    Path("empty").mkdir()
    images([f"{data}/{folder}" for folder in LAYOUTS.get(data, ())], 1)
    assert said in refused(ask, f"run --backbone deit_micro --task costs train --data {data}")


def test_more_classes_than_the_embedded_images_have_are_refused(ask: Ask) -> None:
    assert "fashion_mnist_14k has 10 classes, the model 1000" in refused(ask, "run --backbone deit_t --task train")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--task costs --device cpu", "--device has no effect"),
        ("--task costs --epochs 1", "--epochs has no effect"),
        ("--task costs --seed 0", "--seed has no effect"),
        ("--task speed --data fashion_mnist_14k", "--data has no effect"),
        ("--task speed --epochs 1", "--epochs has no effect"),
        ("--task speed --workers 2", "--workers has no effect"),
        ("--task speed --device-batch 2", "--device-batch has no effect"),
        ("--task train --batch 8", "--batch has no effect"),
        ("--task train --channels-last", "--channels-last has no effect"),
        ("--task speed --device tpu", "unknown device 'tpu'; allowed"),
        ("--task train --device tpu", "unknown device 'tpu'; allowed"),
        ("--task speed --precision int8", "unknown precision 'int8'; allowed"),
        ("--task speed --mode fast", "unknown mode 'fast'; allowed"),
        ("--task speed --batch 0", "batch is 0; allowed"),
        ("--task train --epochs 0", "epochs"),
        ("--task train --seed -1", "seed"),
        ("--task costs --only nonsense", "--only nonsense: no cell holds this; the first is called 'deit_micro "),
    ],
)
def test_flags_without_effect_or_with_values_not_allowed_are_refused(ask: Ask, flags: str, said: str) -> None:
    assert said in refused(ask, f"run --backbone deit_micro {flags}")


def test_a_device_that_is_not_there_is_refused(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for task in ("speed", "train"):
        assert "no CUDA device" in refused(ask, f"run --backbone deit_micro --task {task} --device cuda")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("run", "name a sweep, or --backbone and --task"),
        ("run --backbone swin_t", "name a sweep, or --backbone and --task"),
        ("run --task costs", "name a sweep, or --backbone and --task"),
        ("run quickstart --backbone swin_t", "a sweep brings its own cells"),
        ("run quickstart --set window=7", "a sweep brings its own cells"),
        ("run quickstart --only nonsense", "--only nonsense: no cell holds this"),
    ],
)
def test_neither_sweep_nor_grid_or_both_are_refused(ask: Ask, line: str, said: str) -> None:
    assert said in refused(ask, line)


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        ("nowhere.py:costs", "there is no Python file 'nowhere.py'"),
        ("notes.txt:costs", "there is no Python file 'notes.txt'"),
        ("folder.py:costs", "there is no Python file 'folder.py'"),
        ("my_sweeps.py:cost", "has no function 'cost'"),
        ("my_sweeps.py:", "has no function ''"),
        ("my_sweeps.py:constant", "has no function 'constant'"),
        ("my_sweeps.py", "my_sweeps.py"),
        ("my_sweeps.py:number", "does not return a list of cells"),
        ("my_sweeps.py:nothing", "has no cells"),
        ("my_sweeps.py:Costs", "does not return a list of cells"),
        ("my_sweeps.py:needs_an_argument", "needs_an_argument"),
        ("my_sweeps.py:raises", "planted"),
        ("my_sweeps.py:leaves", "leaves"),
        ("my_sweeps.py:unknown_override", "unknown override of deit_micro (deit) 'window'"),
        ("syntax.py:costs", "syntax.py cannot be loaded: SyntaxError"),
        ("imports.py:costs", "imports.py cannot be loaded: ModuleNotFoundError: No module named 'nowhere'"),
        ("leaves.py:costs", "leaves.py cannot be loaded: SystemExit"),
        ("binary.py:costs", "binary.py cannot be loaded"),
    ],
)
@pytest.mark.parametrize("command", ["run", "table"])
def test_sweeps_of_the_users_own_that_are_wrong_are_refused(ask: Ask, command: str, sweep: str, said: str) -> None:
    Path("notes.txt").write_text("")
    Path("folder.py").mkdir()
    Path("syntax.py").write_text("def costs(:\n")
    Path("imports.py").write_text("import nowhere\n")
    Path("leaves.py").write_text("raise SystemExit(3)\n")
    Path("binary.py").write_bytes(bytes(range(256)))
    assert said in refused(ask, f"{command} {sweep} --out .")


@pytest.mark.parametrize("out", ["file", "file/below"])
@pytest.mark.parametrize("command", ["run my_sweeps.py:costs", "reproduce flatten"])
def test_an_output_folder_that_cannot_be_written_is_refused(ask: Ask, command: str, out: str) -> None:
    """A file in its way, which stops root too."""
    Path("file").write_text("")
    assert f"cannot write to the output folder {out}: " in refused(ask, f"{command} --out {out}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_an_output_folder_without_permission_is_refused(ask: Ask) -> None:
    Path("closed").mkdir(mode=0o500)
    assert "cannot write to the output folder closed: Permission denied" in refused(
        ask, "run my_sweeps.py:costs --out closed"
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("table", "there is no folder runs"),
        ("table --out nowhere", "there is no folder nowhere"),
        ("table --out my_sweeps.py", "there is no folder my_sweeps.py"),
        ("table --out empty", "there are no records in empty"),
        ("table my_sweeps.py:costs --out empty --columns nonsense", "no column 'nonsense'"),
    ],
)
def test_tables_of_nothing_are_refused(ask: Ask, line: str, said: str) -> None:
    Path("empty").mkdir()
    assert said in refused(ask, line)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("lst", "lst"),
        ("run quickstart paper_costs", "paper_costs"),
        ("run quickstart --onyl x", "--onyl"),
        ("run quickstart --epochs 1.5", "--epochs"),
        ("show", "attention-bench show"),
        ("table --csv", "--csv"),
    ],
)
def test_what_is_no_command_or_flag_is_named(ask: Ask, line: str, named: str) -> None:
    """tyro says so, in a box."""
    before = tree()
    answer = ask(line)
    assert answer.status == 2
    assert answer.out == ""
    assert named in answer.err
    assert tree() == before


def test_bad_input_in_a_process_of_its_own(tmp_path: Path) -> None:
    """Nothing else reaches a person either: no warning of a library, no traceback at exit."""
    done = subprocess.run(
        [sys.executable, "-m", "harness", "show", "swin_t", "--attention", "fokused"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"attention-bench: unknown attention 'fokused'; did you mean focused\?.*\n", done.stderr)


# What fails while cells run: a record, a named cause, exit status 1


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_unreadable_image_is_named_and_the_other_cells_go_on(ask: Ask, split: str) -> None:
    photos()
    broken = Path(f"photos/{split}/dog/1.jpg").resolve()
    broken.write_bytes(broken.read_bytes()[:100])
    if split == "train":  # each epoch leaves two of the 66 images out; not one of the broken ones, all of dog
        for path in broken.parent.iterdir():
            path.write_bytes(b"no image")
    answer = ask("run --backbone deit_micro --task train costs --set num_classes=3 --data photos --epochs 1")
    assert answer.status == 1
    named = [line for line in answer.out.splitlines() if "unreadable image" in line]
    assert named
    assert all(str(broken.parent if split == "train" else broken) in line for line in named)
    by_task = {record.cell["task"]["name"]: record for record in records()}
    assert by_task["train"].status == "failed"
    assert "unreadable image" in (by_task["train"].error or "")
    assert by_task["costs"].status == "done"


def test_fewer_images_than_a_batch_are_refused(ask: Ask) -> None:
    images([f"few/{split}/{name}" for split in ("train", "val") for name in ("cat", "dog")], 2)
    line = "run --backbone deit_micro --task train --set num_classes=2 --data few --epochs 1"
    assert "a batch of 64 needs as many training images; there are 4" in refused(ask, line)


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
    answer = ask("table")
    assert answer.status in (1, 2)
    assert "runs/one.json: not a whole JSON file" in answer.err


# Good paths


def test_a_sweep_of_the_users_own_is_measured_once(ask: Ask) -> None:
    first = ask("run my_sweeps.py:costs")
    assert (first.status, first.err) == (0, "")
    assert "[1/3] deit_micro softmax(fused=True) costs" in first.out
    assert "3 records in runs" in first.out
    assert sorted(record.status for record in records()) == ["done"] * 3
    assert len(list(Path("runs").glob("*.json"))) == 3
    before = tree()
    again = ask("run my_sweeps.py:costs")
    assert again.status == 0
    assert "3 of 3 cells are recorded in runs already" in again.out
    assert "[1/3]" not in again.out
    assert tree() == before


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

    markdown = ask("table --markdown").out
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


def test_a_csv_that_cannot_be_written_is_one_line(ask: Ask, measured: Path) -> None:
    shutil.copytree(measured, "runs")
    Path("file").write_text("")
    for target in ("file/table.csv", "runs"):
        answer = ask(f"table --csv {target}")
        assert answer.status == 2
        assert re.fullmatch(rf"attention-bench: cannot write {target}: .*\n", answer.err)


def test_a_dry_run_writes_nothing(ask: Ask) -> None:
    before = tree()
    answer = ask("run my_sweeps.py:costs --dry-run")
    assert (answer.status, answer.err) == (0, "")
    assert tree() == before
    lines = answer.out.splitlines()
    assert [line.split()[1:3] for line in lines] == [["to", "do"]] * 3
    ask("run my_sweeps.py:costs --only linear")
    before = tree()
    answer = ask("run my_sweeps.py:costs --dry-run")
    assert ["recorded" in line for line in answer.out.splitlines()] == [False, True, False]
    assert [line.split()[0] for line in answer.out.splitlines()] == [line.split()[0] for line in lines]
    assert tree() == before


def test_a_grid(ask: Ask) -> None:
    answer = ask("run --backbone deit_micro pvt_micro --attention softmax 'linear(kernel_size=3)' --task costs")
    assert (answer.status, answer.err) == (0, "")
    found = {(r.cell["backbone"]["name"], r.cell["backbone"]["attention"]) for r in records()}
    linear = "linear(feature_map='relu', kernel_size=3)"
    assert found == {(name, text) for name in ("deit_micro", "pvt_micro") for text in ("softmax(fused=True)", linear)}
    table = answer.out.splitlines()
    assert len([line for line in table if line.startswith(("deit_micro ", "pvt_micro "))]) == 4


def test_set(ask: Ask) -> None:
    assert ask("run --backbone swin_micro --task costs --set window=4 image_size=64").status == 0
    (record,) = records()
    assert record.cell["backbone"]["window"] == 4
    assert record.cell["backbone"]["image_size"] == [64, 64]
    spec = backbones.preset("swin_micro", window=4, image_size=64)
    assert record.metrics["gmacs"] == pytest.approx(backbones.macs(spec).total / 1e9, rel=1e-3)


def test_flags_reach_the_record(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(selection.TASKS, "speed", Speed(min_seconds=0.1))
    speed = "run --backbone deit_micro --task speed --set image_size=8 --batch 2 --precision bf16 --channels-last"
    answer = ask(speed)
    assert (answer.status, answer.err) == (0, "")
    (record,) = records()
    expected = {"device": "cpu", "precision": "bf16", "mode": "eager", "channels_last": True, "batch": 2}
    assert record.cell["task"]["runtime"] == expected
    assert record.metrics["images_per_s"] > 0
    assert "latency: measuring" in answer.out


def test_show(ask: Ask) -> None:
    answer = ask("show flatten_swin_t --attention 'focused(kernel_size=3)' --set window=7")
    assert (answer.status, answer.err) == (0, "")
    assert answer.out.split()[:3] == ["stage", "map", "tokens"]
    assert "focused(focusing_factor=3, kernel_size=3, positional_encoding=True)" in answer.out
    assert "Shift mask of focused in shifted windows: ignored" in answer.out


def test_lists(ask: Ask) -> None:
    kinds = {
        "attentions": ["softmax(fused=True)", "focused(focusing_factor=3, kernel_size=5, positional_encoding=True)"],
        "backbones": backbones.presets(),
        "sweeps": list(SWEEPS),
        "tasks": ["costs", "speed", "train", "evaluate"],
    }
    everything = ask("list").out
    for kind, names in kinds.items():
        answer = ask(f"list {kind}")
        assert (answer.status, answer.err) == (0, "")
        assert all(name in answer.out for name in names)
        assert answer.out in everything


def test_training_on_a_folder_of_images(ask: Ask) -> None:
    photos()
    answer = ask("run --backbone deit_micro --task train --data photos --epochs 1 --set num_classes=3")
    assert (answer.status, answer.err) == (0, "")
    (record,) = records()
    assert record.status == "done"
    task = record.cell["task"]
    folder = str(Path("photos").resolve())
    assert task["data"] == {"name": folder, "root": folder}
    assert task["recipe"]["epochs"] == 1
    metrics = record.metrics
    assert metrics["n_images"] == 9
    assert metrics["epochs"] == 1
    share = metrics["top1"] / 100
    assert share * 9 == pytest.approx(round(share * 9))
    assert metrics["top1_stderr"] == pytest.approx(100 * (share * (1 - share) / 9) ** 0.5)
    assert metrics["top5"] == 100
    assert metrics["train_loss"] > 0
    assert (Path("runs") / record.key / "best.pt").is_file()
    assert f"{metrics['top1']:.2f} ± {metrics['top1_stderr']:.2f}" in answer.out
    before = tree()
    assert ask("run --backbone deit_micro --task train --data photos/ --epochs 1 --set num_classes=3").status == 0
    assert tree() == before


# In processes of their own: Ctrl-C, a terminal, a pipe that closes


INTERRUPTED = (130, -signal.SIGINT)
"""A shell says 130 of either. Python ends by the signal if it came while a library compiled code from text."""

RUN = (
    "import runpy, signal\n"
    "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "runpy.run_module('harness', run_name='__main__')\n"
)


def start(line: str, cwd: Path, **streams: int) -> subprocess.Popen:
    """`python -m harness` in a session of its own, and open to Ctrl-C even where tests in the background are not."""
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *shlex.split(line)],
        cwd=cwd,
        env={name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
        | {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "PYTHONDONTWRITEBYTECODE": "1"},
        start_new_session=True,
        **streams,
    )


def wait_for_training(process: subprocess.Popen) -> None:
    """Until a cell in `runs` has trained for an epoch."""
    deadline = time.monotonic() + PATIENCE
    while not any(path.stat().st_size for path in Path("runs").glob("*/metrics.jsonl")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_ctrl_c_saves_the_running_training_and_the_same_command_goes_on(ask: Ask, tmp_path: Path) -> None:
    photos()
    process = start("run my_sweeps.py:interrupted", tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for_training(process)
    process.send_signal(signal.SIGINT)
    out, err = (stream.decode() for stream in process.communicate(timeout=PATIENCE))
    assert process.returncode in INTERRUPTED
    # Ctrl-C may come while no update runs: an evaluation is then repeated.
    where = r"(after \d+ of \d+ updates|in the evaluation of 9 images)"
    assert re.fullmatch(
        rf"attention-bench: stopped on SIGINT {where}; the same command continues with what is left to do\n", err
    )

    # Piped, progress is plain lines.
    assert "\x1b" not in out
    assert "\r" not in out
    text = re.compile(
        r"\[1/3\] deit_micro softmax\(fused=True\) costs\n(    .+\n)*    done: params_m 0\.2.*\n"
        r"\[2/3\] deit_micro num_classes=3 softmax\(fused=True\) train.*\n    global batch .*\n(    epoch .*\n)+"
    )
    assert text.fullmatch(out)

    (first,) = records()
    assert first.cell["task"]["name"] == "costs"
    assert not [path for path in Path("runs").rglob("*") if path.suffix in (".tmp", ".partial", ".damaged")]
    kept = (Path("runs") / f"{first.key}.json").stat().st_mtime_ns

    again = ask("run my_sweeps.py:interrupted")
    assert (again.status, again.err) == (0, "")
    assert "1 of 3 cells are recorded in runs already" in again.out
    assert re.search(r"    resumed after \d+ of \d+ updates\n", again.out)
    assert [record.status for record in records()] == ["done"] * 3
    assert (Path("runs") / f"{first.key}.json").stat().st_mtime_ns == kept


def test_ctrl_c_stops_cells_in_processes_of_their_own(ask: Ask, tmp_path: Path) -> None:
    photos()
    line = "run my_sweeps.py:interrupted --isolate --only train"
    process = start(line, tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for_training(process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode in INTERRUPTED
    assert re.fullmatch(rb"attention-bench: interrupted; .*\n", err)
    assert records() == []


class Screen:
    """What stands on a terminal of a width after some output: a line is text, and moves back overwrite it."""

    def __init__(self, width: int) -> None:
        self.width, self.lines, self.row, self.column = width, [""], 0, 0

    def feed(self, text: str) -> None:
        for token in re.findall(r"\x1b\[[?\d;]*[A-Za-z]|\x1b.|.", text, re.DOTALL):
            if token.startswith("\x1b["):
                self._control(token[2:-1], token[-1])
            elif token == "\r":
                self.column = 0
            elif token == "\n":
                self._next_line()
            else:
                assert token.isprintable(), f"not for a terminal: {token!r}"
                self._put(token)

    def _control(self, numbers: str, letter: str) -> None:
        if letter == "A":
            self.row -= int(numbers or 1)
            assert self.row >= 0
        elif letter == "K":
            assert numbers == "2", "rich erases whole lines"
            self.lines[self.row] = ""
        else:
            assert letter in "mhl", f"unknown control sequence {numbers}{letter}"  # colours, and the cursor hidden

    def _put(self, character: str) -> None:
        if self.column == self.width:
            self._next_line()
            self.column = 0
        line = self.lines[self.row].ljust(self.column)
        self.lines[self.row] = line[: self.column] + character + line[self.column + 1 :]
        self.column += 1

    def _next_line(self) -> None:
        self.row += 1
        if self.row == len(self.lines):
            self.lines.append("")


def test_a_terminal_gets_a_progress_bar_that_garbles_nothing(ask: Ask, tmp_path: Path) -> None:
    """One of 96 columns: room for the table in its frame, but not for the bar beside all of a cell's name."""
    pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")
    terminal, inner = pty.openpty()
    termios.tcsetwinsize(inner, (50, 96))
    process = start("run my_sweeps.py:costs", tmp_path, stdin=inner, stdout=inner, stderr=inner)
    os.close(inner)
    output = b""
    with suppress(OSError):  # what Linux says when the other side has gone
        while part := os.read(terminal, 4096):
            output += part
    os.close(terminal)
    assert process.wait(PATIENCE) == 0
    text = output.decode()
    assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l"), "the cursor is shown again"
    bars = [re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", part) for part in text.split("\x1b[2K")]
    for done in range(3):
        assert any(re.search(rf"━.* {done}/3 .*deit_micro", bar) for bar in bars), f"a bar at {done} of 3"

    screen = Screen(96)
    screen.feed(text)
    shown = [line.rstrip() for line in screen.lines]
    assert sum("3/3" in line for line in shown) == 1, "one bar is left, and it is full"
    assert not any(f"{done}/3" in line for line in shown for done in range(3))
    joined = "".join(screen.lines)
    for cell in expand("my_sweeps.py:costs"):
        assert joined.count(f"{cell.label}: done: params_m 0.2") == 1
    assert any(line.startswith("┏━") for line in shown)
    assert shown[-2:] == ["3 records in runs", ""]


def test_a_reader_that_goes_away_is_no_error(measured: Path, tmp_path: Path) -> None:
    """As in `attention-bench table | head -1`: nothing is said, and the status is not 0, as output was lost."""
    shutil.copytree(measured, tmp_path / "runs")
    process = start("table", tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    err = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(PATIENCE) == 1
    assert err == ""

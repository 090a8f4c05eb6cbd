"""A command line in this process, in a folder of its own, and what a test looks at afterwards."""

import shlex
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

import results
from harness.cli.main import main
from results import Record

SWEEPS_FILE = """
from backbones import preset
from harness.cells import FOLDER, Cell, Costs, DataSource, Train
from dataclasses import replace

ATTENTIONS = ("softmax", "linear", "focused")

def costs():
    return [Cell(preset("deit_micro", attention=attention), Costs()) for attention in ATTENTIONS]

def interrupted():
    long = Train(recipe=replace(FOLDER, epochs=20), data=DataSource.folder("photos"))
    first, *_, last = costs()
    return [first, Cell(preset("deit_micro", num_classes=3), long), last]

def needs_an_argument(backbone):
    return costs()

def raises():
    raise RuntimeError("planted")

def leaves():
    raise SystemExit(3)

def unknown_override():
    return [Cell(preset("deit_micro", window=3), Costs())]

def number():
    return 3

def nothing():
    return []

constant = 3
"""

TRAIN = "train deit_micro --data photos --set num_classes=3 image_size=16 dim=16 depth=2"
SHORT = f"{TRAIN} --change epochs=1 warmup_epochs=0 batch=22"
"""A training of 3 updates on the images of `photos`."""


class Answer(NamedTuple):
    status: int
    out: str
    err: str


Ask = Callable[[str], Answer]


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Run a command line in this process, in a fresh folder that holds my_sweeps.py."""
    (tmp_path / "my_sweeps.py").write_text(SWEEPS_FILE)
    monkeypatch.chdir(tmp_path)

    def run(line: str) -> Answer:
        try:
            status = main(shlex.split(line))
        except SystemExit as leave:  # how tyro ends
            status = int(leave.code or 0)
        answer = Answer(status, *capsys.readouterr())
        assert "Traceback" not in answer.out + answer.err
        return answer

    return run


def refused(ask: Ask, line: str) -> str:
    """The one line that a command line is refused with; nothing is written."""
    before = tree()
    answer = ask(line)
    assert answer.status == 2
    assert answer.out == ""
    assert answer.err.startswith("attention-bench: ")
    assert answer.err.endswith("\n")
    assert answer.err.count("\n") == 1
    assert tree() == before, "nothing is written"
    return answer.err.removeprefix("attention-bench: ")


def tree() -> dict[str, int]:
    """Every file and folder below the current one, with its time of change; not those of Python's cache."""
    paths = [path for path in Path().rglob("*") if "__pycache__" not in path.parts]
    return {str(path): path.stat().st_mtime_ns if path.is_file() else 0 for path in paths}


def images(folders: Iterable[str], count: int) -> None:
    for shade, folder in enumerate(folders):
        Path(folder).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (40, 32), (60 * shade, 50, number)).save(Path(folder) / f"{number}.jpg")


def photos() -> None:
    """photos/train and photos/val: three classes, 66 training images (a batch is 64) and 9 val images."""
    images([f"photos/train/{name}" for name in ("cat", "dog", "eel")], 22)
    images([f"photos/val/{name}" for name in ("cat", "dog", "eel")], 3)


def records(out: str = "runs") -> list[Record]:
    found, problems = results.read_all(Path(out))
    assert not problems
    return found

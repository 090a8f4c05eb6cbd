"""A user's folder with clusters.toml and sweeps, and the program as a user calls it, for tests on the real Slurm."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest

import results
from harness.jobs import submissions
from harness.jobs.states import CellState, look_at
from harness.process.attempts import FOLDER, Sidecar, attempts
from tests.harness.command_line import Answer, Ask
from tests.nightly import CELLS, PACK

ROOT = Path(__file__).parents[2]

CLUSTERS = f"""
[low]
partition = "low"
cpus_per_task = 1
minutes = 60
pack = 100

[many]
partition = "low"
cpus_per_task = 1
minutes = 60
pack = {PACK}

[alone]
partition = "low"
cpus_per_task = 4
minutes = 60

[huge]
partition = "low"
gpus_per_node = 8
minutes = 60

[long]
partition = "low"
minutes = 600

[nowhere]
partition = "nowhere"

[high]
partition = "high"
cpus_per_task = 1
minutes = 60

[two]
partition = "low"
nodes = 2
cpus_per_task = 4
minutes = 60
"""

SWEEPS = '''
"""Cells that count how often they are run, and a training that takes its time."""

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import harness.training.learner
from attentions import Attention, Macs, register
from backbones import preset
from harness.cells import MICRO, Cell, DataSource, Train
from harness.cells.recipe import LR_BATCH

HERE = Path("{here}")


@register("mean_of_values")
class MeanOfValues(Attention):
    """Every token gets the mean of all values."""

    def forward(self, q, k, v, *, bias=None, x=None, regions=None):
        return v.mean(dim=1, keepdim=True).expand_as(q)

    def macs(self):
        return Macs()


@dataclass(frozen=True)
class Count:
    """Notes that it was run; fails, takes its time, or waits for its turn in its job, as long as a file says so."""

    name: ClassVar[str] = "counting"

    number: int

    @property
    def label(self):
        return f"counting {{self.number}}"

    def run(self, spec, folder, report):
        with open(HERE / "runs_of", "a") as log:
            log.write(f"{{self.number}}\\n")
        report("counting")
        if str(self.number) in (HERE / "eat").read_text().split():
            (HERE / "eat").write_text("")
            eaten = [b"x" * 2**20 for _ in range(4000)]
            time.sleep(60)
        if str(self.number) in (HERE / "die").read_text().split():
            os.kill(os.getpid(), 9)
        while (HERE / "gate").exists() and self.number % {pack} >= int((HERE / "gate").read_text()):
            time.sleep(0.1)
        time.sleep(float((HERE / "seconds").read_text()))
        if str(self.number) in (HERE / "fail").read_text().split():
            raise RuntimeError("planted failure")
        return {{"params_m": float(self.number)}}


def thousand():
    return [Cell(preset("deit_micro", attention="mean_of_values"), Count(number)) for number in range(1000)]


def many():
    return thousand()[:{cells}]


def ten():
    return thousand()[:10]


RECIPE = replace(
    MICRO, epochs=2, batch=16, warmup_epochs=0.5, lr=2e-3 * LR_BATCH / 16, drop_path=0.2, mixup=0.8, ema_decay=0.9
)


def training():
    """On each update of a job it waits as long as a file says: the machine is shared with the other jobs."""
    update = harness.training.learner.Learner.update

    def slowly(self, batches, step):
        time.sleep(float((HERE / "seconds").read_text()))
        with open(HERE / "updates", "a") as log:
            log.write(f"{{self.setup.ranks.rank}} {{step}}\\n")
        update(self, batches, step)

    if "SLURM_JOB_ID" in os.environ:
        harness.training.learner.Learner.update = slowly
    size = {{"dim": 16, "depth": 2, "heads": 2, "image_size": (16, 16), "num_classes": 3}}
    spec = replace(preset("deit_micro", attention="focused"), **size)
    return [Cell(spec, Train(RECIPE, DataSource.folder(HERE / "images"), workers=2, checkpoint_minutes=0.05))]


def trained_and_evaluated():
    (trained,) = training()
    return [trained.evaluation(), trained, trained.evaluation(ema=True)]


if (HERE / "slow").exists():
    training()
'''


class Took(NamedTuple):
    seconds: float  # by the clock
    worked: float  # seconds of a processor


@dataclass
class Place:
    """The folder that the user works in; `ask` runs a command line in this process, `shell` in one of its own."""

    folder: Path
    out: Path
    ask: Ask

    def set(self, **files: str) -> None:
        for name, text in files.items():
            (self.folder / name).write_text(text)

    def shell(self, line: str) -> tuple[Answer, Took]:
        began, before = time.monotonic(), os.times()
        done = subprocess.run(
            [sys.executable, "-P", "-m", "harness", *line.split()],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        seconds, after = time.monotonic() - began, os.times()
        worked = after.children_user + after.children_system - before.children_user - before.children_system
        return Answer(done.returncode, done.stdout, done.stderr), Took(seconds, worked)

    def records(self) -> list[results.Record]:
        found, problems = results.read_all(self.out)
        assert not problems
        return found

    def states(self) -> dict[str, CellState]:
        """By label."""
        known, problems = submissions.read_all(self.out)
        assert not problems
        labels = {key: label for submission in known for key, label in submission.cells.items()}
        return {state.label: state for state in look_at(self.out, labels, known).cells}

    def attempts(self) -> list[Sidecar]:
        """At the one cell that there is."""
        (folder,) = self.out.glob(f"*/{FOLDER}")
        found, problems = attempts(folder.parent)
        assert not problems
        return found

    def lines(self, name: str) -> list[str]:
        try:
            return (self.folder / name).read_text().splitlines()
        except FileNotFoundError:
            return []

    def logs(self) -> str:
        return "".join(path.read_text() for path in sorted(self.out.glob("submissions/*/logs/*_log.out")))


@pytest.fixture
def place(tmp_path: Path, ask: Ask, users_attentions: None, users_files: None) -> Place:
    (tmp_path / "clusters.toml").write_text(CLUSTERS)
    (tmp_path / "sweeps.py").write_text(SWEEPS.format(here=tmp_path, cells=CELLS, pack=PACK))
    there = Place(tmp_path, tmp_path / "runs", ask)
    there.set(seconds="0", fail="", eat="", die="")
    return there

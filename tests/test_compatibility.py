"""What earlier commits made is read and resumed: keys, records, tables, checkpoints, run folders, submissions.

`tests/compatibility/<commit>/` was made by that commit: by `attention-bench run quickstart`, by a training that was
killed with SIGKILL, and by a submission that was cancelled.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from backbones import preset, presets
from harness.cells import MICRO, Cell, Costs, DataSource, Evaluate, Preprocessing, Runtime, Speed, Train, Weights
from harness.cli.main import main
from harness.process.attempts import attempts
from harness.runner.run_all import run_all
from harness.sweeps.expand import SWEEPS, expand
from harness.training import checkpoints
from harness.training.learner import Learner, Setup
from tests.harness.training.test_resume import digest

EARLIER = Path(__file__).parent / "compatibility" / "a089b83"
KILLED = EARLIER / "killed" / "47d0ab8d34c49fd6"


def mixed() -> list[Cell]:
    """A cell of each kind, with values that are not the defaults."""
    spec = preset("swin_micro", attention="focused(focusing_factor=4)")
    start = Cell(spec, Train(MICRO, DataSource.folder("photos"), seed=7))
    file, part = (
        Weights(digest="0123456789abcdef", path="w.pth"),
        Weights(digest="0123456789abcdef", ema=True, strict=False),
    )
    follows = Train(MICRO, DataSource("imagenet", root="/data"), precision="bf16", weights=start.weights(), workers=4)
    return [
        start,
        start.evaluation(Preprocessing("squash", 0.9), which="best"),
        Cell(spec, follows),
        Cell(spec, Evaluate(file, DataSource("fashion_mnist"))),
        Cell(spec, Evaluate(part, DataSource("fashion_mnist"), batch=32)),
        Cell(spec, Speed(Runtime("cuda", "fp16", "compiled", True, 8), 1.5)),
        Cell(spec, Costs()),
    ]


def killed_training() -> Cell:
    recipe = replace(MICRO, epochs=2, batch=2000, ema_decay=0.9)
    spec = preset("deit_micro", attention="focused", dim=16, depth=1, heads=2)
    return Cell(spec, Train(recipe, DataSource("fashion_mnist_14k"), seed=3, checkpoint_minutes=0.0))


def test_keys_are_what_they_were() -> None:
    earlier = json.loads((EARLIER / "keys.json").read_text())
    assert [cell.key for cell in mixed()] == earlier.pop("mixed")
    assert [Cell(preset(name), Costs()).key for name in presets()] == earlier.pop("costs of every preset")
    assert set(earlier) <= set(SWEEPS)
    for name, keys in earlier.items():
        assert [cell.key for cell in expand(name)] == keys, name


def test_the_table_of_earlier_records_is_the_same_and_nothing_is_measured_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs"
    shutil.copytree(EARLIER / "quickstart", out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert main(["table", "quickstart", "--out", str(out), "--csv", str(tmp_path / "table.csv")]) == 0
    rows, earlier = capsys.readouterr().out.partition("\n\n")[0], (EARLIER / "quickstart.txt").read_text()
    assert rows == earlier.partition("\n\n")[0]  # the notes below may say the same in other words
    assert (tmp_path / "table.csv").read_text() == (EARLIER / "quickstart.csv").read_text()
    records = run_all(expand("quickstart"), out, Console(quiet=True))
    assert [record.status for record in records] == ["done"] * 24
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_checkpoint_is_taken_up_to_the_bit() -> None:
    cell = killed_training()
    assert cell.key == KILLED.name
    path = checkpoints.newest(KILLED, pytest.fail)
    assert path is not None
    assert path.name == "checkpoint-00000009.pt"
    state = checkpoints.read(path)
    task = cell.training
    learner = Learner(cell.backbone, task.recipe, Setup(torch.device("cpu")), updates_per_epoch=6)
    learner.load_state(state)
    taken = learner.state()
    for kind in ("model", "ema"):
        assert taken[kind].keys() == state[kind].keys()
        assert all(torch.equal(taken[kind][name], state[kind][name]) for name in state[kind])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the killed training, gone on with to its end."""
    out = tmp_path_factory.mktemp("killed") / "runs"
    shutil.copytree(EARLIER / "killed", out)
    (record,) = run_all([killed_training()], out, Console(quiet=True))
    assert record.status == "done", record.error
    return out


def test_a_killed_training_goes_on(finished: Path) -> None:
    run = finished / KILLED.name
    first, _ = (run / "metrics.jsonl").read_text().splitlines()
    assert first == (KILLED / "metrics.jsonl").read_text().strip()
    made, problems = attempts(run)
    assert problems == []
    assert [attempt.ended is None for attempt in made] == [True, False]
    assert str(made[1].ended).startswith("done")
    assert checkpoints.all_of(run)[0].name == "checkpoint-00000012.pt"


def processor() -> dict[str, str | None]:
    """What decides which kernels torch and its libraries take."""
    names = ("vendor_id", "cpu family", "model", "stepping")
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        lines = []
    told = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return {name: told.get(name) for name in names} | {"capability": torch.backends.cpu.get_cpu_capability()}


def test_it_ends_with_the_bits_of_an_undisturbed_run(finished: Path) -> None:
    made = json.loads((EARLIER / "killed.json").read_text())
    here = {**processor(), "torch": torch.__version__, "threads": torch.get_num_threads()}
    if here != made["here"]:
        pytest.skip(f"bits are those of one kind of CPU, one torch and one thread: {made['here']}")
    assert digest(finished / KILLED.name) == made["digest"]


def test_an_earlier_submission_is_shown_and_what_it_pickled_is_submitted_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs"
    shutil.copytree(EARLIER / "submitted", out)
    assert main(["status", "--all", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "2 cells: 2 cancelled" in shown
    assert "01d7bbbe" in shown
    assert "9d3a284f" in shown
    assert main(["resume", "--out", str(out)]) == 2
    refused = capsys.readouterr().err
    assert refused.count("\n") == 1
    assert "submit it again" in refused

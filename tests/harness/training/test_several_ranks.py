"""Cells that several processes measure together: one record, and where one of them fails, its own error in it."""

import io
import multiprocessing
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

import results
from harness.cells import Cell, DataSource, Train
from harness.images.batches import Batch, shares, train_order
from harness.images.sources import open_splits
from harness.process.ranks import Ranks
from harness.runner.run_all import run_all
from harness.training.learner import Learner
from tests.harness.processes import together
from tests.harness.training.test_resume import RECIPE, images, spec
from tests.on_a_gpu import DEVICES

images = images  # a fixture

WORLD = 2


def job(group: Ranks, root: str, out: str, device: str) -> str:
    """What a process of the job does."""
    recipe, data = replace(RECIPE, epochs=1), DataSource.folder(root)
    cells = [Cell(spec(), Train(recipe, data, seed=seed, device=device)) for seed in (0, 1)]
    run_all(cells, Path(out), Console(file=io.StringIO()))
    return "done"


def kinds(root: str, out: Path, device: str = "cpu") -> list[str]:
    """Of each process: "done", or the kind of error that ended it."""
    return [answer if answer == "done" else answer.kind for answer in together(WORLD, job, root, str(out), device)]


@pytest.mark.parametrize("device", DEVICES)
def test_each_cell_has_one_record_and_is_not_run_again(images: str, tmp_path: Path, device: str) -> None:
    if device == "cuda" and torch.cuda.device_count() < WORLD:
        pytest.skip("needs two GPUs")
    assert kinds(images, tmp_path / "runs", device) == ["done"] * 2
    records, problems = results.read_all(tmp_path / "runs")
    assert problems == []
    assert [(record.status, record.metrics["ranks"]) for record in records] == [("done", 2)] * 2
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.*")}
    assert kinds(images, tmp_path / "runs", device) == ["done"] * 2
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.*")} == before


def test_what_is_wrong_before_a_run_is_said_by_all_and_nothing_is_written(tmp_path: Path) -> None:
    assert kinds(str(tmp_path / "nowhere"), tmp_path / "runs") == ["ValueError"] * 2
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_on_one_rank_ends_the_job_and_is_what_the_record_says(images: str, tmp_path: Path, rank: int) -> None:
    root = tmp_path / "images"
    shutil.copytree(images, root)
    for path in sorted(root.glob("train/*/*.png")):
        path.write_bytes(path.read_bytes()[:60])
    # All but those of the first batches of the other rank: the error is found on `rank` alone.
    only_other = _first_share(images, 1 - rank)
    for complete in only_other:
        shutil.copy(complete, root / Path(complete).relative_to(images))
    expected = ["PeerLost", "PeerLost"]
    expected[rank] = "JobFailed"
    assert kinds(str(root), tmp_path / "runs") == expected
    (record,) = results.read_all(tmp_path / "runs")[0]
    assert record.status == "failed"
    assert record.error is not None
    assert "unreadable image" in record.error.splitlines()[-1]


def dying(group: Ranks, root: str, out: str, by: int) -> str:
    """One rank is killed in the third update; in another way it asks to stop, and its workers are killed at once."""
    update = Learner.update

    def update_or_die(self: Learner, batches: list[Batch], step: int) -> None:
        if step == 2 and group.rank == 1:
            for worker in multiprocessing.active_children():
                os.kill(worker.pid or 0, signal.SIGKILL if by == signal.SIGKILL else signal.SIGTERM)
            os.kill(os.getpid(), by)
        update(self, batches, step)

    Learner.update = update_or_die  # type: ignore[method-assign]
    cell = Cell(spec(), Train(replace(RECIPE, epochs=1), DataSource.folder(root), workers=2))
    run_all([cell], Path(out), Console(file=io.StringIO()))
    return "done"


def test_a_rank_that_is_killed_is_no_failure_of_the_cell(images: str, tmp_path: Path) -> None:
    first, second = together(WORLD, dying, images, str(tmp_path / "runs"), signal.SIGKILL)
    assert first.kind == "PeerLost"
    assert first.text.startswith("another process of the job is gone (")
    assert second == -signal.SIGKILL
    assert results.read_all(tmp_path / "runs") == ([], [])


def test_a_signal_that_ends_the_workers_too_is_a_request_to_stop_and_no_failure(images: str, tmp_path: Path) -> None:
    """As Slurm ends a job: SIGTERM to every process of it, those that read images included."""
    answers = together(WORLD, dying, images, str(tmp_path / "runs"), signal.SIGTERM)
    assert answers[1].kind == "Stopped"
    assert "stopped on SIGTERM" in answers[1].text
    assert answers[0].kind in ("Stopped", "PeerLost")
    assert results.read_all(tmp_path / "runs") == ([], [])


def _first_share(root: str, rank: int) -> list[str]:
    """The images of one rank in the first updates of seed 0."""
    task = Train(replace(RECIPE, epochs=1), DataSource.folder(root))
    train = open_splits(task.data, 3).train
    keys = [key for batch in train_order(task, len(train)).batches_from(0) for key in shares(batch, WORLD, 1)[rank][0]]
    return [train.filename(key.index) for key in keys]

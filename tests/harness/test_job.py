"""Cells that several processes measure together: one record, and where one of them fails, its own error in it."""

import io
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

import results
from harness.cells import Cell
from harness.distributed import process_group
from harness.runner import JobFailed, run_all
from harness.sources import DataSource
from harness.train import Train
from tests.harness.test_resume import RECIPE, SERVER, free_port, images, spec

images = images  # a fixture

WORLD = 2
PATIENCE = 60


def job(root: str, out: str, rank: int, port: int) -> None:
    """What a process of the job does; its exit status is that of the command line."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(WORLD), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    cells = [Cell(spec(), Train(replace(RECIPE, epochs=1), DataSource.folder(root), seed=seed)) for seed in (0, 1)]
    with process_group():
        try:
            run_all(cells, Path(out), Console(file=io.StringIO()))
        except ValueError:
            raise SystemExit(2) from None
        except JobFailed:
            raise SystemExit(1) from None


def start(root: str, out: Path) -> list[int | None]:
    port = free_port()
    processes = [SERVER.Process(target=job, args=(root, str(out), rank, port)) for rank in range(WORLD)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE)
        process.kill()
    return [process.exitcode for process in processes]


def test_each_cell_has_one_record_and_is_not_run_again(images: str, tmp_path: Path) -> None:
    assert start(images, tmp_path / "runs") == [0, 0]
    records, problems = results.read_all(tmp_path / "runs")
    assert problems == []
    assert [(record.status, record.metrics["ranks"]) for record in records] == [("done", 2)] * 2
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.*")}
    assert start(images, tmp_path / "runs") == [0, 0]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.*")} == before


def test_what_is_wrong_before_a_run_is_said_by_all_and_nothing_is_written(tmp_path: Path) -> None:
    assert start(str(tmp_path / "nowhere"), tmp_path / "runs") == [2, 2]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_on_one_rank_ends_the_job_and_is_what_the_record_says(images: str, tmp_path: Path, rank: int) -> None:
    root = tmp_path / "images"
    shutil.copytree(images, root)
    for path in sorted(root.glob("train/*/*.png")):
        path.write_bytes(path.read_bytes()[:60])
    # All but those of the first batches of the other rank: the error is found on `rank` alone.
    only_other = _first_share(images, 1 - rank)
    for path in only_other:
        shutil.copy(path, root / Path(path).relative_to(images))
    codes = start(str(root), tmp_path / "runs")
    assert codes == [1, 1]
    (record,) = results.read_all(tmp_path / "runs")[0]
    assert record.status == "failed"
    assert record.error is not None
    assert "unreadable image" in record.error.splitlines()[-1]


def _first_share(root: str, rank: int) -> list[str]:
    """The images of one rank in the first updates of seed 0."""
    from harness.data import shares
    from harness.sources import open_splits

    task = Train(replace(RECIPE, epochs=1), DataSource.folder(root))
    train = open_splits(task.data, 3).train
    keys = [key for batch in task.order(len(train)).batches_from(0) for key in shares(batch, WORLD, 1)[rank][0]]
    return [train.filename(key.index) for key in keys]

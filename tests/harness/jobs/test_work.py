"""The cells of one allocation: whatever ended it before, what is recorded is kept and what is left is done."""

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

import results
from attentions import load_file
from backbones import BackboneSpec, preset
from harness.cells import MICRO, Cell, Train
from harness.jobs.work import CellsJob
from harness.process.attempts import attempts
from harness.process.environment import PACKAGES, ROOT
from harness.process.stopping import Stopped
from harness.runner.records import ended_at
from slurm import copy_code
from tests.harness import submitted
from tests.harness.planted import FASHION, record
from tests.harness.processes import PATIENCE, SERVER, become, free_port

Make = Callable[..., Cell]
LONG_AGO = "2026-01-01T00:00:00+00:00"
TRAINING = Cell(preset("deit_micro"), Train(MICRO, FASHION))


def job(out: Path, *cells: Cell, failed: dict[str, str] | None = None) -> CellsJob:
    return CellsJob(pickle.dumps(list(cells)), (), out, failed or {})


def runs(log: Path) -> list[str]:
    """The attentions of the cells that were run, without their options."""
    return [line.partition("(")[0] for line in log.read_text().splitlines()] if log.exists() else []


def statuses(out: Path) -> dict[str, str]:
    return {found.key: found.status for found in results.read_all(out)[0]}


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("SUBMITIT_LOCAL_JOB_ID", "SLURM_JOB_ID", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "runs"


def test_what_is_recorded_is_not_run(out: Path, log: Path, counting: Make) -> None:
    cells = [counting(), counting("linear"), counting("focused")]
    results.write(out, record(cells[1], {"params_m": 2.0}))
    job(out, *cells)()
    assert runs(log) == ["softmax", "focused"]
    assert set(statuses(out).values()) == {"done"}
    assert results.read(out / f"{cells[1].key}.json").metrics == {"params_m": 2.0}
    job(out, *cells)()
    assert len(runs(log)) == 2


@pytest.mark.parametrize(("fails", "status"), [("error", "failed"), ("memory", "oom")])
def test_what_fails_is_recorded_and_not_tried_again_and_the_rest_goes_on(
    out: Path, log: Path, counting: Make, fails: str, status: str
) -> None:
    cells = [counting(fails=fails), counting("linear")]
    job(out, *cells)()
    assert statuses(out) == {cells[0].key: status, cells[1].key: "done"}
    job(out, *cells)()
    assert runs(log) == ["softmax", "linear"]


def test_a_failure_of_before_the_submission_is_tried_again_once(out: Path, log: Path, counting: Make) -> None:
    cell = counting(fails="error")
    results.write(out, record(cell, {}, status="failed"))
    assert ended_at(cell.key, out) == LONG_AGO
    again = job(out, cell, failed={cell.key: LONG_AGO})
    assert again.left() is not None
    again()
    again()
    assert runs(log) == ["softmax"]
    assert again.left() is None
    # As a job of that submission would, had another one failed in the meantime.
    results.write(out, record(cell, {}, status="failed", created="2026-01-02"))
    again()
    assert runs(log) == ["softmax"]


def test_when_a_record_was_made_is_told_of_whole_ones(out: Path, counting: Make) -> None:
    cell = counting()
    assert ended_at(cell.key, out) is None
    results.write_text(out / f"{cell.key}.json", "{")
    assert ended_at(cell.key, out) is None


def test_what_is_left_changes_with_each_record_and_each_checkpoint(out: Path, log: Path, counting: Make) -> None:
    cells = [TRAINING, counting(), counting("linear")]
    todo = job(out, *cells)
    said = [todo.left()]
    assert said == [f"{TRAINING.label} and 2 more"]
    for step in (100, 200):
        results.write_text(out / TRAINING.key / f"checkpoint-{step:08d}.pt", "")
        said.append(todo.left())
    assert said[1:] == [f"{TRAINING.label} (checkpoint-{step:08d}) and 2 more" for step in (100, 200)]
    for cell in cells:
        results.write(out, record(cell, {}))
        said.append(todo.left())
    assert said[3:] == [f"{cells[1].label} and 1 more", cells[2].label, None]


def test_the_cell_that_was_under_way_is_given_up_and_no_other(out: Path, counting: Make) -> None:
    cells = [counting(), counting("linear"), counting("focused")]
    todo = job(out, *cells)
    submitted.attempt(out, cells[0].key, started=100.0)
    submitted.attempt(out, cells[1].key, number=2, started=300.0)
    # Of what is recorded nothing is given up, however late it was begun.
    submitted.attempt(out, cells[2].key, started=900.0)
    results.write(out, record(cells[2], {}))
    todo.gave_up("ended 3 times")
    assert statuses(out) == {cells[1].key: "failed", cells[2].key: "done"}
    assert results.read(out / f"{cells[1].key}.json").error == "ended 3 times"
    todo.gave_up("again")
    assert statuses(out)[cells[0].key] == "failed"
    assert todo.left() is None


def test_where_none_was_begun_the_first_is_given_up(out: Path, counting: Make) -> None:
    cells = [counting(), counting("linear")]
    job(out, *cells).gave_up("ended 3 times")
    assert statuses(out) == {cells[0].key: "failed"}


def test_a_cell_whose_training_failed_fails_with_a_line_and_the_rest_goes_on(
    out: Path, log: Path, counting: Make
) -> None:
    error = "Traceback:\nValueError: planted"
    results.write(out, replace(record(TRAINING, {}, status="failed"), error=error))
    job(out, TRAINING.evaluation(), counting())()
    found = results.read(out / f"{TRAINING.evaluation().key}.json")
    assert found.status == "failed"
    assert "needs the training deit_micro" in str(found.error)
    assert "failed: ValueError: planted" in str(found.error)
    assert "\n" not in str(found.error)
    assert runs(log) == ["softmax"]


@dataclass(frozen=True)
class Ends:
    """Is overtaken by another attempt while it runs, or is asked to stop."""

    name: ClassVar[str] = "ends"
    label: ClassVar[str] = "ends"

    log: str
    job: str | None = None
    signal: int = 0

    def run(self, spec: BackboneSpec, folder: Path, report: Callable[[str], None]) -> dict[str, Any]:
        with open(self.log, "a") as stream:
            stream.write("ends\n")
        if self.signal:
            raise Stopped("stopped in a test", self.signal)
        submitted.attempt(folder.parent, folder.name, number=2, job=self.job)
        return {}


def ends(log: Path, **how: Any) -> Cell:
    return Cell(preset("deit_micro"), Ends(str(log), **how))  # type: ignore[arg-type]


def test_a_cell_that_another_job_takes_over_is_left_to_it_and_the_rest_goes_on(
    out: Path, log: Path, counting: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "70")
    overtaken, other = ends(log, job="71"), counting()
    job(out, overtaken, other)()
    assert runs(log) == ["ends", "softmax"]
    assert statuses(out) == {other.key: "done"}
    assert "(job 71, process 4711 on node1) at this cell has taken over" in capsys.readouterr().out


def test_a_job_whose_newer_copy_takes_over_leaves_all_to_it(
    out: Path, log: Path, counting: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "70")
    job(out, ends(log, job="70"), counting())()
    assert runs(log) == ["ends"]
    assert statuses(out) == {}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_request_to_stop_ends_the_process_with_its_signal(
    out: Path, log: Path, counting: Make, number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    todo = job(out, ends(log, signal=number), counting())
    with pytest.raises(SystemExit) as leaving:
        todo()
    assert leaving.value.code == 128 + number
    assert runs(log) == ["ends"]
    assert statuses(out) == {}
    assert "stopped in a test" in capsys.readouterr().out
    assert todo.left() is not None


def test_what_was_begun_and_how_it_ended_is_seen_from_outside(out: Path, log: Path, counting: Make) -> None:
    cell = counting()
    job(out, cell)()
    (attempt,), _ = attempts(out / cell.key)
    assert (attempt.label, attempt.ended) == (cell.label, "done: params_m 1")


# Several processes


def as_rank(rank: int, port: int, todo: CellsJob) -> None:
    become(rank, 2, port)
    todo()


def exit_codes(todo: CellsJob) -> list[int | None]:
    port = free_port()
    processes = [SERVER.Process(target=as_rank, args=(rank, port, todo)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE)
    return [process.exitcode for process in processes]


def test_in_a_job_of_two_processes_a_failure_ends_both_and_the_next_start_does_the_rest(
    out: Path, log: Path, counting: Make
) -> None:
    cells = [counting(fails="error"), counting("linear")]
    todo = job(out, *cells)
    assert exit_codes(todo) == [1, 1]
    assert statuses(out) == {cells[0].key: "failed"}
    assert "planted failure" in str(results.read(out / f"{cells[0].key}.json").error)
    assert exit_codes(todo) == [0, 0]
    assert statuses(out) == {cells[0].key: "failed", cells[1].key: "done"}
    assert runs(log) == ["softmax"] * 2 + ["linear"] * 2


# In the copy of the code

USERS = """
from dataclasses import dataclass
from typing import ClassVar
from pathlib import Path
from backbones import preset
from harness.cells import Cell

@dataclass(frozen=True)
class Mine:
    name: ClassVar[str] = "mine"
    label: ClassVar[str] = "mine"
    where: str

    def run(self, spec, folder, report):
        import harness
        Path(self.where).write_text(f"{__file__}\\n{harness.__file__}")
        return {"params_m": 42.0}

def cells(where):
    return [Cell(preset("deit_micro"), Mine(where))]
"""


@pytest.mark.usefixtures("users_files")
def test_a_job_runs_from_the_copy_alone_with_the_users_own_tasks(out: Path, tmp_path: Path) -> None:
    original = tmp_path / "mine.py"
    original.write_text(USERS)
    cells = load_file(original).cells(str(tmp_path / "where"))
    copy = copy_code(ROOT, PACKAGES, tmp_path / "code", {"user/0/mine.py": original.read_bytes()})
    users = copy / "user" / "0" / "mine.py"
    original.write_text("raise RuntimeError('edited since')")
    pickled = tmp_path / "job"
    pickled.write_bytes(pickle.dumps(CellsJob(pickle.dumps(cells), (users,), out, {})))
    subprocess.run(
        [sys.executable, "-P", "-c", f"import pickle; pickle.load(open({str(pickled)!r}, 'rb'))()"],
        env=os.environ | {"PYTHONPATH": str(copy)},
        cwd=tmp_path,
        check=True,
        timeout=60,
    )
    assert statuses(out) == {cells[0].key: "done"}
    assert (tmp_path / "where").read_text().splitlines() == [str(users), str(copy / "harness" / "__init__.py")]

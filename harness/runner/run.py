"""Running cells in this process: recorded cells are not measured again, and a failure is a record too.

Under a launcher, several processes run the same cells together (see `harness.process.ranks`): rank 0 decides, and
writes.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import results
from harness.cells import Cell, Costs, Evaluate, Metrics, Speed, Train
from harness.cells.tasks import Imported
from harness.measures.costs import count_costs
from harness.measures.speed import measure_backbone
from harness.process.attempts import Attempt, NoAttempt
from harness.process.considerate import considerate
from harness.process.errors import first_line, is_out_of_memory
from harness.process.ranks import lost_peer, ranks
from harness.process.stopping import Stopped, TakenOver
from harness.process.waiting import wait_policy
from harness.runner.deployed import measure_deployed
from harness.runner.records import environment_of, failed_record, keep_damaged, outcome, recorded
from harness.training.evaluation import evaluate_weights
from harness.training.loop import train
from results import Record
from slurm import JobDied, call_apart


def run(cell: Cell, out: Path, report: Callable[[str], None]) -> Record:
    """Return the record of a cell: the existing one, or a new one, written to `out`/<key>.json.

    An error in the cell becomes a record of status "failed" or "oom"; only KeyboardInterrupt, Stopped (also where a
    newer attempt at this cell has begun meanwhile) and errors in writing are raised. The cell's own files go to the
    folder `out`/<key>.

    Where one of several processes fails, the others cannot continue: that process records the error and raises
    JobFailed, the others raise PeerLost.
    """
    group = ranks()
    found = group.agreed(lambda: recorded(cell, out))
    if found is not None:
        return found
    if not group.first:
        return _measure(cell, out, report, NoAttempt())
    with Attempt(out / cell.key, cell.label) as attempt:

        def noted(text: str) -> None:
            attempt.note(text)
            report(text)

        return _measure(cell, out, noted, attempt)


@considerate()
def _measure(cell: Cell, out: Path, report: Callable[[str], None], attempt: Attempt | NoAttempt) -> Record:
    group = ranks()
    status, error, metrics = "done", None, {}
    began = time.time()
    try:
        metrics = _metrics(cell, out / cell.key, report)
        metrics[f"{cell.task.name}_seconds"] = round(time.time() - began, 3)
    except Stopped:
        raise
    except Exception as problem:
        if group.world > 1 and lost_peer(problem):
            raise PeerLost(problem) from problem
        status = "oom" if is_out_of_memory(problem) else "failed"
        error = traceback.format_exc()
        if status == "oom" and isinstance(cell.task, Train):
            error += "the images of a step did not fit: --device-batch takes fewer at once, and accumulates\n"
    record = Record(cell.key, cell.to_json(), status, metrics, environment_of(cell), error)
    if group.world > 1 and error is not None:
        path = out / f"{cell.key}.json"
        if attempt.check() and (not path.exists() or path.stat().st_mtime < began):  # the first of several errors
            results.write(out, record)
        attempt.end(outcome(record))
        raise JobFailed(outcome(record))
    if group.any(not attempt.check()):
        raise TakenOver(attempt)
    if group.first:
        keep_damaged(cell, out)
        results.write(out, record)
        attempt.end(outcome(record))
    group.wait()
    return record


def _metrics(cell: Cell, folder: Path, report: Callable[[str], None]) -> Metrics:
    """Carry out the task of a cell; a user's own task carries itself out."""
    match cell.task:
        case Costs():
            return count_costs(cell.backbone)
        case Speed() as task if task.runtime.runtime != "torch":
            return measure_deployed(cell.backbone, task, report)
        case Speed() as task:
            return measure_backbone(cell.backbone, task, report)
        case Train() as task:
            return train(task, cell.backbone, folder, report)
        case Evaluate() as task:
            return evaluate_weights(task, cell.backbone, folder, report)
        case Imported():
            raise ValueError("it was measured elsewhere: attention-bench import-speed records it")
    return results.recordable(cell.task.run(cell.backbone, folder, report))


class JobFailed(RuntimeError):
    """A cell failed in one of several processes. It is recorded; the process exits with `status`."""

    status = 1


class PeerLost(RuntimeError):
    """Another process of the job is gone: it failed and recorded why, or it was killed, or its node is lost.

    That is not a failure of the cell, which can be run again. The process exits with `status`.
    """

    status = 1

    def __init__(self, problem: Exception) -> None:
        reason = first_line(problem)
        super().__init__(f"another process of the job is gone ({reason}); the same command continues from there")


def run_apart(cell: Cell, out: Path) -> Record:
    """Do as `run` in a process of its own, whose death is a record of status "failed" too; its log is in `out`/logs."""
    try:
        return call_apart(partial(run, cell, out, print), out / "logs", wait_policy(os.environ))
    except JobDied as problem:
        record = failed_record(cell, str(problem))
        results.write(out, record)
        return record

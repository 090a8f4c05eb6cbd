"""Output folders as submissions and jobs would have left them, and a Slurm that says what it is told to."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import results
import slurm
from harness.jobs.submissions import CODE, Array, Submission
from harness.jobs.submissions import FOLDER as SUBMISSIONS
from harness.process.attempts import FOLDER, Sidecar
from results import Record
from slurm import Cluster, JobInfo, Queue, Resources

NOON = 1_800_014_400.0
"""Of 15 January 2027, UTC: the same day nearly everywhere."""


def submit(
    out: Path,
    sweep: str,
    jobs: Sequence[Mapping[str, str]],
    *,
    id: str | None = "70",
    created: float = NOON,
    processes: int = 1,
    cluster: str = "gpu",
) -> Submission:
    """A submission of one array; `jobs`: labels by key of the cells of each. `created`: seconds since 1970."""
    name = f"{sweep.rpartition(':')[2]}-{created:.0f}"
    resources = asdict(
        Resources(nodes=1, tasks_per_node=processes, cpus_per_task=1, gpus_per_node=0, minutes=60, memory_gb=None)
    )
    array = Array(f"{name}.0", [list(cells) for cells in jobs], resources, [], id)
    cells = {key: label for each in jobs for key, label in each.items()}
    folder = out / SUBMISSIONS / name
    code = out.resolve() / SUBMISSIONS / CODE / "0123456789ab"
    code.mkdir(parents=True, exist_ok=True)
    submission = Submission(folder, sweep, Cluster(cluster), created, code, (), (), cells, {}, [array])
    submission.write()
    return submission


def attempt(out: Path, key: str, number: int = 1, *, ago: float = 5.0, **values: Any) -> Sidecar:
    """An attempt at a cell, with a heartbeat `ago` seconds before now."""
    now = time.time()
    facts = {"host": "node1", "pid": 4711, "job": None, "restarts": 0, "started": now - 900, "label": f"cell {key}"}
    sidecar = Sidecar(**{**facts, "number": number, "beat": now - ago, **values})
    results.write_text(out / key / FOLDER / f"{number:04d}.json", json.dumps(asdict(sidecar)))
    return sidecar


def record(out: Path, key: str, status: str = "done", error: str | None = None) -> None:
    cell = {"backbone": {"name": "deit_micro", "attention": "softmax"}, "task": {"name": "costs"}}
    results.write(out, Record(key, cell, status, {}, {}, error))


def job(submission: Submission, index: int, state: str, reason: str = "None", **values: Any) -> JobInfo:
    (array,) = submission.arrays
    facts: dict[str, Any] = {
        "nodes": "",
        "elapsed_s": 60,
        "left_s": 600,
        "start": None,
        "restarts": 0,
        "exit_code": None,
    }
    return JobInfo(
        **{**facts, "id": f"{array.job_id(index)}", "name": array.name, "index": index, "partition": "low"} | values,
        state=state,
        reason=reason,
    )


class Slurm:
    """What `slurm.ask` answers: the jobs of `tell`, or that it cannot be reached. `asked`: how often, about jobs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.jobs: list[JobInfo] = []
        self.unreachable: str | None = None
        self.unaccounted: str | None = None
        self.asked = 0
        monkeypatch.setattr(slurm, "ask", self._ask)

    def tell(self, *jobs: JobInfo) -> None:
        self.jobs = list(jobs)

    def _ask(self, names: Mapping[str, set[int]]) -> Queue:
        self.asked += bool(names)
        if self.unreachable is not None:
            return Queue(unreachable=self.unreachable)
        found: dict[str, dict[int, JobInfo]] = {}
        for job in self.jobs:
            if job.name in names:
                found.setdefault(job.name, {})[job.index] = job
        return Queue(found, unaccounted=self.unaccounted)

"""What was submitted: a folder each, `out`/submissions/<id>, from which everything about it is known again.

    submission.json      sweep, cluster, code, cells by key, and its arrays: name, id, the keys of each job
    cells.pickle         the cells themselves
    logs/                of its jobs, and what submitit pickles
    ../code/<hash>/      a copy of the code, which the jobs run

submission.json is written before anything is submitted, with the names under which Slurm will know the arrays, and
again with their ids: so a submitting shell may die at any time, and no job is lost or submitted twice.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import results
from slurm import Cluster

FOLDER = "submissions"
FILE = "submission.json"


@dataclass(frozen=True)
class Array:
    """Jobs that were submitted together. `jobs`: the keys of the cells of each, by index."""

    name: str
    jobs: list[list[str]]
    resources: dict[str, Any]
    after: list[str]
    id: str | None = None  # None: not submitted yet, or the shell died before it could write it down

    def job_id(self, index: int) -> str | None:
        """Slurm's id of one of its jobs."""
        return self.id if self.id is None or len(self.jobs) == 1 else f"{self.id}_{index}"


@dataclass(frozen=True)
class Submission:
    """One call of `submit`, as its file says. `cells`: labels by key. `created`: seconds since 1970."""

    folder: Path
    sweep: str
    cluster: Cluster
    created: float
    code: Path
    files: tuple[Path, ...]  # of the user's: sweeps, attentions; their copies in `code`
    originals: tuple[Path, ...]
    cells: dict[str, str]
    failed: dict[str, str]  # when those of the cells had failed that it tries again
    arrays: list[Array] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)  # keys of cells whose jobs the user has cancelled

    @property
    def id(self) -> str:
        return self.folder.name

    def jobs(self) -> Iterable[tuple[Array, int, list[str]]]:
        """Its jobs: the array, the index in it, the keys of the cells."""
        return ((array, index, keys) for array in self.arrays for index, keys in enumerate(array.jobs))

    def write(self) -> None:
        """Raises ValueError if it cannot be written."""
        values = {name: value for name, value in asdict(self).items() if name != "folder"}
        results.write_text(self.folder / FILE, json.dumps(values, indent=1, default=str) + "\n")


def name_of(sweep: str) -> str:
    """The name of a new submission, which no other has."""
    return f"{slug(sweep)}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def slug(sweep: str) -> str:
    """A sweep's name as part of file and job names: of `my_sweeps.py:batches` it is `batches`."""
    return re.sub(r"[^\w-]+", "-", sweep.rpartition(":")[2])[:40]


def read_all(out: Path) -> tuple[list[Submission], list[str]]:
    """The submissions of an output folder, oldest first, and a line for each whose file is damaged."""
    found, problems = [], []
    for path in sorted((out / FOLDER).glob(f"*/{FILE}")):
        try:
            found.append(_read(path))
        except ValueError as problem:
            problems.append(str(problem))
    return sorted(found, key=lambda each: each.created), problems


def _read(path: Path) -> Submission:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Submission(
            folder=path.parent,
            sweep=values["sweep"],
            cluster=Cluster(**{**values["cluster"], "setup": tuple(values["cluster"]["setup"])}),
            created=values["created"],
            code=Path(values["code"]),
            files=tuple(Path(file) for file in values["files"]),
            originals=tuple(Path(file) for file in values["originals"]),
            cells=values["cells"],
            failed=values["failed"],
            arrays=[Array(**array) for array in values["arrays"]],
            cancelled=values["cancelled"],
        )
    except OSError as problem:
        raise ValueError(f"{path}: cannot be read: {problem.strerror}") from problem
    except (ValueError, TypeError, LookupError) as problem:
        raise ValueError(f"{path}: not the file of a submission: {problem}") from problem

"""What was submitted: one folder per submission, `out`/submissions/<id>, which holds all there is to know about it.

    submission.json      sweep, cluster, code, cells by key, and its arrays: name, id, the keys of each job
    cells.pickle         the cells themselves
    logs/                logs of its jobs, and what submitit pickles
    ../code/<hash>/      a copy of the code, which the jobs run

submission.json is written before anything is submitted, with the names by which Slurm will know the arrays, and again
with their ids: a submitting shell may die at any time, and no job is lost or submitted twice.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import results
from slurm import Cluster

FOLDER = "submissions"
FILE = "submission.json"
CELLS = "cells.pickle"
CODE = "code"


@dataclass(frozen=True)
class Array:
    """Jobs that were submitted together. `jobs`: the keys of the cells of each job, by index."""

    name: str
    jobs: list[list[str]]
    resources: dict[str, Any]
    after: list[str]
    id: str | None = None  # None: not submitted yet, or the shell died before it could write the id down

    def job_id(self, index: int) -> str | None:
        """Return Slurm's id of one of its jobs."""
        return self.id if self.id is None or len(self.jobs) == 1 else f"{self.id}_{index}"


@dataclass(frozen=True)
class Submission:
    """One call of `submit`, as its file describes it. `created`: seconds since 1970.

    `cells`: labels by key of the sweep, or of the part that was asked for; `submitted`: keys of those in its jobs.
    """

    folder: Path
    sweep: str
    cluster: Cluster
    created: float
    code: Path
    files: tuple[Path, ...]  # the user's sweeps and attentions, as copied into `code`
    originals: tuple[Path, ...]
    cells: dict[str, str]
    failed: dict[str, str]  # when the cells that it tries again had failed
    arrays: list[Array] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)  # keys of cells whose jobs the user has cancelled
    slurm_cluster: str | None = None  # as SLURM_CLUSTERS named it; "": not at all; None: not noted

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def submitted(self) -> set[str]:
        return {key for _, _, keys in self.jobs() for key in keys}

    def jobs(self) -> Iterable[tuple[Array, int, list[str]]]:
        """Return its jobs: the array, the index in it, and the keys of the cells."""
        return ((array, index, keys) for array in self.arrays for index, keys in enumerate(array.jobs))

    def write(self) -> None:
        """Write its file. Raises ValueError if it cannot be written."""
        values = {name: value for name, value in asdict(self).items() if name != "folder"}
        results.write_text(self.folder / FILE, json.dumps(values, indent=1, default=str) + "\n")


def name_of(sweep: str) -> str:
    """Return a unique name for a new submission."""
    return f"{slug(sweep)}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def slug(sweep: str) -> str:
    """Return a sweep's name for use in file and job names: `batches` for `my_sweeps.py:batches`."""
    return re.sub(r"[^\w-]+", "-", sweep.rpartition(":")[2])[:40]


def find_submissions(sweep: str | None, out: Path, warn: Callable[[str], None]) -> list[Submission]:
    """Return the submissions of a sweep (None: all), oldest first; `warn` of each whose file is damaged.

    Raises ValueError if there are none.
    """
    known, problems = read_existing(out)
    warn_damaged(problems, warn)
    chosen = of_sweep(sweep, known)
    if not chosen:
        raise ValueError(nothing_found(sweep, out, known))
    return chosen


def warn_damaged(problems: Iterable[str], warn: Callable[[str], None]) -> None:
    """Warn of each damaged file that was skipped."""
    for problem in problems:
        warn(f"damaged, skipped: {problem}")


def of_sweep(sweep: str | None, known: Sequence[Submission]) -> list[Submission]:
    """Return those of a sweep (None: all)."""
    return [submission for submission in known if sweep in (None, submission.sweep)]


def nothing_found(sweep: str | None, out: Path, known: Sequence[Submission]) -> str:
    """Say in one line that a sweep was not submitted in a folder (None: nothing was), and which were."""
    if sweep is None:
        return f"nothing was submitted or started in {out}"
    names = ", ".join(dict.fromkeys(submission.sweep for submission in known))
    return f"no sweep {sweep!r} was submitted in {out}; {f'these were: {names}' if names else 'nor was any other'}"


def labels_of(known: Iterable[Submission]) -> dict[str, str]:
    """Return the labels by key of all cells of these submissions' sweeps, submitted or not."""
    return {key: label for submission in known for key, label in submission.cells.items()}


def read_existing(out: Path) -> tuple[list[Submission], list[str]]:
    """As `read_all`, of an output folder that must exist: raises ValueError if it does not."""
    if not out.is_dir():
        raise ValueError(f"there is no folder {out}; --out names the folder of the records")
    return read_all(out)


def read_all(out: Path) -> tuple[list[Submission], list[str]]:
    """Return the submissions of an output folder, oldest first, and a line for each whose file is damaged."""
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
            created=float(values["created"]),
            # Where the folder is now, as it may have been moved.
            code=_code(path) / Path(values["code"]).name,
            files=tuple(_moved(Path(file), Path(values["code"]), _code(path)) for file in values["files"]),
            originals=tuple(Path(file) for file in values["originals"]),
            cells=dict(values["cells"]),
            failed=dict(values["failed"]),
            arrays=[_array(**array) for array in values["arrays"]],
            cancelled=list(values["cancelled"]),
            slurm_cluster=values.get("slurm_cluster"),
        )
    except OSError as problem:
        raise ValueError(f"{path}: cannot be read: {problem.strerror}") from problem
    except (ValueError, TypeError, LookupError) as problem:
        raise ValueError(f"{path}: not the file of a submission: {problem}") from problem


def _array(jobs: object, **values: Any) -> Array:
    if not (isinstance(jobs, list) and all(isinstance(keys, list) for keys in jobs)):
        raise ValueError(f"jobs {jobs!r} are not lists of keys")
    return Array(jobs=jobs, **values)


def _code(path: Path) -> Path:
    """Return the folder with copies of the code, beside the folder of the submission whose file this is."""
    return path.resolve().parents[1] / CODE


def _moved(file: Path, copy: Path, now: Path) -> Path:
    """Return a file in a copy of the code, where the copies are in the folder `now`."""
    return now / copy.name / file.relative_to(copy) if file.is_relative_to(copy) else file

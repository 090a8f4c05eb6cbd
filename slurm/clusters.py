"""Clusters by name: a partition of a site's Slurm and the resources of a job there, read from clusters.toml.

    [gpu]
    partition = "a100"
    gpus_per_node = 8
    setup = ["module load cuda"]

`clusters.toml` of the working folder comes first, then ~/.config/attention-bench/clusters.toml. The cluster `local`
needs no table: it is this machine, without Slurm. clusters.example.toml has every key.
"""

import difflib
import math
import os
import re
import shlex
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from slurm import options

LOCAL = "local"
FILE = "clusters.toml"

LEAST_MINUTES = 5
"""Slurm's warning before the limit may be up to a minute early: most of a shorter job would be after its warning."""

_WORDS = (
    "account",
    "qos",
    "gpu_type",
    "constraint",
    "nodelist",
    "exclude",
    "reservation",
    "wckey",
    "licenses",
)
_LEAST = {
    "nodes": 1,
    "gpus_per_node": 0,
    "tasks_per_node": 1,
    "cpus_per_gpu": 1,
    "cpus_per_task": 1,
    "minutes": LEAST_MINUTES,
    "max_array_size": 1,
    "throttle": 1,
    "pack": 1,
    "slots": 1,
}
_FOR_LOCAL = {"slots"}


@dataclass(frozen=True)
class Cluster:
    """Where jobs run and their resources. "Of a training job": short cells get less, and share an allocation.

    Raises ValueError, in one line, for an invalid value and for one that would have no effect.
    """

    name: str
    # None: the site's default partition.
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    # Of a training job.
    nodes: int = 1
    # On each node of a training job, with one process per GPU; 0: jobs without GPUs.
    gpus_per_node: int = 0
    # As in --gpus-per-node=a100:8.
    gpu_type: str | None = None
    # Processes of a training job per node, if there are no GPUs.
    tasks_per_node: int = 1
    cpus_per_gpu: int = 8
    # If there are no GPUs.
    cpus_per_task: int = 4
    # GiB per node of a training job; None: the partition's default.
    memory_gb: float | None = None
    # GiB per CPU instead, for sites that count memory so.
    memory_per_cpu_gb: float | None = None
    # GiB that a GPU has; None: what needs more is not refused.
    gpu_memory_gb: float | None = None
    # Time limit of each job.
    minutes: int = 240
    constraint: str | None = None
    # Nodes that every job gets, all of them.
    nodelist: str | None = None
    exclude: str | None = None
    reservation: str | None = None
    wckey: str | None = None
    licenses: str | None = None
    # Whole nodes for cells whose speed is measured.
    exclusive: bool = False
    # Shell lines that run before the job: modules, conda.
    setup: tuple[str, ...] = ()
    # The command before `python` that runs it inside an image.
    container: str | None = None
    # Any further options of sbatch, by their long names; true: an option without a value.
    sbatch: Mapping[str, options.Value] = field(default_factory=dict)
    # The most jobs in an array, and the most of them that run at the same time.
    max_array_size: int = 1000
    throttle: int | None = None
    # The most short cells in one allocation.
    pack: int = 25
    # The most processes at the same time on this machine, default: one per GPU or core; for the cluster `local` only.
    slots: int | None = None

    @property
    def is_local(self) -> bool:
        return self.name == LOCAL

    @property
    def cpus_per_process(self) -> int:
        """Cores per process; where nodes have GPUs, a process without one gets the cores of one GPU."""
        return self.cpus_per_gpu if self.gpus_per_node else self.cpus_per_task

    def __post_init__(self) -> None:
        problem = _problem(self) or _idle(
            {f.name for f in fields(self) if f.name != "name" and getattr(self, f.name) != _default(f)},
            local=self.is_local,
            gpus=self.gpus_per_node > 0,
        )
        if problem:
            raise ValueError(f"cluster {self.name}: {problem}")


def load(name: str) -> Cluster:
    """Return the cluster of that name, from the first file that has it; `local` needs no file.

    Raises ValueError, in one line, if no file has it, or for a damaged file or table.
    """
    places = (Path(FILE), _configuration() / "attention-bench" / FILE)
    found = {place: tables for place in places if (tables := _tables(place)) is not None}
    for place, tables in found.items():
        if name in tables:
            return _cluster(place, name, tables[name])
    if name == LOCAL:
        return Cluster(name)
    if not found:
        raise ValueError(
            f"cluster {name!r}: there is no {places[0]} here and no {places[1]}; `attention-bench cluster detect` "
            f"writes a first one, and --cluster {LOCAL} needs none"
        )
    known = dict.fromkeys([*(table for tables in found.values() for table in tables), LOCAL])
    raise ValueError(f"{unknown('cluster', name, known)} in {' and '.join(map(str, found))}")


def unknown(kind: str, name: str, allowed: Iterable[str]) -> str:
    """Return one line on a misspelt name: what is wrong, what is near, what is allowed."""
    allowed = list(allowed)
    near = difflib.get_close_matches(name, allowed, n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"unknown {kind} {name!r}{hint} (allowed: {', '.join(allowed) or 'none'})"


def _configuration() -> Path:
    # The XDG specification says to ignore an empty or relative value.
    given = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    return given if given.is_absolute() else Path("~/.config").expanduser()


def _tables(path: Path) -> dict[str, dict[str, Any]] | None:
    """Return the tables of a file; None if there is no such file."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not TOML: {error}") from error
    for key, value in tables.items():
        if not isinstance(value, dict):
            raise ValueError(f"{path}: {key!r} is outside a table; a cluster begins with its name, as in [gpu]")
    return tables


def _cluster(path: Path, name: str, table: dict[str, Any]) -> Cluster:
    allowed = [f.name for f in fields(Cluster) if f.name != "name"]
    for key in table:
        if key not in allowed:
            raise ValueError(f"{path}: cluster {name}: {unknown('key', key, allowed)}")
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    try:
        cluster = Cluster(name, **values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    # A key without effect is refused even if it repeats the default.
    if problem := _idle(set(table), local=cluster.is_local, gpus=cluster.gpus_per_node > 0):
        raise ValueError(f"{path}: cluster {name}: {problem}")
    return cluster


def _default(value: Field[Any]) -> object:
    return value.default if value.default_factory is MISSING else value.default_factory()


def _problem(cluster: Cluster) -> str | None:
    """Return what is wrong with a value, or None; TOML can hold anything."""
    if not re.fullmatch(r"\S+", cluster.name):
        return "a name is one word"
    for key in _WORDS:
        value = getattr(cluster, key)
        if value is not None and not (isinstance(value, str) and re.fullmatch(r"\S+", value) and value.isprintable()):
            return f"{key} must be text without spaces, not {value!r}; without this line, Slurm decides"
    if cluster.partition is not None and not _is_name(cluster.partition):
        return f"partition must be the name of a partition, not {cluster.partition!r}; without this line, Slurm decides"
    for key, least in _LEAST.items():
        value = getattr(cluster, key)
        if value is None and key in ("throttle", "slots"):
            continue
        if type(value) is not int or value < least:
            why = ", as Slurm warns a job up to a minute early" if key == "minutes" else ""
            return f"{key} must be a whole number, at least {least}{why}, not {value!r}"
    for key in ("memory_gb", "memory_per_cpu_gb", "gpu_memory_gb"):
        memory = getattr(cluster, key)
        if memory is not None and not (type(memory) in (int, float) and 0 < memory < math.inf):
            return f"{key} must be a number above 0, not {memory!r}"
    if cluster.memory_gb is not None and cluster.memory_per_cpu_gb is not None:
        return "memory_gb (per node) and memory_per_cpu_gb exclude each other: give one of them"
    if type(cluster.exclusive) is not bool:
        return f"exclusive must be true or false, not {cluster.exclusive!r}"
    if not (isinstance(cluster.setup, tuple) and all(isinstance(line, str) for line in cluster.setup)):
        return f'setup must be a list of shell lines, as in ["module load cuda"], not {cluster.setup!r}'
    if cluster.container is not None and not _is_command(cluster.container):
        return (
            f"container must be the command before python, as in 'apptainer exec --nv IMAGE', not {cluster.container!r}"
        )
    if cluster.partition and "," in cluster.partition:
        return f"partition must be a single one, not {cluster.partition!r}; write one table for each"
    return options.problem(cluster.sbatch)


def _idle(keys: set[str], *, local: bool, gpus: bool) -> str | None:
    """Return the first of these keys that would have no effect, and why; or None."""
    of_gpus = ("gpu_type", "cpus_per_gpu", "gpu_memory_gb")
    reasons = dict.fromkeys(of_gpus, "is for jobs with GPUs, and gpus_per_node is 0")
    if gpus:
        reasons = {"cpus_per_task": "is for jobs without GPUs: give cpus_per_gpu"}
        reasons["tasks_per_node"] = "is for jobs without GPUs: with GPUs there is one process per GPU"
    if local:
        everything = {f.name for f in fields(Cluster)} - {"name"}
        allowed = ", ".join(sorted(_FOR_LOCAL))
        reasons |= dict.fromkeys(everything - _FOR_LOCAL, f"has no effect on this machine (allowed: {allowed})")
    else:
        reasons["slots"] = f"is for the cluster {LOCAL}: give throttle"
    return next((f"{key} {reasons[key]}" for key in sorted(keys) if key in reasons), None)


def _is_name(value: object) -> bool:
    """Whether a value is text without line breaks that neither begins nor ends with a space; sites do use spaces."""
    return isinstance(value, str) and value.isprintable() and value == value.strip() != ""


def _is_command(text: object) -> bool:
    try:
        return isinstance(text, str) and bool(shlex.split(text))
    except ValueError:
        return False

"""Further options of sbatch, from the table `sbatch` of a cluster: which may be given there, and what says the others.

Any option may be, but for those that have a key in clusters.toml and those that a job of ours depends on.
"""

import math
import re
from collections.abc import Mapping

Value = str | int | float | bool

_GPUS = "gpus_per_node and gpu_type"
_TASKS = "nodes, and gpus_per_node or tasks_per_node"
_CPUS = "cpus_per_gpu or cpus_per_task"
_MEMORY = "memory_gb or memory_per_cpu_gb"
_KEYS = {
    "account": "account",
    "array": "throttle and max_array_size",
    "constraint": "constraint",
    "cpus-per-gpu": "cpus_per_gpu",
    "cpus-per-task": _CPUS,
    "exclude": "exclude",
    "exclusive": "exclusive",
    "gpus": _GPUS,
    "gpus-per-node": _GPUS,
    "gpus-per-socket": _GPUS,
    "gpus-per-task": _GPUS,
    "licenses": "licenses",
    "mem": _MEMORY,
    "mem-per-cpu": _MEMORY,
    "mem-per-gpu": _MEMORY,
    "nodefile": "nodelist",
    "nodelist": "nodelist",
    "nodes": "nodes",
    "ntasks": _TASKS,
    "ntasks-per-gpu": _TASKS,
    "ntasks-per-node": _TASKS,
    "partition": "partition",
    "qos": "qos",
    "reservation": "reservation",
    "time": "minutes",
    "time-min": "minutes",
    "wckey": "wckey",
}
"""Options of sbatch, and the keys of a cluster's table that say the same."""

_LOGS = "`attention-bench logs` reads where jobs write"
_WAYS = "a job is requeued by what is left to do when it ends"
_TALK = "it changes what sbatch does or prints"
_OURS = {
    "clusters": "set SLURM_CLUSTERS, which every command of Slurm reads",
    "dependency": "a job waits for the trainings that its cells need",
    "error": _LOGS,
    "help": _TALK,
    "input": "jobs read nothing from there",
    "job-name": "jobs are found again by their names",
    "kill-on-invalid-dep": "a job whose training has failed must not wait for ever",
    "no-requeue": _WAYS,
    "open-mode": _LOGS,
    "output": _LOGS,
    "parsable": _TALK,
    "quiet": _TALK,
    "requeue": _WAYS,
    "signal": "a job is warned in time to save",
    "test-only": _TALK,
    "usage": _TALK,
    "version": _TALK,
    "wait": _TALK,
    "wrap": _TALK,
}
"""Options of sbatch that are the same for every cluster, and why."""


def problem(table: object) -> str | None:
    """Return what is wrong with a table of options, in one line, or None; TOML can hold anything."""
    if not isinstance(table, Mapping):
        return f'sbatch must be a table of options, as in {{ mail-type = "FAIL" }}, not {table!r}'
    names: set[str] = set()
    for key, value in table.items():
        if not isinstance(key, str) or not re.fullmatch(r"[A-Za-z0-9]([\w-]*\w)?", key, re.ASCII):
            return f"sbatch: an option is written without leading dashes, as in mail-type, not {key!r}"
        name = key.replace("_", "-")
        if len(name) == 1:
            return f"sbatch: give the long name of the option {name!r}, as in mail-type"
        if found := _taken(name, value):
            return found
        if name in names:
            return f"sbatch: {name} is given twice"
        names.add(name)
        if not _fits(value):
            return (
                f"sbatch: {name} must be text, a number, or true for an option without a value, not {value!r}; "
                "to leave it out, remove it"
            )
    return None


def flags(table: Mapping[str, Value]) -> dict[str, Value]:
    """Return the options under sbatch's own names."""
    return {key.replace("_", "-"): value for key, value in table.items()}


def _taken(name: str, value: object) -> str | None:
    """Say why an option cannot be given, or return None. sbatch also takes the beginning of a name for the whole."""
    if re.fullmatch(r"gres|tres-per-\w+", name) and re.search(r"(^|[,/])gpu\b", str(value)):
        return f"sbatch: {name} must not ask for GPUs: give the keys {_GPUS}"
    for option in (name, *(each for each in (*_KEYS, *_OURS) if each.startswith(name))):
        short = "" if option == name else f" (short for {option})"
        if option in _KEYS:
            several = " " in _KEYS[option]
            return f"sbatch: {name}{short} has its own place: give the key{'s' * several} {_KEYS[option]}"
        if option in _OURS:
            return f"sbatch: {name}{short} cannot be given: {_OURS[option]}"
    return None


def _fits(value: object) -> bool:
    if isinstance(value, str):
        return bool(value) and value.isprintable()
    return value is True or (type(value) in (int, float) and math.isfinite(value))  # type: ignore[arg-type]

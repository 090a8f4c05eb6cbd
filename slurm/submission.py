"""Submitting an array of jobs to Slurm.

A job is a picklable `Work` (see `slurm.inside`). The options of sbatch keep it alive: it may be requeued; a process
that fails ends the others; a warning comes before the time limit; then `slurm.afterwards` decides what to do next.
"""

from __future__ import annotations

import io
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path

import submitit

from slurm.clusters import Cluster
from slurm.commands import SlurmUnreachable
from slurm.inside import Job, Work, warning_seconds

LOGS = "logs"
TOKEN = "shared"
"""A file beside the jobs that each of their nodes must see."""


@dataclass(frozen=True)
class Resources:
    """What each job of an array gets."""

    nodes: int
    tasks_per_node: int
    cpus_per_task: int
    gpus_per_node: int
    minutes: int
    memory_gb: float | None = None  # GiB per node; None: the partition's default
    exclusive: bool = False

    @property
    def processes(self) -> int:
        return self.nodes * self.tasks_per_node


def submit_array(
    works: Sequence[Work],
    *,
    name: str,
    folder: Path,
    code: Path,
    cluster: Cluster,
    resources: Resources,
    after: Sequence[str] = (),
) -> str:
    """Submit jobs of equal resources as one array, or a single job by itself, and return Slurm's id of it.

    `name`: by which squeue finds the jobs again. `folder`: absolute path for logs and pickles, on a file system that
    all nodes share. `code`: as returned by `snapshot`. `after`: ids of jobs that have to succeed first.

    Raises ValueError, in one line, if Slurm refuses.
    """
    logs = folder / LOGS
    executor = submitit.SlurmExecutor(logs, python=python(cluster.container))
    parameters = {
        "job_name": name,
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "constraint": cluster.constraint,
        "exclude": cluster.exclude,
        "time": resources.minutes,
        "nodes": resources.nodes,
        "ntasks_per_node": resources.tasks_per_node,
        "cpus_per_task": resources.cpus_per_task,
        "mem": None if resources.memory_gb is None else f"{round(1024 * resources.memory_gb)}M",
        "exclusive": resources.exclusive or None,
        "signal_delay_s": warning_seconds(resources.minutes),
        "array_parallelism": cluster.throttle or cluster.max_array_size,
        "dependency": f"afterok:{':'.join(after)}" if after else None,
        "stderr_to_stdout": True,
        "setup": _setup(folder, code, cluster, resources),
        "teardown": _teardown(logs, cluster, resources),
        "srun_args": ["--kill-on-bad-exit=1", f"--cpus-per-task={resources.cpus_per_task}"],
        # Otherwise a job whose dependency has failed would wait forever.
        "additional_parameters": {"requeue": True, "kill-on-invalid-dep": "yes"} | _gpus(cluster, resources),
    }
    executor.update_parameters(**{name: value for name, value in parameters.items() if value is not None})
    share(folder)
    jobs = [Job(work, folder / "meetings") for work in works]
    try:
        # submitit both prints what sbatch says and raises it.
        with _own_environment(), redirect_stderr(io.StringIO()):
            submitted = executor.submit_array(jobs)
    except submitit.core.utils.FailedJobError as problem:
        raise _refused(problem) from None
    return submitted[0].job_id.partition("_")[0]


def share(folder: Path) -> None:
    """Create the folder of jobs. Raises ValueError if it cannot be written."""
    try:
        (folder / LOGS).mkdir(parents=True, exist_ok=True)
        (folder / TOKEN).touch()
    except OSError as problem:
        raise ValueError(f"cannot write to {folder}: {problem.strerror}") from problem


def python(container: str | None) -> str:
    """Return the command that starts Python in a job. -P: the working folder is not searched for modules."""
    return f"{container} python -P" if container else f"{shlex.quote(sys.executable)} -P"


def _setup(folder: Path, code: Path, cluster: Cluster, resources: Resources) -> list[str]:
    """Return the lines of the batch script before the job: checks for folder and code on each node, then the user's."""
    token = shlex.quote(str(folder / TOKEN))
    missing = f"$(hostname) does not see {folder}: the output folder (--out) must be where all nodes see it"
    gone = f"the copy of the code that this job was submitted with is gone: {code}"
    look = f"{_else_end(f'[ -e {token} ]', missing)}; {_else_end(f'[ -d {shlex.quote(str(code))} ]', gone)}"
    lines = [look]
    if resources.nodes > 1:
        lines = [f"srun --ntasks-per-node=1 --ntasks={resources.nodes} bash -c {shlex.quote(look)} || exit 1"]
    for line in cluster.setup:
        # On a line of its own, as the user's line may end in a comment.
        lines += [line, _else_end("[ $? = 0 ]", f"a setup line of cluster {cluster.name} failed: {line}", literal=True)]
    # The copy of the code comes before whatever modules have put on the path. Without a limit on threads, every process
    # would use all cores of its node.
    exports = [
        f"export PYTHONSAFEPATH=1 PYTHONPATH={shlex.quote(str(code))}${{PYTHONPATH:+:$PYTHONPATH}}",
        f"export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-{resources.cpus_per_task}}}",
    ]
    return [*lines, *exports]


def _else_end(condition: str, message: str, literal: bool = False) -> str:
    """Return shell code that ends the job with a line unless a condition holds; $(...) is run unless `literal`."""
    said = shlex.quote(f"attention-bench: {message}") if literal else f'"attention-bench: {message}"'
    return f"{condition} || {{ echo {said}; exit 1; }}"


def _teardown(logs: Path, cluster: Cluster, resources: Resources) -> list[str]:
    command = f"{python(cluster.container)} -m slurm.afterwards {shlex.quote(str(logs))}"
    return ["status=$?", f'[ "$status" = 0 ] || exec {command} "$status" "$SECONDS" {resources.minutes}']


def _gpus(cluster: Cluster, resources: Resources) -> dict[str, str]:
    if not resources.gpus_per_node:
        return {}
    kind = f"{cluster.gpu_type}:" if cluster.gpu_type else ""
    return {"gpus-per-node": f"{kind}{resources.gpus_per_node}"}


@contextmanager
def _own_environment() -> Iterator[None]:
    """Hide from sbatch the job that this process may itself be in, but not which cluster is meant."""
    conf = os.environ.get("SLURM_CONF")
    with submitit.helpers.clean_env():
        if conf is not None:
            os.environ["SLURM_CONF"] = conf
        yield


def _refused(problem: Exception) -> ValueError:
    """Return what sbatch said, in one line."""
    lines = [line.strip() for line in str(problem).splitlines() if "error" in line.lower() and "sbatch" in line]
    said = (lines or [str(problem).strip().splitlines()[-1]])[-1].removeprefix("sbatch: error: ")
    if "contact" in said.lower():
        return SlurmUnreachable(f"Slurm does not answer: {said}")
    return ValueError(f"Slurm refuses the job: {said}")

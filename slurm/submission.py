"""Submitting an array of jobs to Slurm.

A job is a picklable `Work` (see `slurm.inside`). The options of sbatch keep it alive: it may be requeued; a process
that fails ends the others; a warning comes before the time limit; then `slurm.afterwards` decides what to do next.
"""

from __future__ import annotations

import re
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import submitit

from slurm import options, queue
from slurm.clusters import Cluster
from slurm.commands import SlurmUnreachable, output
from slurm.inside import Job, Work, warning_seconds

LOGS = "logs"
TOKEN = "shared"
"""A file beside the jobs that each of their nodes must see."""

SBATCH_SECONDS = 300.0
"""How long sbatch may take: it tries for minutes to reach a controller that is busy."""

PATIENCE = 15.0
"""Seconds for which Slurm is asked for a job of which sbatch does not say whether it was queued."""

_LOST = re.compile(
    r"timed out|time-?out|zero bytes|unable to contact|not responding|rpc limit|network is |no route to host|"
    r"(connect|connection|send|receive|shutdown) failure|connection (reset|refused|aborted|closed)|broken pipe|"
    r"connection (rejected|forced)|socket error|header lengths|shutting down and closing|would block|now in progress|"
    r"transport endpoint|temporarily unavailable|interrupted system call|(unexpected|insane) message|"
    r"protocol authentication|: (no error|success)$|^exit code",
    re.IGNORECASE,
)
"""What sbatch says where the job may be queued all the same: it did not hear the controller's answer."""

_ID = re.compile(r"submitted batch job (\d+)", re.IGNORECASE)


class Unconfirmed(SlurmUnreachable):
    """Whether a job was queued is not known: sbatch lost the controller, and Slurm did not name the job since."""


def mebibytes(gb: float) -> int:
    """Return an amount of memory as sbatch is asked for it: at least 1, as 0 asks for all that a node has."""
    return max(round(1024 * gb), 1)


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
    memory_per_cpu_gb: float | None = None  # instead of memory_gb

    @property
    def processes(self) -> int:
        return self.nodes * self.tasks_per_node

    @property
    def node_memory_gb(self) -> float | None:
        """GiB per node, however it is asked for."""
        if self.memory_per_cpu_gb is None:
            return self.memory_gb
        return self.memory_per_cpu_gb * self.tasks_per_node * self.cpus_per_task


def submit_array(
    works: Sequence[Work],
    *,
    name: str,
    folder: Path,
    code: Path,
    cluster: Cluster,
    resources: Resources,
    after: Sequence[str] = (),
    exports: Sequence[str] = (),
) -> str:
    """Submit jobs of equal resources as one array, or a single job by itself, and return Slurm's id of it.

    `name`: unique, as squeue finds the jobs again by it. `folder`: absolute path for logs and pickles, on a file system
    that all nodes share. `code`: as returned by `copy_code`. `after`: ids of jobs that have to succeed first.
    `exports`: lines of shell that set variables, after the cluster's own setup.

    Raises:
        ValueError: in one line, if Slurm refuses.
        Unconfirmed: if sbatch did not say what became of the job, nor did Slurm; it may appear in the queue later.
    """
    logs = folder / LOGS
    executor = submitit.SlurmExecutor(logs, python=python(cluster.container))
    parameters = {
        "job_name": name,
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "wckey": cluster.wckey,
        "constraint": cluster.constraint,
        "nodelist": cluster.nodelist,
        "exclude": cluster.exclude,
        "time": resources.minutes,
        "nodes": resources.nodes,
        "ntasks_per_node": resources.tasks_per_node,
        "cpus_per_task": resources.cpus_per_task,
        "mem": None if resources.memory_gb is None else f"{mebibytes(resources.memory_gb)}M",
        "mem_per_cpu": None if resources.memory_per_cpu_gb is None else f"{mebibytes(resources.memory_per_cpu_gb)}M",
        "exclusive": resources.exclusive or None,
        "signal_delay_s": warning_seconds(resources.minutes),
        "array_parallelism": cluster.throttle or cluster.max_array_size,
        "dependency": f"afterok:{':'.join(after)}" if after else None,
        "stderr_to_stdout": True,
        "setup": [*_setup(folder, code, cluster, resources), *exports, _link(logs, name)],
        "teardown": _teardown(logs, cluster, resources),
        "srun_args": ["--kill-on-bad-exit=1", f"--cpus-per-task={resources.cpus_per_task}"],
        "additional_parameters": _further(cluster, resources),
    }
    # Without a key of the cluster's, submitit would send one of its own, which sites that check wckeys refuse.
    given = {"wckey": None} | {name: value for name, value in parameters.items() if value is not None}
    executor.update_parameters(**given)
    share(folder)
    # What the jobs run is there before sbatch: whatever becomes of this shell, they find it.
    for index, work in enumerate(works):
        submitit.core.utils.DelayedSubmission(Job(work, folder / "meetings")).dump(logs / f"{name}_{index}.pkl")
    if len(works) > 1:
        executor.parameters["map_count"] = len(works)
    script = logs / f"{name}.sh"
    script.write_text(executor._make_submission_file_text(executor._submitit_command_str, ""))
    return _submitted(script, name)


def _link(logs: Path, name: str) -> str:
    """Return the line of the batch script by which submitit finds what a job runs, under the id of the job."""
    file = f'{shlex.quote(str(logs / name))}_"${{SLURM_ARRAY_TASK_ID:-0}}".pkl'
    id = "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}"
    return _else_end(f'ln -sfn {file} {shlex.quote(str(logs))}/"{id}"_submitted.pkl', f"cannot write to {logs}")


def _submitted(script: Path, name: str) -> str:
    """Hand a batch script to sbatch, and return the id of the job: as sbatch tells it, or Slurm by the name.

    Raises as `submit_array` does.
    """
    try:
        said = output("sbatch", str(script), seconds=SBATCH_SECONDS)
        if found := _ID.search(said):
            return found[1]
        problem, lost = SlurmUnreachable(f"sbatch named no job: {' '.join(said.split())}"), True
    except SlurmUnreachable as error:
        if not error.said:  # it was not even run
            raise
        if found := _ID.search(error.printed):  # what failed came afterwards
            return found[1]
        problem, lost = error, error.cut_off or _is_lost(error.said)
    id, silent = _find(name, PATIENCE if lost else 0.0)
    if id is not None:
        return id
    if not lost:
        raise ValueError(f"Slurm refuses the job: {'; '.join(problem.said)}")
    raise Unconfirmed(f"{problem}; {silent or f'Slurm does not know the job after {PATIENCE:g} s'}")


def _is_lost(said: Sequence[str]) -> bool:
    """Whether sbatch says that it did not hear the controller's answer. Other lines may be a site's, about anything."""
    last = next((line for line in reversed(said) if "submission failed" in line), said[-1])
    slurms = [line for line in said if re.match(r"slurm_\w+: ", line)]
    return any(map(_LOST.search, [last, *slurms]))


def _find(name: str, seconds: float) -> tuple[str | None, str | None]:
    """Look for a job by its name, for so many seconds; return its id, and why Slurm did not answer in the end."""
    end, pause = time.monotonic() + seconds, 0.5
    while True:
        silent = None
        try:
            if (id := queue.find(name)) is not None:
                return id, None
        except SlurmUnreachable as problem:
            silent = str(problem)
        left = end - time.monotonic()
        if left <= 0:
            return None, silent
        time.sleep(min(pause, left))
        pause *= 2


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
        # srun must hand these on, also where sbatch's --export=NONE has kept the shell's own from the job.
        "unset SLURM_EXPORT_ENV",
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


def _further(cluster: Cluster, resources: Resources) -> dict[str, options.Value]:
    """Return the options of sbatch for which submitit has no parameter."""
    kind = f"{cluster.gpu_type}:" if cluster.gpu_type else ""
    ours: dict[str, options.Value | None] = {
        "requeue": True,
        # Otherwise a job whose dependency has failed would wait forever.
        "kill-on-invalid-dep": "yes",
        "gpus-per-node": f"{kind}{resources.gpus_per_node}" if resources.gpus_per_node else None,
        "reservation": cluster.reservation,
        "licenses": cluster.licenses,
    }
    return {name: value for name, value in ours.items() if value is not None} | options.flags(cluster.sbatch)

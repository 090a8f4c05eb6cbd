"""A preview of a submission, in lines: cells, jobs, the resources of each, and an estimate of the time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import results
import slurm
from harness.estimates.estimate import Estimator
from harness.estimates.memory import GIB, need_of
from harness.estimates.totals import total_of_jobs
from harness.jobs.launch import Choice
from harness.jobs.plan import Allocation, on_gpu
from harness.process.environment import cores
from results.wording import count
from slurm import Cluster, Limits, Resources


def preview_lines(
    choice: Choice,
    planned: Sequence[Sequence[Allocation]],
    cluster: Cluster,
    limits: Limits | None,
    out: Path,
    *,
    probe: bool,
) -> Iterator[str]:
    """Yield lines on the cells, the arrays with the resources of each job, and an estimate.

    `limits`: those of the cluster's partition; None for this machine.

    Raises ValueError for a probe that cannot be made on this machine.
    """
    chosen = {cell.key for cell in choice.cells}
    needs = {} if cluster.gpu_memory_gb is None else _memory(planned)
    for state in choice.states.values():
        yield f"{state.key}  {'to submit' if state.key in chosen else state.state:9}  {state.label}" + (
            f", about {needs[state.key]:.1f} GiB on a GPU" if state.key in needs else ""
        )
    yield from counts(choice, out)
    if not planned:
        return
    for number, array in enumerate(planned):
        yield f"{'process' if cluster.is_local else 'array'} {number}: {_array(array, cluster)}"
    records = results.read_all(out)[0] if out.is_dir() else []
    estimator = Estimator(records, probe=probe, cores=None if cluster.is_local else cluster.cpus_per_process)
    estimates = [
        [[estimator.estimate(cell, each.resources.processes) for cell in each.cells] for each in array]
        for array in planned
    ]
    if limits is None:
        jobs = [[estimate for each in process for estimate in each] for process in estimates]
        total = total_of_jobs(jobs, [len(jobs)] * len(jobs))
    else:
        jobs = [each for array in estimates for each in array]
        found = [slurm.jobs_at_once(cluster, limits, each.resources) for array in planned for each in array]
        most = min(len(jobs), cluster.throttle or len(jobs))
        free = "if all of them find a place" if None in found else "while nobody else uses the partition"
        total = total_of_jobs(jobs, [min(most, most if each is None else each) for each in found], free)
    yield f"estimate: {total}"
    for note, number in Counter(each.note for job in jobs for each in job).most_common(3):
        yield f"  {note} ({count(number, 'cell')})"


def counts(choice: Choice, out: Path) -> Iterator[str]:
    """Yield lines on how many cells there are, and why some are not submitted."""
    reasons = {
        "done": f"recorded in {out}",
        "oom": "recorded as out of memory",
        "failed": "failed: attention-bench retry --failed resubmits them",
        "running": "running",
        "pending": "already submitted",
    }
    chosen = {cell.key for cell in choice.cells}
    left = Counter(state.state for state in choice.states.values() if state.key not in chosen)
    yield f"{count(len(choice.states), 'cell')}, {len(chosen):,} to submit"
    for state, number in left.items():
        yield f"  {number} {reasons[state]}"


def _memory(planned: Sequence[Sequence[Allocation]]) -> dict[str, float]:
    """Return the GiB that each cell on a GPU is estimated to need on it, by key."""
    return {
        cell.key: need_of(cell, each.resources.processes) / GIB
        for array in planned
        for each in array
        for cell in each.cells
        if cell.device == "cuda"
    }


def _array(array: Sequence[Allocation], cluster: Cluster) -> str:
    cells = sum(len(each.cells) for each in array)
    if cluster.is_local:
        where = "one GPU" if on_gpu(array) else f"this CPU of {cores()} cores"
        return f"{count(cells, 'cell')} in sequence on {where}"
    each = f" of up to {max(len(each.cells) for each in array)} cells" if cells > len(array) else ""
    throttle = f", at most {cluster.throttle} at a time" if cluster.throttle and cluster.throttle < len(array) else ""
    after = f", after {count(len(array[0].after), 'training')}" if array[0].after else ""
    return f"{count(len(array), 'job')}{each}{throttle}{after}; each {_resources(array[0].resources, cluster)}"


def _resources(each: Resources, cluster: Cluster) -> str:
    gpus = f"{count(each.gpus_per_node, 'GPU')}, " if each.gpus_per_node else ""
    memory = "" if each.node_memory_gb is None else f", {each.node_memory_gb:g} GB"
    whole = ", whole nodes" if each.exclusive else ""
    return (
        f"{count(each.nodes, 'node')} x ({count(each.tasks_per_node, 'process')}, {gpus}"
        f"{count(each.tasks_per_node * each.cpus_per_task, 'core')}{memory}){whole}, {each.minutes} min, "
        f"{f'partition {cluster.partition}' if cluster.partition else 'default partition'}"
    )

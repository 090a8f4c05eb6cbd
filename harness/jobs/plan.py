"""From cells to allocations: which cells share one, the resources of each, and which has to wait for another.

A training gets an allocation of its own, of the size in the cluster's table. Cells of seconds to minutes (costs, speed,
evaluation) would spend more time in the queue than running: those with equal needs share an allocation, and run in
sequence on one device.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TypeVar

from harness.cells import Cell, DataSource, Evaluate, Speed, Train
from harness.cells.recipe import split_batch
from harness.process.environment import cores, gpus, readers_of
from slurm import Cluster, Resources

Item = TypeVar("Item")


@dataclass(frozen=True)
class Allocation:
    """Cells that one job runs, its resources, and the keys of cells that other jobs must record before it starts."""

    cells: tuple[Cell, ...]
    resources: Resources
    after: tuple[str, ...] = ()


def plan(cells: Sequence[Cell], cluster: Cluster, live: Collection[str] = ()) -> list[Allocation]:
    """Return the allocations for these cells: those that others wait for come first, then short ones.

    `live`: keys of cells that are running or waiting in other jobs.

    Raises ValueError for a cell that the cluster's table has no resources for.
    """
    by_key = {cell.key: cell for cell in cells}
    trainings: list[Allocation] = []
    packs: dict[tuple[Resources, tuple[str, ...]], list[Cell]] = {}
    # On this machine there is no queue, and `slots` distributes single cells evenly.
    most = 1 if cluster.is_local else cluster.pack
    for cell in cells:
        resources = resources_of(cell, cluster)
        after = tuple(key for key in cell.needs if key in by_key or key in live)
        cell = _fed(cell, resources.cpus_per_task)
        if isinstance(cell.task, Train):
            trainings.append(Allocation((cell,), resources, after))
        else:
            packs.setdefault((resources, after), []).append(cell)
    short = [
        Allocation(part, resources, after)
        for (resources, after), packed in packs.items()
        for part in _parts(packed, most)
    ]
    return sorted(short + trainings, key=lambda allocation: _depth(allocation.cells[0], by_key))


def arrays(allocations: Iterable[Allocation], most: int) -> list[list[Allocation]]:
    """Group allocations into arrays: of equal resources, waiting for the same cells, at most `most` in each."""
    return [
        list(part)
        for _, alike in groupby(allocations, key=lambda each: (each.resources, each.after))
        for part in _parts(list(alike), most)
    ]


def slots(allocations: Sequence[Allocation], cluster: Cluster) -> list[list[Allocation]]:
    """Return what each process of this machine runs in sequence, with one process per GPU or per core.

    Cells that wait for one another share a process. CPU speed is measured with no other process beside it.
    """
    count = cluster.slots or cores()
    if on_gpu(allocations):
        count = min(cluster.slots or len(gpus()), len(gpus()))
    if any(isinstance(cell.task, Speed) and cell.device == "cpu" for each in allocations for cell in each.cells):
        count = 1
    dealt: list[list[Allocation]] = [[] for _ in range(min(count, len(allocations)))]
    owner: dict[str, list[Allocation]] = {}
    for allocation in allocations:
        slot = next((owner[key] for key in allocation.after if key in owner), min(dealt, key=len))
        slot.append(allocation)
        owner |= {cell.key: slot for cell in allocation.cells}
    return [slot for slot in dealt if slot]


def on_gpu(allocations: Iterable[Allocation]) -> bool:
    """Whether any of these needs a GPU."""
    return any(each.resources.gpus_per_node for each in allocations)


def resources_of(cell: Cell, cluster: Cluster) -> Resources:
    """Return the resources of a cell's job.

    Raises ValueError if the cluster has no GPUs for it, or its batch cannot be split among that many processes.
    """
    cuda = cell.device == "cuda"
    if cluster.is_local:
        return Resources(nodes=1, tasks_per_node=1, cpus_per_task=1, gpus_per_node=int(cuda), minutes=cluster.minutes)
    if cuda and not cluster.gpus_per_node:
        raise ValueError(
            f"{cell.label} needs a GPU, and cluster {cluster.name} has none: set gpus_per_node in its table, "
            "or give --device cpu"
        )
    nodes, tasks, share = 1, 1, 1 / (cluster.gpus_per_node or cluster.tasks_per_node)
    if isinstance(cell.task, Train):
        nodes, tasks, share = cluster.nodes, cluster.gpus_per_node if cuda else cluster.tasks_per_node, 1.0
        split_batch(cell.task.recipe, nodes * tasks, cell.task.device_batch)
    return Resources(
        nodes=nodes,
        tasks_per_node=tasks,
        cpus_per_task=cluster.cpus_per_process,
        gpus_per_node=tasks if cuda else 0,
        minutes=cluster.minutes,
        memory_gb=None if cluster.memory_gb is None else cluster.memory_gb * share,
        exclusive=cluster.exclusive and isinstance(cell.task, Speed),
        memory_per_cpu_gb=cluster.memory_per_cpu_gb,
    )


def _fed(cell: Cell, cpus: int) -> Cell:
    """Return the same cell with data workers on the remaining cores, unless it sets a number.

    A sweep does not know where it will run; without this a GPU would wait for images most of the time.
    """
    match cell.task:
        case Train(workers=0, data=DataSource(root=str())) | Evaluate(workers=0, data=DataSource(root=str())):
            return Cell(cell.backbone, replace(cell.task, workers=readers_of(cpus)))
    return cell


def _depth(cell: Cell, by_key: dict[str, Cell]) -> int:
    """Return how many other cells must run before it, in sequence."""
    return max((1 + _depth(by_key[key], by_key) for key in cell.needs if key in by_key), default=0)


def _parts(items: Sequence[Item], most: int) -> list[tuple[Item, ...]]:
    """Split into as few parts as possible, of about equal size, at most `most` items each."""
    count = math.ceil(len(items) / most)
    return [tuple(items[len(items) * n // count : len(items) * (n + 1) // count]) for n in range(count)]

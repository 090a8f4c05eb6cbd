"""What `--dry-run` says: which cells, in which jobs, what each gets, and about how long all of it takes."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import results
from backbones import preset
from harness.cells import MICRO, Cell, Costs, Runtime, Speed, Train
from harness.cli import preview
from harness.estimates.memory import GIB, memory_of
from harness.jobs.launch import Choice
from harness.jobs.plan import arrays, plan, slots
from harness.jobs.states import CellState, State
from slurm import Cluster, Limits
from slurm.scontrol import Node
from tests.harness.planted import FASHION, speed

Make = Callable[..., Cell]
SPEC = preset("deit_micro")
COSTS = [Cell(preset("deit_micro", attention=name), Costs()) for name in ("softmax", "linear", "focused")]
ON_GPU = Cell(SPEC, Speed(Runtime(device="cuda")))
TRAINING = Cell(SPEC, Train(MICRO, FASHION))
LOCAL = Cluster("local")

NODES = tuple(Node(f"n{number}", frozenset({"p"}), (("a100", 4),), 24, 64000, frozenset()) for number in range(2))
LIMITS = Limits("p", "UP", 600, None, NODES, 0, 1000)


def lines(
    cells: Sequence[Cell], cluster: Cluster, out: Path, others: Sequence[tuple[str, State]] = (), most: int = 100
) -> list[str]:
    """Of these cells, which are to be submitted; `others`: labels and states of further ones."""
    states = {cell.key: CellState(cell.key, cell.label, "unsubmitted") for cell in cells}
    states |= {label: CellState(label, label, state) for label, state in others}
    allocations = plan(cells, cluster)
    planned = slots(allocations, cluster) if cluster.is_local else arrays(allocations, most)
    limits = None if cluster.is_local else LIMITS
    return list(preview.preview_lines(Choice(list(cells), states, {}, {}), planned, cluster, limits, out, probe=False))


def of_arrays(cells: Sequence[Cell], cluster: Cluster, out: Path, most: int = 100) -> list[str]:
    return [line for line in lines(cells, cluster, out, most=most) if line.startswith(("array ", "process "))]


def test_every_cell_has_a_line_and_those_that_are_left_out_a_reason(tmp_path: Path) -> None:
    others: list[tuple[str, State]] = [
        ("a", "done"),
        ("b", "done"),
        ("c", "oom"),
        ("d", "failed"),
        ("e", "running"),
        ("f", "pending"),
    ]
    found = lines(COSTS[:1], Cluster("cpu"), tmp_path, others)
    assert found[0] == f"{COSTS[0].key}  to submit  {COSTS[0].label}"
    assert [line.split() for line in found[1:7]] == [[name, state, name] for name, state in others]
    assert found[7:13] == [
        "7 cells, 1 to submit",
        f"  2 recorded in {tmp_path}",
        "  1 recorded as out of memory",
        "  1 failed: attention-bench retry --failed resubmits them",
        "  1 running",
        "  1 already submitted",
    ]


def test_a_cell_has_its_memory_where_that_of_the_gpus_is_known(tmp_path: Path) -> None:
    cluster = Cluster("gpu", gpus_per_node=4, gpu_memory_gb=16)
    need = memory_of(SPEC, "train", Runtime(device="cuda").batch).peak / GIB
    found = lines([ON_GPU, COSTS[0]], cluster, tmp_path)
    assert found[0] == f"{ON_GPU.key}  to submit  {ON_GPU.label}, about {need:.1f} GiB on a GPU"
    assert found[1] == f"{COSTS[0].key}  to submit  {COSTS[0].label}"
    assert "GiB" not in lines([ON_GPU], replace(cluster, gpu_memory_gb=None), tmp_path)[0]


def test_where_nothing_is_left_there_is_no_estimate(tmp_path: Path) -> None:
    assert lines([], Cluster("cpu"), tmp_path, [("a", "done")])[1:] == [
        "1 cell, 0 to submit",
        f"  1 recorded in {tmp_path}",
    ]


@pytest.mark.parametrize(
    ("cells", "cluster", "wanted"),
    [
        (
            COSTS[:1],
            Cluster("cpu"),
            ["1 job; each 1 node x (1 process, 4 cores), 240 min, default partition"],
        ),
        (
            COSTS,
            Cluster("cpu", partition="long", pack=2, throttle=1, memory_gb=1.5, minutes=30, cpus_per_task=1),
            [
                "2 jobs of up to 2 cells, at most 1 at a time; each 1 node x (1 process, 1 core, 1.5 GB), 30 min, "
                "partition long"
            ],
        ),
        (
            [ON_GPU],
            Cluster("gpu", gpus_per_node=4, cpus_per_gpu=6, exclusive=True, throttle=8),
            ["1 job; each 1 node x (1 process, 1 GPU, 6 cores), whole nodes, 240 min, default partition"],
        ),
        (
            [TRAINING, TRAINING.evaluation()],
            Cluster("cpu", nodes=2, tasks_per_node=4, cpus_per_task=3),
            [
                "1 job; each 2 nodes x (4 processes, 12 cores), 240 min, default partition",
                "1 job, after 1 training; each 1 node x (1 process, 3 cores), 240 min, default partition",
            ],
        ),
        (
            [Cell(SPEC, replace(TRAINING.training, device="cuda"))],
            Cluster("gpu", nodes=2, gpus_per_node=4, cpus_per_gpu=6),
            ["1 job; each 2 nodes x (4 processes, 4 GPUs, 24 cores), 240 min, default partition"],
        ),
    ],
    ids=["default", "packed", "speed", "after", "gpus"],
)
def test_what_each_job_gets(tmp_path: Path, cells: list[Cell], cluster: Cluster, wanted: list[str]) -> None:
    assert of_arrays(cells, cluster, tmp_path) == [f"array {number}: {line}" for number, line in enumerate(wanted)]


def test_what_each_process_of_this_machine_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert of_arrays(COSTS, LOCAL, tmp_path) == [
        "process 0: 2 cells in sequence on this CPU of 2 cores",
        "process 1: 1 cell in sequence on this CPU of 2 cores",
    ]
    # What the first cell needs is not all.
    assert of_arrays([COSTS[0], ON_GPU], LOCAL, tmp_path) == ["process 0: 2 cells in sequence on one GPU"]


def test_the_estimate_says_what_it_rests_on(tmp_path: Path) -> None:
    rough = lines([TRAINING], Cluster("cpu"), tmp_path)
    (estimate,) = (line for line in rough if line.startswith("estimate: "))
    assert "CPU-job-hours (1 cell from GMACs, rough)" in estimate
    assert estimate.endswith(" of disk")
    results.write(tmp_path, speed(SPEC, 10.0))
    found = lines([TRAINING, *COSTS], Cluster("cpu"), tmp_path)
    (estimate,) = (line for line in found if line.startswith("estimate: "))
    assert "(1 cell from recorded speeds, 3 from the model's size)" in estimate
    assert "with 2 jobs at a time (while nobody else uses the partition), " in estimate
    assert found[-2:][0].startswith("  the size of the model (3 cells)")
    assert found[-1].endswith("(1 cell)")


@pytest.mark.parametrize(
    ("changes", "unseen", "said"),
    [
        ({"cpus_per_task": 1}, 0, "with 3 jobs at a time (while nobody else uses the partition)"),
        # One on each of the two nodes.
        ({"cpus_per_task": 13}, 0, "with 2 jobs at a time (while nobody else uses the partition)"),
        ({"memory_gb": 40.0}, 0, "with 2 jobs at a time (while nobody else uses the partition)"),
        ({"throttle": 1}, 0, "with 1 job at a time (while nobody else uses the partition)"),
        ({"cpus_per_task": 13}, 5, "with 3 jobs at a time (if all of them find a place)"),
    ],
    ids=["free", "cores", "memory", "throttle", "nodes that are not shown"],
)
def test_how_many_jobs_run_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], unseen: int, said: str
) -> None:
    monkeypatch.setattr(f"{__name__}.LIMITS", LIMITS._replace(unseen=unseen))
    cluster = replace(Cluster("cpu", pack=1), **changes)
    assert said in lines(COSTS, cluster, tmp_path)[-2]


def test_a_task_of_the_users_is_not_counted_and_said_to_be(tmp_path: Path, counting: Make) -> None:
    found = lines([counting()], LOCAL, tmp_path)
    assert "an unknown number of hours (1 cell unknown and not counted)" in found[-2]
    assert found[-1] == "  unknown: no estimate of the task Counting (1 cell)"

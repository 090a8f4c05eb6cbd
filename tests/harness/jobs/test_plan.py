"""Which cells share an allocation and what each gets, on clusters of several kinds and on this machine."""

import os
import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from backbones import preset
from harness.cells import MICRO, Cell, Costs, Runtime, Speed, Task, Train
from harness.jobs.launch import check_memory
from harness.jobs.plan import Allocation, arrays, plan, resources_of, slots
from slurm import Cluster, Resources
from tests.harness.planted import FASHION

ATTENTIONS = ("softmax", "linear", "focused")
TRAIN = Train(replace(MICRO, batch=64), FASHION)
ON_CPU, ON_GPU = Speed(Runtime(device="cpu")), Speed(Runtime(device="cuda"))
CPU = Cluster("cpu", tasks_per_node=2, cpus_per_task=3, nodes=2, memory_gb=32)
GPU = Cluster("gpu", nodes=2, gpus_per_node=4, cpus_per_gpu=6, memory_gb=100, minutes=90)
HERE = Cluster("local")


def cells(task: Task, count: int = 1) -> list[Cell]:
    """Of one task, on as many unlike backbones."""
    return [
        Cell(preset("deit_micro", attention=ATTENTIONS[number % 3], depth=1 + number // 3), task)
        for number in range(count)
    ]


def trainings(count: int, device: str = "cpu") -> list[Cell]:
    return [Cell(preset("deit_micro"), replace(TRAIN, device=device, seed=seed)) for seed in range(count)]


def sizes(allocations: Sequence[Allocation]) -> list[int]:
    return [len(each.cells) for each in allocations]


def keys(allocations: Sequence[Allocation]) -> list[str]:
    return [cell.key for each in allocations for cell in each.cells]


@pytest.mark.parametrize(
    ("count", "pack", "wanted"),
    [(1, 25, [1]), (25, 25, [25]), (26, 25, [13, 13]), (30, 7, [6] * 5), (10, 4, [3, 3, 4]), (3, 1, [1, 1, 1])],
)
def test_short_cells_share_allocations_of_like_size_in_their_order(count: int, pack: int, wanted: list[int]) -> None:
    todo = cells(Costs(), count)
    found = plan(todo, replace(CPU, pack=pack))
    assert sizes(found) == wanted
    assert keys(found) == [cell.key for cell in todo]


def test_an_allocation_is_of_one_hardware_class() -> None:
    todo = [cell for trio in zip(cells(Costs(), 4), cells(ON_GPU, 4), cells(ON_CPU, 4), strict=True) for cell in trio]
    found = plan(todo, replace(GPU, exclusive=True))
    assert sizes(found) == [4, 4, 4]
    assert [{cell.task.name for cell in each.cells} for each in found] == [{"costs"}, {"speed"}, {"speed"}]
    assert [(each.resources.gpus_per_node, each.resources.exclusive) for each in found] == [
        (0, False),
        (1, True),
        (0, True),
    ]
    # Without whole nodes a CPU is a CPU.
    assert sizes(plan(todo, GPU)) == [8, 4]


def test_a_training_is_alone_and_of_the_size_that_the_table_says() -> None:
    found = plan([*trainings(2, "cuda"), *cells(Costs(), 2)], GPU)
    assert sizes(found) == [2, 1, 1], "what is short comes first"
    wanted = Resources(nodes=2, tasks_per_node=4, cpus_per_task=6, gpus_per_node=4, minutes=90, memory_gb=100)
    assert [each.resources for each in found[1:]] == [wanted, wanted]


@pytest.mark.parametrize(
    ("cell", "cluster", "wanted"),
    [
        (cells(TRAIN)[0], CPU, Resources(2, 2, 3, 0, 240, 32)),
        (cells(TRAIN)[0], Cluster("cpu"), Resources(1, 1, 4, 0, 240, None)),
        (cells(ON_GPU)[0], GPU, Resources(1, 1, 6, 1, 90, 25)),
        (cells(ON_GPU)[0], replace(GPU, exclusive=True), Resources(1, 1, 6, 1, 90, 25, exclusive=True)),
        (cells(ON_CPU)[0], replace(CPU, exclusive=True), Resources(1, 1, 3, 0, 240, 16, exclusive=True)),
        (cells(Costs())[0], replace(CPU, exclusive=True), Resources(1, 1, 3, 0, 240, 16)),
        (cells(TRAIN)[0], replace(CPU, exclusive=True), Resources(2, 2, 3, 0, 240, 32)),
        (cells(Costs())[0], GPU, Resources(1, 1, 6, 0, 90, 25)),
        (cells(ON_GPU)[0], replace(GPU, memory_gb=None), Resources(1, 1, 6, 1, 90, None)),
    ],
    ids=[
        "training-cpu",
        "training-small",
        "speed-gpu",
        "whole-gpu-node",
        "whole-cpu-node",
        "costs-need-no-whole-node",
        "nor-do-trainings",
        "costs-on-gpu-cluster",
        "memory-by-default",
    ],
)
def test_what_a_cell_gets(cell: Cell, cluster: Cluster, wanted: Resources) -> None:
    """Memory in proportion: the table says what a training takes of a node, with all of its processes there."""
    assert resources_of(cell, cluster) == wanted


def test_a_gpu_cell_on_a_cluster_without_gpus_is_refused_with_what_to_do() -> None:
    with pytest.raises(ValueError) as refusal:
        plan(cells(ON_GPU), CPU)
    text = str(refusal.value)
    assert text.startswith(cells(ON_GPU)[0].label)
    assert text.endswith("needs a GPU, and cluster cpu has none: set gpus_per_node in its table, or give --device cpu")


def test_a_batch_that_does_not_divide_among_the_processes_is_refused() -> None:
    odd = replace(TRAIN, recipe=replace(MICRO, batch=62))
    plan(cells(odd), Cluster("cpu", tasks_per_node=2))
    with pytest.raises(ValueError, match="62") as refusal:
        plan(cells(odd), CPU)
    assert "\n" not in str(refusal.value)


def test_what_does_not_fit_on_a_gpu_is_refused_if_its_memory_is_known() -> None:
    allocations = plan([*cells(ON_GPU), *trainings(1, "cuda")], GPU)
    check_memory(allocations, GPU)
    check_memory(allocations, replace(GPU, gpu_memory_gb=16))
    with pytest.raises(ValueError) as refusal:
        check_memory(allocations, replace(GPU, gpu_memory_gb=1.01))
    text = str(refusal.value)
    assert text.startswith(cells(ON_GPU)[0].label)
    assert text.endswith("give it a smaller batch, or submit --ignore-memory submits it all the same")
    assert "\n" not in text
    check_memory(plan(cells(ON_CPU), GPU), replace(GPU, gpu_memory_gb=1.01))


def test_what_does_not_fit_is_let_through_with_one_line_on_the_largest() -> None:
    (small,), large = cells(ON_GPU), cells(replace(ON_GPU, runtime=replace(ON_GPU.runtime, batch=2**17)))
    said: list[str] = []
    check_memory(plan([small, *large], GPU), replace(GPU, gpu_memory_gb=16), said.append)
    check_memory(plan([small, *large], GPU), replace(GPU, gpu_memory_gb=1.01), said.append)
    check_memory(plan([small, *large], GPU), replace(GPU, gpu_memory_gb=1000), said.append)
    of_one, of_two = said
    assert re.match(
        rf"{re.escape(large[0].label)} needs about [\d.]+ GiB on a GPU, and of the 16 GiB of cluster", of_one
    )
    assert of_one.endswith("(estimated, unchecked on CUDA): submitted all the same")
    assert of_two.startswith(f"{large[0].label} needs about ")
    assert of_two.endswith("submitted all the same; 2 cells like this")


def test_what_needs_another_waits_for_it_and_comes_later() -> None:
    first, second = trainings(2)
    # Backwards, and with a second evaluation of the first.
    todo = [second.evaluation(), first.evaluation(which="best"), first.evaluation(), second, first, *cells(Costs())]
    found = plan(todo, CPU)
    assert [each.after for each in found] == [(), (), (), (second.key,), (first.key,)]
    assert keys(found) == [
        todo[-1].key,
        second.key,
        first.key,
        todo[0].key,
        *(todo[1].key, todo[2].key),
    ]


def test_what_waits_for_what_waits_comes_last() -> None:
    (first,) = trainings(1)
    then = Cell(first.backbone, replace(TRAIN, weights=first.weights(), seed=7))
    found = plan([then.evaluation(), then, first], CPU)
    assert keys(found) == [first.key, then.key, then.evaluation().key]
    assert [each.after for each in found] == [(), (first.key,), (then.key,)]


def test_a_training_that_runs_already_is_waited_for_and_one_that_is_done_is_not() -> None:
    running, done = trainings(2)
    found = plan([running.evaluation(), done.evaluation()], CPU, {running.key})
    assert [each.after for each in found] == [(running.key,), ()]


def test_like_allocations_are_one_array_split_at_the_most_that_slurm_takes() -> None:
    found = plan([*trainings(7), *cells(Costs(), 4)], replace(CPU, pack=1))
    assert [sizes(array) for array in arrays(found, 100)] == [[1] * 4, [1] * 7]
    split = arrays(found, 3)
    assert [len(array) for array in split] == [2, 2, 2, 2, 3]
    assert [each for array in split for each in array] == found


def test_what_waits_is_in_another_array_than_what_it_waits_for_even_of_like_size() -> None:
    first, second = trainings(2)
    small = Cluster("cpu")
    found = arrays(plan([first, second, first.evaluation(), second.evaluation()], small), 100)
    assert [sizes(array) for array in found] == [[1, 1], [1], [1]]
    assert [array[0].after for array in found] == [(), (first.key,), (second.key,)]


# This machine


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of five cores and three GPUs."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(5)))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def dealt(todo: list[Cell], cluster: Cluster = HERE) -> list[list[str]]:
    """The keys of the cells of each process."""
    return [keys(slot) for slot in slots(plan(todo, cluster), cluster)]


def test_each_core_has_a_process_and_its_share_of_the_cells(machine: None) -> None:
    todo = cells(Costs(), 12)
    found = dealt(todo)
    assert sorted(map(len, found)) == [2, 2, 2, 3, 3]
    assert sorted(key for slot in found for key in slot) == sorted(cell.key for cell in todo)
    assert [len(slot) for slot in dealt(todo[:3])] == [1, 1, 1]
    assert sorted(map(len, dealt(todo, replace(HERE, slots=2)))) == [6, 6]
    assert len(dealt(todo, replace(HERE, slots=7))) == 7


def test_each_gpu_has_a_process_where_gpus_are_wanted(machine: None) -> None:
    todo = [*cells(Costs(), 3), *cells(ON_GPU, 6)]
    assert [len(slot) for slot in dealt(todo)] == [3, 3, 3]
    assert len(dealt(todo, replace(HERE, slots=2))) == 2
    assert len(dealt(todo, replace(HERE, slots=4))) == 3, "no two at once on a GPU"


def test_cpu_speed_is_measured_alone(machine: None) -> None:
    todo = [*cells(Costs(), 6), *cells(ON_CPU, 2)]
    for cluster in (HERE, replace(HERE, slots=4)):
        assert dealt(todo, cluster) == [[cell.key for cell in todo]]


def test_a_chain_is_one_processs_in_order(machine: None) -> None:
    first, second = trainings(2)
    then = Cell(first.backbone, replace(TRAIN, weights=first.weights(), seed=7))
    todo = [then.evaluation(), second.evaluation(), first.evaluation(), then, second, first]
    found = dealt(todo)
    assert [second.key, second.evaluation().key] in found
    (chain,) = (slot for slot in found if first.key in slot)
    assert set(chain) == {first.key, then.key, first.evaluation().key, then.evaluation().key}
    assert chain.index(first.key) < chain.index(then.key) < chain.index(then.evaluation().key)
    assert len(found) == 2

"""A first clusters.toml: one table per partition that is up, in which each line says where its value is from."""

import json
import math
import re
from collections import Counter

from slurm import scontrol
from slurm.clusters import LEAST_MINUTES, LOCAL, Cluster
from slurm.scontrol import Node, Partition

LONGEST = 24 * 60
"""Minutes: a day is enough for a job that can continue where it stopped, and waits less than a longer one."""

_ENOUGH_CPUS = 8
"""CPUs of a process without GPU: the rest of a large node is left to other jobs."""


def detect() -> str:
    """Return the text of a clusters.toml, with the default partition first; `slurm.clusters.load` reads it.

    Raises SlurmUnreachable (a ValueError), in one line, if this machine has no Slurm or Slurm does not answer.
    """
    config, nodes = scontrol.config(), scontrol.nodes()
    partitions = sorted(scontrol.partitions(), key=lambda partition: not partition.is_default)
    head = [
        f"# Partitions of the cluster {config['ClusterName']} (Slurm {config['SLURM_VERSION']}), from scontrol show.",
        "# --cluster takes the name of a table; `local` is this machine and needs no table.",
        "# clusters.example.toml has every key. Check these values: they are what a job gets.",
    ]
    if "associations" in config["AccountingStorageEnforce"]:
        head.append(
            "# This Slurm requires an account. Yours: sacctmgr show associations user=$USER format=account,partition"
        )
    tables, left_out = [], []
    for partition in partitions:
        members = [node.within(partition) for node in nodes if partition.name in node.partitions]
        if reason := _unusable(partition, members):
            left_out.append(f"# Omitted: {partition.name}, {reason}.")
        else:
            tables.append(_table(partition, partitions, members, config))
    return "\n".join([*head, *left_out, *tables, ""])


def _unusable(partition: Partition, members: list[Node]) -> str | None:
    if partition.state != "UP":
        return f"which is {partition.state}"
    if not members:
        return "whose nodes Slurm does not show"
    if partition.max_minutes is not None and partition.max_minutes < LEAST_MINUTES:
        return f"which ends jobs after {partition.max_minutes} minutes (at least {LEAST_MINUTES} are needed)"
    return None


def _table(partition: Partition, partitions: list[Partition], members: list[Node], config: dict[str, str]) -> str:
    kinds = Counter(_kind(node) for node in members)
    # GPUs first, then what most nodes have.
    gpus, cpus, memory_mb = max(kinds, key=lambda kind: (bool(kind[0]), kinds[kind], kind))
    gpu_type, count = max(gpus, key=lambda gpu: gpu[1], default=("", 0))

    name = partition.name if partition.name != LOCAL else f"slurm-{LOCAL}"
    bare = re.fullmatch(r"[\w-]+", name, re.ASCII)
    lines = ["", f"[{name if bare else json.dumps(name)}]"]
    lines += [f"# {_count(number, 'node')}: {_described(kind)}" for kind, number in kinds.most_common()]
    lines += [f"# {_preemption(partition, partitions, config)}"]
    rows = [("partition", json.dumps(partition.name), "the default partition" if partition.is_default else "")]
    if count:
        every = sum(number for _, number in gpus)
        share = count / every
        rows += [("gpus_per_node", str(count), "GPUs per node (Gres)")]
        rows += [("gpu_type", json.dumps(gpu_type), "as named in Gres")] if gpu_type else []
        rows += [
            ("cpus_per_gpu", str(max(cpus // every, 1)), f"{_count(cpus, 'CPU')} and {_count(every, 'GPU')} per node")
        ]
    else:
        tasks_cpus = min(cpus, _ENOUGH_CPUS)
        share = tasks_cpus / cpus
        rows += [("cpus_per_task", str(tasks_cpus), f"of {_count(cpus, 'CPU')} per node")]
    if memory := _memory_gb(memory_mb * share):
        rows += [("memory_gb", f"{memory:g}", f"its share of {memory_mb} MiB per node")]
    longest = "UNLIMITED" if partition.max_minutes is None else f"{partition.max_minutes} minutes"
    rows += [("minutes", str(min(partition.max_minutes or LONGEST, LONGEST)), f"MaxTime is {longest}")]
    if tasks := int(config["MaxArraySize"]):
        most = min(tasks, Cluster.max_array_size)
        rows += [("max_array_size", str(most), f"MaxArraySize is {tasks}")]
    lines += [f"{key} = {value}" + (f"  # {why}" if why else "") for key, value, why in rows]
    return "\n".join(lines)


def _kind(node: Node) -> tuple[tuple[tuple[str, int], ...], int, int]:
    return node.gpus, node.cpus, node.memory_mb


def _described(kind: tuple[tuple[tuple[str, int], ...], int, int]) -> str:
    gpus, cpus, memory_mb = kind
    parts = [f"{_count(count, 'GPU')}{f' of type {name}' if name else ''}" for name, count in gpus]
    return ", ".join([*parts, _count(cpus, "CPU"), f"{memory_mb} MiB"])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _memory_gb(mebibytes: float) -> float:
    """Round down, so that a node has that much: to a GiB, small values to a tenth."""
    gib = mebibytes / 1024
    return math.floor(gib) if gib >= 10 else math.floor(gib * 10) / 10


def _preemption(partition: Partition, partitions: list[Partition], config: dict[str, str]) -> str:
    """Say what preemption can do to a running job."""
    mode, grace = partition.preempt_mode, partition.grace_seconds
    if config["PreemptType"] == "preempt/none" or mode == "OFF":
        return "No preemption: a running job keeps its nodes."
    by = "jobs of a higher QOS"
    if config["PreemptType"] == "preempt/partition_prio":
        higher = [other.name for other in partitions if other.priority_tier > partition.priority_tier]
        if not higher:
            return "No preemption: no partition has a higher PriorityTier."
        by = f"jobs of {', '.join(higher)}"
    if "SUSPEND" in mode:
        return f"Preemption (PreemptMode={mode}) by {by}: a job is suspended in place and continues later."
    time = f"{grace} s to save (GraceTime)" if grace else "no time to save (GraceTime=0)"
    then = "is requeued" if "REQUEUE" in mode else "ends; `attention-bench resume` resubmits what is left"
    return f"Preemption (PreemptMode={mode}) by {by}: a job gets {time}, then {then}."

"""What a partition offers, and whether a job could ever run there: Slurm itself lets some jobs wait forever."""

import re
from collections.abc import Callable
from typing import NamedTuple

from slurm import scontrol
from slurm.clusters import Cluster, unknown
from slurm.commands import SlurmUnreachable, output
from slurm.scontrol import Node, Partition


class Limits(NamedTuple):
    """The limits of a partition for the jobs of one cluster. None: no limit."""

    partition: str
    # UP, DOWN, DRAIN or INACTIVE.
    state: str
    max_minutes: int | None
    # Of one job.
    max_nodes: int | None
    # In any state, without those that the cluster excludes; each reduced to what one job may have of it.
    nodes: tuple[Node, ...]
    # Nodes that Slurm counts but does not show: nothing is known about them.
    unseen: int
    # In tasks: the smaller of the cluster's limit and Slurm's.
    max_array_size: int


def limits_of(cluster: Cluster) -> Limits:
    """Ask Slurm about the cluster's partition (the default one if it names none).

    Raises ValueError, in one line, if there is no such partition, and SlurmUnreachable if Slurm does not answer.
    """
    assert not cluster.is_local
    partition = _chosen(cluster, scontrol.partitions(hidden=True))
    members = [node for node in scontrol.nodes(hidden=True) if partition.name in node.partitions]
    excluded = set(output("scontrol", "show", "hostnames", cluster.exclude).split()) if cluster.exclude else set()
    tasks = int(scontrol.config()["MaxArraySize"])
    if not tasks:
        raise ValueError(
            f"cluster {cluster.name}: this Slurm accepts no job arrays (MaxArraySize=0), which sweeps need"
        )
    lifted = _lifted(cluster.qos)
    return Limits(
        partition.name,
        partition.state,
        None if "PartitionTimeLimit" in lifted else partition.max_minutes,
        None if "PartitionMaxNodes" in lifted else partition.max_nodes,
        tuple(node.within(partition) for node in members if node.name not in excluded),
        max(partition.total_nodes - len(members), 0),
        min(tasks, cluster.max_array_size),
    )


def check_fits(
    cluster: Cluster, limits: Limits, *, nodes: int, tasks_per_node: int, cpus_per_task: int, gpus_per_node: int
) -> None:
    """Check that the partition could run a job of this size with the cluster's GPU type, memory, minutes, constraint.

    Nodes that are down count, as they come back. Raises ValueError, in one line, for what could never run.
    """
    partition = limits.partition

    def refuse(problem: str) -> ValueError:
        return ValueError(f"cluster {cluster.name}: {problem}")

    if limits.state != "UP":
        raise refuse(f"partition {partition} is {limits.state} and starts no jobs: choose another, or ask the site")
    if limits.max_minutes is not None and cluster.minutes > limits.max_minutes:
        raise refuse(f"minutes={cluster.minutes}, but partition {partition} allows {limits.max_minutes} (its MaxTime)")
    if limits.max_nodes is not None and nodes > limits.max_nodes:
        raise refuse(f"a job of {nodes} nodes, but partition {partition} allows {limits.max_nodes} (its MaxNodes)")
    if not limits.unseen:
        if not limits.nodes:
            raise refuse(f"partition {partition} has no nodes{' that are not excluded' if cluster.exclude else ''}")
        _check_names(cluster, limits)

    fit = [node for node in limits.nodes if _has_features(node, cluster.constraint)]
    such = f" with {cluster.constraint}" if cluster.constraint else ""
    if not fit and not limits.unseen:
        raise refuse(f"partition {partition} has no node{such}")
    kind = f" of type {cluster.gpu_type}" if cluster.gpu_type else ""
    wants: list[tuple[str, int, Callable[[Node], int]]] = [
        (f"GPUs{kind}", gpus_per_node, lambda node: node.gpus_of(cluster.gpu_type)),
        ("CPUs", tasks_per_node * cpus_per_task, lambda node: node.cpus),
        ("MiB of memory", int((cluster.memory_gb or 0) * 1024), lambda node: node.memory_mb),
    ]
    for what, wanted, has in wants:
        most = max(map(has, fit), default=0)
        if wanted > most and not limits.unseen:
            raise refuse(f"{wanted} {what} per node, but no node of partition {partition}{such} has over {most}")
        fit = [node for node in fit if has(node) >= wanted]
        such += f"{' and' if such else ' with'} {wanted} {what}" if wanted else ""
    could = len(fit) + limits.unseen
    if nodes > could:
        raise refuse(f"a job of {nodes} nodes, but partition {partition} has {could}{such}")


def _chosen(cluster: Cluster, partitions: list[Partition]) -> Partition:
    for partition in partitions:
        if partition.name == cluster.partition or (cluster.partition is None and partition.is_default):
            return partition
    names = [partition.name for partition in partitions]
    if cluster.partition is None:
        raise ValueError(
            f"cluster {cluster.name}: give a partition, as this Slurm has no default (allowed: {', '.join(names)})"
        )
    raise ValueError(f"cluster {cluster.name}: {unknown('partition', cluster.partition, names)}")


def _lifted(qos: str | None) -> set[str]:
    """Return the flags of a QOS: some lift limits of the partition."""
    if qos is None:
        return set()
    try:
        return set(
            output("sacctmgr", "--noheader", "--parsable2", "show", "qos", qos, "format=flags").strip().split(",")
        )
    except SlurmUnreachable:
        # Without accounting, a QOS has no flags.
        return set()


def _check_names(cluster: Cluster, limits: Limits) -> None:
    features = sorted({feature for node in limits.nodes for feature in node.features})
    for word in re.findall(r"[^\s&|,!()\[\]*]+", re.sub(r"\*\d+", "", cluster.constraint or "")):
        if word not in features:
            raise ValueError(f"cluster {cluster.name}: {unknown('feature in constraint', word, features)}")
    types = sorted({kind for node in limits.nodes for kind, _ in node.gpus if kind})
    if cluster.gpu_type is not None and cluster.gpu_type not in types:
        problem = unknown("GPU type", cluster.gpu_type, types)
        raise ValueError(f"cluster {cluster.name}: {problem} in partition {limits.partition}")


def _has_features(node: Node, constraint: str | None) -> bool:
    """Whether a node meets a constraint of `&` and `|`; other kinds, such as [a*2&b*1], are not checked."""
    if constraint is None or re.search(r"[^\w.&|+:/-]", constraint):
        return True
    return any(node.features.issuperset(words.split("&")) for words in constraint.split("|"))

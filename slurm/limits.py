"""What a partition offers, and whether a job could ever run there: Slurm itself lets some jobs wait forever."""

import math
import re
from collections.abc import Callable
from typing import NamedTuple

from slurm import scontrol
from slurm.clusters import Cluster, unknown
from slurm.commands import SlurmUnreachable, output
from slurm.scontrol import Node, Partition
from slurm.submission import Resources, mebibytes


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
    # Of one job.
    min_nodes: int = 0
    # A job with more gets more CPUs.
    max_memory_mb_per_cpu: int | None = None
    # Nodes that each job must get, all of them.
    nodelist: frozenset[str] = frozenset()


def limits_of(cluster: Cluster) -> Limits:
    """Ask Slurm about the cluster's partition (the default one if it names none).

    Raises ValueError, in one line, if there is no such partition or it takes no jobs of this account, QOS or nodelist,
    and SlurmUnreachable if Slurm does not answer.
    """
    assert not cluster.is_local
    config = scontrol.config()
    partition = _chosen(cluster, scontrol.partitions(hidden=True)).within(config)
    _check_access(cluster, partition)
    members = [node for node in scontrol.nodes(hidden=True) if partition.name in node.partitions]
    unseen = max(partition.total_nodes - len(members), 0)
    excluded, required = _hosts(cluster.exclude), _hosts(cluster.nodelist)
    _check_nodelist(cluster, partition, required, excluded, None if unseen else {node.name for node in members})
    tasks = int(config["MaxArraySize"])
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
        unseen,
        min(tasks, cluster.max_array_size),
        0 if "PartitionMinNodes" in lifted else partition.min_nodes,
        partition.max_memory_mb_per_cpu,
        required,
    )


def check_fits(cluster: Cluster, limits: Limits, job: Resources) -> None:
    """Check that the partition could run a job of this size with the cluster's GPU type and constraint.

    Nodes that are down count, as they come back. Raises ValueError, in one line, for what could never run.
    """
    partition, nodes = limits.partition, job.nodes

    def refuse(problem: str) -> ValueError:
        return ValueError(f"cluster {cluster.name}: {problem}")

    if limits.state != "UP":
        raise refuse(f"partition {partition} is {limits.state} and starts no jobs: choose another, or ask the site")
    if limits.max_minutes is not None and job.minutes > limits.max_minutes:
        raise refuse(f"minutes={job.minutes}, but partition {partition} allows {limits.max_minutes} (its MaxTime)")
    if limits.max_nodes is not None and nodes > limits.max_nodes:
        raise refuse(f"a job of {nodes} nodes, but partition {partition} allows {limits.max_nodes} (its MaxNodes)")
    if nodes < limits.min_nodes:
        raise refuse(f"a job of {_nodes(nodes)}, but partition {partition} takes {limits.min_nodes} or more (MinNodes)")
    if nodes < len(limits.nodelist):
        raise refuse(
            f"a job of {_nodes(nodes)}, but nodelist names {len(limits.nodelist)}, of which a job gets all: "
            "to choose among nodes, give constraint or exclude"
        )
    if job.gpus_per_node > 1 and cluster.gpu_type is not None and scontrol.is_slice(cluster.gpu_type):
        raise refuse(
            f"a job with {job.gpus_per_node} {cluster.gpu_type} per node, but these are slices of a GPU (MIG), which "
            "cannot train together: give gpus_per_node = 1"
        )
    if not limits.unseen:
        if not limits.nodes:
            raise refuse(f"partition {partition} has no nodes{' that are not excluded' if cluster.exclude else ''}")
        _check_names(cluster, limits)

    fit = [node for node in limits.nodes if _has_features(node, cluster.constraint)]
    such = f" with {cluster.constraint}" if cluster.constraint else ""
    if not fit and not limits.unseen:
        raise refuse(f"partition {partition} has no node{such}")
    kind = f" of type {cluster.gpu_type}" if cluster.gpu_type else ""
    cpus, why = _cpus(job, limits.max_memory_mb_per_cpu)
    memory = 0 if job.node_memory_gb is None else mebibytes(job.node_memory_gb)
    wants: list[tuple[str, int, Callable[[Node], int]]] = [
        (f"GPUs{kind}", job.gpus_per_node, lambda node: node.gpus_of(cluster.gpu_type)),
        (f"CPUs{why}", cpus, lambda node: node.cpus),
        ("MiB of memory", memory, lambda node: node.memory_mb),
    ]
    for what, wanted, has in wants:
        most = max(map(has, fit), default=0)
        if wanted > most and not limits.unseen:
            raise refuse(f"{wanted} {what} per node, but no node of partition {partition}{such} has over {most}")
        fit = [node for node in fit if has(node) >= wanted]
        such += f"{' and' if such else ' with'} {wanted} {what}" if wanted else ""
    if not limits.unseen and (unfit := limits.nodelist - {node.name for node in fit}):
        raise refuse(f"node {min(unfit)} of nodelist is not one{such}")
    could = len(fit) + limits.unseen
    if nodes > could:
        raise refuse(f"a job of {nodes} nodes, but partition {partition} has {could}{such}")


def jobs_at_once(cluster: Cluster, limits: Limits, job: Resources) -> int | None:
    """How many jobs of this size the partition holds while nobody else uses it; None where not all nodes are shown.

    Nodes that are down count, as they come back. The job is one that fits (`check_fits`).
    """
    if limits.unseen:
        return None
    cpus, _ = _cpus(job, limits.max_memory_mb_per_cpu)
    memory = mebibytes(job.node_memory_gb or 0)
    places = []
    for node in limits.nodes:
        if not _has_features(node, cluster.constraint) or (limits.nodelist and node.name not in limits.nodelist):
            continue
        room = [(node.cpus, cpus), (node.memory_mb, memory), (node.gpus_of(cluster.gpu_type), job.gpus_per_node)]
        most = min(has // wanted for has, wanted in room if wanted)
        places.append(min(most, 1) if job.exclusive else most)
    # Of a nodelist, every job gets all nodes.
    return min(places) if limits.nodelist else sum(places) // job.nodes


def _cpus(job: Resources, most_mb: int | None) -> tuple[int, str]:
    """Return the CPUs per node that Slurm gives a job, and a note if these are more than it asks for.

    With more memory per CPU than the partition's MaxMemPerCPU, Slurm does not refuse the job, but raises the CPUs of
    each process until they have that memory (slurm.conf(5); seen with 22.05).
    """
    each = job.cpus_per_task
    if most_mb is not None and job.memory_per_cpu_gb is not None:
        each *= math.ceil(mebibytes(job.memory_per_cpu_gb) / most_mb)
    elif most_mb is not None and job.memory_gb is not None:
        cpus = math.ceil(mebibytes(job.memory_gb) / most_mb)
        each = max(each, math.ceil(cpus / job.tasks_per_node))
    raised = f" (asked for {job.tasks_per_node * job.cpus_per_task}, raised as MaxMemPerCPU is {most_mb} MiB)"
    return job.tasks_per_node * each, raised if each > job.cpus_per_task else ""


def _nodes(count: int) -> str:
    return f"{count} node{'s' * (count != 1)}"


def _hosts(text: str | None) -> frozenset[str]:
    """Return the names of nodes in a list such as `g[1-4],v1`."""
    if text is None:
        return frozenset()
    if "[" not in text:
        return frozenset(text.split(","))
    return frozenset(output("scontrol", "show", "hostnames", text).split())


def _check_nodelist(
    cluster: Cluster,
    partition: Partition,
    required: frozenset[str],
    excluded: frozenset[str],
    members: set[str] | None,
) -> None:
    """Check that the partition has the required nodes; `members`: None if Slurm does not show all of them."""
    for name in sorted(required):
        if members is not None and name not in members:
            problem = unknown("node in nodelist", name, sorted(members))
            raise ValueError(f"cluster {cluster.name}: {problem} in partition {partition.name}")
        if name in excluded:
            raise ValueError(f"cluster {cluster.name}: node {name} is in nodelist and in exclude")


def _check_access(cluster: Cluster, partition: Partition) -> None:
    """Check that the partition takes jobs of the cluster's account and QOS; those that Slurm chooses are not known."""

    def refuse(problem: str) -> ValueError:
        return ValueError(f"cluster {cluster.name}: {problem}")

    if partition.only_root:
        raise refuse(f"partition {partition.name} is for root only (RootOnly): choose another")
    if partition.only_reservations and cluster.reservation is None:
        raise refuse(
            f"partition {partition.name} takes only jobs with a reservation (ReqResv): give the key reservation"
        )
    for key, setting, name, access in (
        ("account", "Accounts", cluster.account, partition.accounts),
        ("qos", "Qos", cluster.qos, partition.qos),
    ):
        if name is None:
            continue
        if name.lower() in _lower(access.denied):
            raise refuse(
                f"{key} {name!r} may not use partition {partition.name} "
                f"(its Deny{setting}: {', '.join(sorted(access.denied))})"
            )
        if access.allowed is None or name.lower() in _lower(access.allowed):
            continue
        # Newer versions of Slurm also admit what is below an account.
        if key == "account" and _lower(access.allowed) & _above(name):
            continue
        problem = unknown(key, name, sorted(access.allowed))
        raise refuse(f"{problem} in partition {partition.name} (its Allow{setting})")


def _lower(names: frozenset[str]) -> set[str]:
    """Return names as Slurm compares them."""
    return {name.lower() for name in names}


def _above(account: str) -> set[str]:
    """Return the accounts above one, as far as accounting tells them."""
    found: set[str] = set()
    below = account.lower()
    while below:
        command = ("sacctmgr", "--noheader", "--parsable2", "show", "account", below, "withassoc")
        try:
            lines = output(*command, "format=parentname").split()
        except SlurmUnreachable:
            return found
        below = next((line.lower() for line in lines if line.lower() not in found), "")
        found |= {below} - {""}
    return found


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

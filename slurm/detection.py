"""A first clusters.toml: one table per partition that is up, in which each line says where its value is from."""

import itertools
import json
import math
import re
from collections import Counter

from slurm import scontrol
from slurm.clusters import LEAST_MINUTES, LOCAL, Cluster
from slurm.scontrol import Access, Node, Partition, is_slice, sevenths

Row = tuple[str, str, str]
"""Key, value and where the value is from; a key that begins with # is a comment."""

Gpus = tuple[tuple[str, int], ...]
"""Types and counts, as `Node.gpus`."""

LONGEST = 24 * 60
"""Minutes: a day is enough for a job that can continue where it stopped, and waits less than a longer one."""

_ENOUGH_CPUS = 8
"""CPUs of a process without GPU: the rest of a large node is left to other jobs."""

_SHOWN = 8
"""Names in a comment; a site may have hundreds of accounts."""


def detect() -> str:
    """Return the text of a clusters.toml, with the default partition first; `slurm.clusters.load` reads it.

    Raises SlurmUnreachable (a ValueError), in one line, if this machine has no Slurm or Slurm does not answer.
    """
    config, nodes = scontrol.config(), scontrol.nodes()
    partitions = [partition.within(config) for partition in scontrol.partitions()]
    partitions.sort(key=lambda partition: not partition.is_default)
    head = [
        f"# Partitions of the cluster {config['ClusterName']} (Slurm {config['SLURM_VERSION']}), from scontrol show.",
        "# --cluster takes the name of a table; `local` is this machine and needs no table.",
        "# clusters.example.toml has every key. Check these values: they are what a job gets.",
    ]
    enforced = set(config["AccountingStorageEnforce"].split(","))
    # The others imply it.
    if enforced & {"associations", "limits", "qos", "safe", "wckeys", "all"}:
        head.append(
            "# This Slurm requires an account. Yours: sacctmgr show associations user=$USER format=account,partition"
        )
    if enforced & {"wckeys", "all"}:
        head.append(
            '# This Slurm checks wckeys; without a line `wckey = "..."` in a table it takes your default one. Yours: '
            "sacctmgr show wckeys user=$USER format=wckey"
        )
    tables, left_out = [], []
    names: set[str] = set()
    for partition in partitions:
        members = [node.within(partition) for node in nodes if partition.name in node.partitions]
        if reason := _unusable(partition, members):
            left_out.append(f"# Omitted: {partition.name}, {reason}.")
        else:
            names.add(name := _table_name(partition, names))
            tables.append(_table(name, partition, partitions, members, config))
    return "\n".join([*head, *left_out, *tables, ""])


def _unusable(partition: Partition, members: list[Node]) -> str | None:
    if partition.state != "UP":
        return f"which is {partition.state}"
    if partition.only_root:
        return "which is for root only"
    if partition.max_nodes == 0:
        return "which starts no jobs (MaxNodes=0)"
    if not members:
        return "whose nodes Slurm does not show"
    if partition.max_minutes is not None and partition.max_minutes < LEAST_MINUTES:
        return f"which ends jobs after {partition.max_minutes} minutes (at least {LEAST_MINUTES} are needed)"
    return None


def _table_name(partition: Partition, taken: set[str]) -> str:
    """Return a name for a partition's table: one word, which no other table has."""
    name = partition.name
    if re.search(r"\s", name):
        name = re.sub(r"[^\w.+-]+", "-", name).strip("-") or "partition"
    if name == LOCAL:
        name = f"slurm-{name}"
    numbered = (f"{name}-{number}" for number in itertools.count(2))
    return next(each for each in itertools.chain([name], numbered) if each not in taken)


def _table(
    name: str, partition: Partition, partitions: list[Partition], members: list[Node], config: dict[str, str]
) -> str:
    kinds = Counter(_kind(node) for node in members)
    # Whole GPUs first, then slices of them, then what most nodes have.
    gpus, cpus, memory_mb = max(kinds, key=lambda kind: (_has_whole(kind[0]), bool(kind[0]), kinds[kind], kind))

    bare = re.fullmatch(r"[\w-]+", name, re.ASCII)
    lines = ["", f"[{name if bare else _text(name)}]"]
    lines += [f"# {_count(number, 'node')}: {_described(kind)}" for kind, number in kinds.most_common()]
    lines += [f"# {_preemption(partition, partitions, config)}"]
    if partition.groups is not None:
        lines += [f"# Only for members of these groups: {_listed(partition.groups)} (AllowGroups)."]
    rows = [("partition", _text(partition.name), "the default partition" if partition.is_default else "")]
    rows += _access_rows("account", "Accounts", partition.accounts) + _access_rows("qos", "Qos", partition.qos)
    if partition.only_reservations:
        rows += [("# reservation", _text("..."), "this partition takes only jobs with one (ReqResv)")]
    if partition.min_nodes > 1:
        rows += [
            ("nodes", str(partition.min_nodes), f"MinNodes is {partition.min_nodes}; cells of one node cannot run")
        ]
    size, share = _size_rows(gpus, cpus)
    rows += size
    rows += _memory_rows(partition, memory_mb, cpus, share, config)
    longest = "UNLIMITED" if partition.max_minutes is None else f"{partition.max_minutes} minutes"
    rows += [("minutes", str(min(partition.max_minutes or LONGEST, LONGEST)), f"MaxTime is {longest}")]
    if tasks := int(config["MaxArraySize"]):
        most = min(tasks, Cluster.max_array_size)
        rows += [("max_array_size", str(most), f"MaxArraySize is {tasks}")]
    lines += [f"{key} = {value}" + (f"  # {why}" if why else "") for key, value, why in rows]
    return "\n".join(lines)


def _size_rows(gpus: Gpus, cpus: int) -> tuple[list[Row], float]:
    """Return the lines for GPUs and CPUs, and the share of a node that they are."""
    if not gpus:
        tasks_cpus = min(cpus, _ENOUGH_CPUS)
        return [("cpus_per_task", str(tasks_cpus), f"of {_count(cpus, 'CPU')} per node")], tasks_cpus / cpus
    kind, count = max(gpus, key=lambda gpu: (not is_slice(gpu[0]), gpu[1]))
    if is_slice(kind):
        every = sum(number for _, number in gpus)
        rows = [("gpus_per_node", "1", f"of {_count(every, 'GPU slice')} (MIG) per node: slices cannot train together")]
        why = f"{_count(cpus, 'CPU')} and {_count(every, 'GPU slice')} per node"
        count = 1
    else:
        split = math.ceil(sum(number * sevenths(name) for name, number in gpus if is_slice(name)) / 7)
        every = sum(number for name, number in gpus if not is_slice(name)) + split
        rows = [("gpus_per_node", str(count), "GPUs per node (Gres)")]
        why = f"{_count(cpus, 'CPU')} and {_count(every, 'GPU')} per node"
        why += f", {split} of them in slices (MIG)" if split else ""
    rows += [("gpu_type", _text(kind), "as named in Gres")] if kind else []
    return [*rows, ("cpus_per_gpu", str(max(cpus // every, 1)), why)], count / every


def _access_rows(key: str, setting: str, access: Access) -> list[Row]:
    """Return the line for an account or QOS: as a comment, unless the partition admits a single one."""
    if access.allowed is not None:
        first = _text(min(access.allowed))
        if len(access.allowed) == 1:
            return [(key, first, f"the only one of Allow{setting}")]
        return [(f"# {key}", first, f"one of Allow{setting}: {_listed(access.allowed)}")]
    if access.denied:
        return [(f"# {key}", _text("..."), f"none of Deny{setting}: {_listed(access.denied)}")]
    return []


def _memory_rows(partition: Partition, memory_mb: int, cpus: int, share: float, config: dict[str, str]) -> list[Row]:
    """Return the line for memory, per CPU where the partition counts it so, as the site may refuse --mem."""
    most = partition.max_memory_mb_per_cpu
    mine, why = memory_mb / cpus, f"{memory_mb} MiB and {_count(cpus, 'CPU')} per node"
    if most is not None and most < mine:
        mine, why = most, f"MaxMemPerCPU is {most} MiB"
    # Less than a hundredth of a GiB would be written as none.
    per_cpu = f"{max(math.floor(mine / 1024 * 100), 1) / 100:g}"
    if partition.counts_memory_per_cpu:
        return [("memory_per_cpu_gb", per_cpu, f"{why}; this partition counts memory per CPU")]
    memory = _memory_gb(memory_mb * share)
    rows = [("memory_gb", f"{memory:g}", f"its share of {memory_mb} MiB per node")] if memory else []
    if default := scontrol.default_mb_per_cpu(config):
        why = f"in place of memory_gb, if the site refuses --mem (DefMemPerCPU is {default} MiB)"
        rows += [("# memory_per_cpu_gb", per_cpu, why)]
    return rows


def _listed(names: frozenset[str]) -> str:
    first = sorted(names)[:_SHOWN]
    return ", ".join(first) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _text(value: str) -> str:
    """Write text as TOML, which has JSON's escapes but no pairs of surrogates."""
    return json.dumps(value, ensure_ascii=False)


def _has_whole(gpus: Gpus) -> bool:
    return any(not is_slice(name) for name, _ in gpus)


def _kind(node: Node) -> tuple[Gpus, int, int]:
    return node.gpus, node.cpus, node.memory_mb


def _described(kind: tuple[Gpus, int, int]) -> str:
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

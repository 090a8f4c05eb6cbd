"""A site's Slurm: its partitions, nodes and settings, as scontrol prints them.

From scontrol, as it names every value, whereas sinfo cuts, abbreviates and merges them.
"""

import re
from typing import NamedTuple

from slurm.commands import output

_SLICE = re.compile(r"(?<![a-z0-9])(?:([12347])g(?:\d+(?:gb)?)?(?![a-z0-9])|mig(?![a-z]))")
_COUNT = r"(\d+)([KMG]?)"
_USUAL = {
    "Default": "NO",
    "State": "UP",
    "MaxTime": "UNLIMITED",
    "MaxNodes": "UNLIMITED",
    "MaxCPUsPerNode": "UNLIMITED",
    "MaxCPUsPerSocket": "UNLIMITED",
    # There is one such line or the other.
    "MaxMemPerNode": "UNLIMITED",
    "MaxMemPerCPU": "UNLIMITED",
    "DefMemPerCPU": "UNLIMITED",
    "TotalNodes": "0",
    "PriorityTier": "1",
    "PreemptMode": "OFF",
    "GraceTime": "0",
    "MinNodes": "0",
    "AllowGroups": "ALL",
}
"""What a partition has where scontrol prints no such field, as not all versions and sites do."""

_DEFAULTS = {
    "AccountingStorageEnforce": "none",
    "ClusterName": "(null)",
    "MaxArraySize": "1001",
    "PreemptType": "preempt/none",
    "SLURM_VERSION": "of unknown version",
}

_UNLIMITED = {"UNLIMITED", "INFINITE", "NONE", "N/A", "(NULL)"}


class Partition(NamedTuple):
    """A partition. A limit of None is no limit."""

    name: str
    is_default: bool
    # UP, DOWN, DRAIN or INACTIVE.
    state: str
    max_minutes: int | None
    max_nodes: int | None
    max_cpus_per_node: int | None
    max_cpus_per_socket: int | None
    max_memory_mb_per_node: int | None
    # Slurm gives a job with more memory per CPU more CPUs.
    max_memory_mb_per_cpu: int | None
    # Whether its default or limit of memory is one per CPU.
    counts_memory_per_cpu: bool
    total_nodes: int
    priority_tier: int
    # OFF, REQUEUE, CANCEL, SUSPEND, or several of them, separated by commas.
    preempt_mode: str
    grace_seconds: int
    # Of one job.
    min_nodes: int
    accounts: "Access"
    qos: "Access"
    # Groups of users; None: all.
    groups: frozenset[str] | None
    only_reservations: bool
    only_root: bool

    def within(self, config: dict[str, str]) -> "Partition":
        """Return the partition with the site's limits of memory, where it has none of its own."""
        if self.max_memory_mb_per_node is not None or self.max_memory_mb_per_cpu is not None:
            return self
        per_cpu = _limit(config.get("MaxMemPerCPU", "UNLIMITED"))
        return self._replace(
            max_memory_mb_per_node=_limit(config.get("MaxMemPerNode", "UNLIMITED")),
            max_memory_mb_per_cpu=per_cpu,
            counts_memory_per_cpu=self.counts_memory_per_cpu or per_cpu is not None,
        )


class Access(NamedTuple):
    """Whom a partition admits, by account or by QOS. `allowed`: None for all, then `denied` counts."""

    allowed: frozenset[str] | None
    denied: frozenset[str]


class Node(NamedTuple):
    """A node, with what jobs can get of it. `gpus`: types and counts, slices of a GPU (MIG) among them.

    The type is "" if the site names none.
    """

    name: str
    partitions: frozenset[str]
    gpus: tuple[tuple[str, int], ...]
    cpus: int
    # MiB.
    memory_mb: int
    features: frozenset[str]
    sockets: int = 1

    def gpus_of(self, kind: str | None) -> int:
        """Return the number of GPUs of a type; None: of whole ones of any type, or of slices if there are no others."""
        if kind is not None:
            return sum(count for name, count in self.gpus if name == kind)
        whole = sum(count for name, count in self.gpus if not is_slice(name))
        return whole or sum(count for _, count in self.gpus)

    def within(self, partition: Partition) -> "Node":
        """Return the node within the limits per node of a partition."""
        each, memory = partition.max_cpus_per_socket, partition.max_memory_mb_per_node
        cpus = [partition.max_cpus_per_node, None if each is None else each * self.sockets]
        return self._replace(
            cpus=min([self.cpus, *(limit for limit in cpus if limit is not None)]),
            memory_mb=self.memory_mb if memory is None else min(self.memory_mb, memory),
        )


def partitions(*, hidden: bool = False) -> list[Partition]:
    """Return the partitions that a user may see, in the site's order; with `hidden`, all of them."""
    return [_partition(row) for row in _rows("partition", hidden) if "PartitionName" in row]


def nodes(*, hidden: bool = False) -> list[Node]:
    """Return the nodes that a user may see, in any state; with `hidden`, also those only in hidden partitions.

    Sites may hide their nodes, and cloud nodes are not shown while they are powered down.
    """
    return [_node(row) for row in _rows("node", hidden) if "NodeName" in row]


def config() -> dict[str, str]:
    """Return Slurm's settings by their names in slurm.conf, with Slurm's own defaults where it does not print one."""
    printed = re.findall(r"^(\w+)\s*= *(.*?) *$", output("scontrol", "show", "config"), flags=re.MULTILINE)
    return _DEFAULTS | dict(printed)


def gpus(gres: str) -> tuple[tuple[str, int], ...]:
    """Parse the GPUs in a node's Gres: types and counts, in the site's order.

    For example `gpu:4`, `gpu:a100:2(S:0-1),gpu:v100:2`, `gpu:3090:8`, `gres/gpu:a100=4`, `gpu:a100` (one), `(null)`.
    """
    found: dict[str, int] = {}
    # Remove lists of sockets or indices, which have commas, too.
    for word in re.sub(r"\(.*?\)", "", gres).split(","):
        name, *parts = re.split("[:=]", word.strip().removeprefix("gres/"))
        if name != "gpu":
            continue
        # A number is the count, unless another one follows: types may be numbers, too.
        count = _count(parts.pop()) if parts and re.fullmatch(_COUNT, parts[-1]) else 1
        kind = ":".join(part for part in parts if part != "no_consume")
        if count:
            found[kind] = found.get(kind, 0) + count
    return tuple(found.items())


def is_slice(kind: str) -> bool:
    """Whether a type of GPUs names a slice of one, as in `a100_1g.5gb`: NVIDIA's Multi-Instance GPU (MIG).

    A process can use a single slice, and slices cannot train together (NCCL does not connect them).
    """
    return _SLICE.search(kind.lower()) is not None


def sevenths(kind: str) -> int:
    """Return the size of a slice in sevenths of a GPU; 1 if its name does not have it."""
    found = _SLICE.search(kind.lower())
    assert found is not None, kind
    return int(found[1] or 1)


def minutes(text: str) -> int | None:
    """Parse a time limit to whole minutes: `1-00:00:00`, `2:00:00`, `30:00`; None for UNLIMITED and infinite."""
    if text.upper() in _UNLIMITED:
        return None
    days, dash, clock = text.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    # After days the first part is hours; without them the last part is seconds.
    hours, mins, _ = [*parts, 0, 0][:3] if dash else [0, 0, *parts][-3:]
    return int(days or 0) * 1440 + hours * 60 + mins


def _rows(what: str, hidden: bool) -> list[dict[str, str]]:
    lines = output("scontrol", *(["--all"] if hidden else []), "--oneliner", "show", what).splitlines()
    rows = []
    for line in lines:
        row: dict[str, str] = {}
        # Values may have spaces (names of partitions do), so one ends where the next key begins.
        for key, value in re.findall(r"(?:^|\s)([A-Z]\w*)=(.*?)(?=\s+[A-Z]\w*=|\s*$)", line):
            # The first counts: free text, such as Reason, comes last and may contain anything.
            row.setdefault(key, value)
        rows.append(row)
    return rows


def _partition(printed: dict[str, str]) -> Partition:
    row = _USUAL | printed
    return Partition(
        row["PartitionName"],
        row["Default"] == "YES",
        row["State"],
        minutes(row["MaxTime"]),
        _limit(row["MaxNodes"]),
        _limit(row["MaxCPUsPerNode"]),
        _limit(row["MaxCPUsPerSocket"]),
        _limit(row["MaxMemPerNode"]),
        _limit(row["MaxMemPerCPU"]),
        any(_limit(row[key]) is not None for key in ("DefMemPerCPU", "MaxMemPerCPU")),
        int(row["TotalNodes"]),
        int(row["PriorityTier"]),
        row["PreemptMode"],
        int(row["GraceTime"]),
        int(row["MinNodes"]),
        _access(row, "AllowAccounts", "DenyAccounts"),
        _access(row, "AllowQos", "DenyQos"),
        _names(row["AllowGroups"]),
        row.get("ReqResv") == "YES",
        row.get("RootOnly") == "YES",
    )


def _access(row: dict[str, str], allow: str, deny: str) -> Access:
    allowed = _names(row.get(allow, "ALL"))
    # Slurm shows and enforces only one of the two.
    denied = None if allowed is not None else _names(row.get(deny, "ALL"))
    return Access(allowed, denied or frozenset())


def _names(text: str) -> frozenset[str] | None:
    return None if text.upper() in {"ALL", *_UNLIMITED} else frozenset(text.split(","))


def _node(row: dict[str, str]) -> Node:
    # Not every line has every field, as one of a node that has not registered yet.
    features = row.get("AvailableFeatures", "(null)")
    return Node(
        row["NodeName"],
        frozenset(row.get("Partitions", "").split(",")),
        gpus(row.get("Gres", "")),
        # Slurm 22.05 and later: without the cores that are reserved for the system.
        max(int(row.get("CPUEfctv") or row.get("CPUTot", "1")), 1),
        max(int(row.get("RealMemory", "1")) - int(row.get("MemSpecLimit", "0")), 1),
        frozenset() if features == "(null)" else frozenset(features.split(",")),
        int(row.get("Sockets", "1")),
    )


def _count(text: str) -> int:
    found = re.fullmatch(_COUNT, text)
    assert found is not None, text
    return int(found[1]) * 1024 ** " KMG".index(found[2] or " ")


def default_mb_per_cpu(config: dict[str, str]) -> int | None:
    """Return the memory per CPU of a job that asks for none, on a site where that is how it is set."""
    return _limit(config.get("DefMemPerCPU", "UNLIMITED"))


def _limit(text: str) -> int | None:
    return None if text.upper() in _UNLIMITED else int(text)

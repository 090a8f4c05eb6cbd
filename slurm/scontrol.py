"""A site's Slurm: its partitions, nodes and settings, as scontrol prints them.

From scontrol, as it names every value, whereas sinfo cuts, abbreviates and merges them.
"""

import re
from typing import NamedTuple

from slurm.commands import output

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
    max_memory_mb_per_node: int | None
    total_nodes: int
    priority_tier: int
    # OFF, REQUEUE, CANCEL, SUSPEND, or several of them, separated by commas.
    preempt_mode: str
    grace_seconds: int


class Node(NamedTuple):
    """A node, with what jobs can get of it. `gpus`: types and counts; the type is "" if the site names none."""

    name: str
    partitions: frozenset[str]
    gpus: tuple[tuple[str, int], ...]
    cpus: int
    # MiB.
    memory_mb: int
    features: frozenset[str]

    def gpus_of(self, kind: str | None) -> int:
        """Return the number of GPUs of a type; None: of any."""
        return sum(count for name, count in self.gpus if kind is None or name == kind)

    def within(self, partition: Partition) -> "Node":
        """Return the node within the limits per node of a partition."""
        cpus, memory = partition.max_cpus_per_node, partition.max_memory_mb_per_node
        return self._replace(
            cpus=self.cpus if cpus is None else min(self.cpus, cpus),
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
    """Return Slurm's settings by their names in slurm.conf."""
    return dict(re.findall(r"^(\w+)\s*= *(.*?) *$", output("scontrol", "show", "config"), flags=re.MULTILINE))


def gpus(gres: str) -> tuple[tuple[str, int], ...]:
    """Parse the GPUs in a node's Gres: `gpu:4`, `gpu:a100:2(S:0-1),gpu:v100:2`, `(null)`."""
    # Remove lists of sockets, which have commas, too.
    words = re.sub(r"\(.*?\)", "", gres).split(",")
    found = [re.fullmatch(r"gpu(?::([^:]*[^:\d][^:]*))?(?::(\d+))?", word) for word in words]
    return tuple((match[1] or "", int(match[2] or 1)) for match in found if match)


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
        for key, value in re.findall(r"(?:^|\s)(\w+)=(\S*)", line):
            # The first counts: free text, such as Reason, comes last and may contain anything.
            row.setdefault(key, value)
        rows.append(row)
    return rows


def _partition(row: dict[str, str]) -> Partition:
    return Partition(
        row["PartitionName"],
        row["Default"] == "YES",
        row["State"],
        minutes(row["MaxTime"]),
        _limit(row["MaxNodes"]),
        _limit(row["MaxCPUsPerNode"]),
        # There is no such line where memory is counted per CPU.
        _limit(row.get("MaxMemPerNode", "UNLIMITED")),
        int(row["TotalNodes"]),
        int(row["PriorityTier"]),
        row["PreemptMode"],
        int(row["GraceTime"]),
    )


def _node(row: dict[str, str]) -> Node:
    features = row["AvailableFeatures"]
    return Node(
        row["NodeName"],
        frozenset(row.get("Partitions", "").split(",")),
        gpus(row["Gres"]),
        # Slurm 22.05 and later: without the cores that are reserved for the system.
        int(row.get("CPUEfctv") or row["CPUTot"]),
        int(row["RealMemory"]) - int(row.get("MemSpecLimit", 0)),
        frozenset() if features == "(null)" else frozenset(features.split(",")),
    )


def _limit(text: str) -> int | None:
    return None if text.upper() in _UNLIMITED else int(text)

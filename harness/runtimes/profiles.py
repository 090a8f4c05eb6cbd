"""What the nodes of a graph take, as its runtime says: ONNX Runtime by its trace, OpenVINO by its counters.

Both count whole microseconds, rounded down.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

Spent = dict[str, tuple[float, float]]
"""By operator: how often it is run in a pass, and the seconds that it takes there, both on average over passes."""


class Profile(Protocol):
    """What a session notes of its passes; `passes` is how many there were."""

    passes: int

    def start(self) -> None:
        """Forget the passes so far."""

    def spent(self) -> Spent:
        """Return what the operators take in a pass, and end the profile. Raises ValueError where nothing is noted."""


class Trace:
    """The trace of a session of ONNX Runtime, in a folder that is removed with it."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="attention-bench-", ignore_cleanup_errors=True)
        self.prefix = str(Path(self._folder.name) / "trace")
        self.end: Callable[[], str] | None = None  # what ends it, and returns its file
        self.passes, self._before = 0, 0

    def start(self) -> None:
        self._before = self.passes

    def spent(self) -> Spent:
        assert self.end is not None
        with self._folder:
            return spent_of_trace(json.loads(Path(self.end()).read_text()), self._before)


def spent_of_trace(events: Iterable[Mapping[str, Any]], before: int) -> Spent:
    """Return what the operators take in a pass by a trace, without the passes `before`.

    A trace has a million events at most; a pass that is not in it to its end does not count.

    Raises:
        ValueError: where no pass is left.
    """
    given = list(events)
    passes = sorted(
        (event["ts"], event["ts"] + event["dur"])
        for event in given
        if event.get("cat") == "Session" and event["name"] == "model_run"
    )[before:]
    if not passes:
        raise ValueError("the trace of onnxruntime has none of the passes that were timed: fewer --seconds are enough")
    found: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for event in given:
        if (
            event.get("cat") == "Node"
            and event["name"].endswith("_kernel_time")
            and passes[0][0] <= event["ts"] <= passes[-1][1]
        ):
            spent = found[event["args"]["op_name"]]
            spent[0] += 1
            spent[1] += event["dur"] / 1e6
    return {name: (calls / len(passes), took / len(passes)) for name, (calls, took) in found.items()}


class Counters:
    """The counters of a request of OpenVINO, which `read` returns: of each node, the mean of all passes so far."""

    def __init__(self, read: Callable[[], Iterable[Any]]) -> None:
        self._read = read
        self.passes = 0
        self.start()

    def start(self) -> None:
        self._before = self.passes
        self._at_start = self._totals() if self.passes else {}

    def spent(self) -> Spent:
        found: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for node, (kind, total) in self._totals().items():
            before = self._at_start[node][1] if node in self._at_start else 0.0
            found[kind][0] += 1
            found[kind][1] += max(total - before, 0.0) / (self.passes - self._before)
        return {kind: (calls, took) for kind, (calls, took) in found.items()}

    def _totals(self) -> dict[str, tuple[str, float]]:
        """Return of each node that is run, by its name, its type and the seconds that it has taken."""
        return {
            each.node_name: (each.node_type, each.real_time.total_seconds() * self.passes)
            for each in self._read()
            if each.status == type(each).Status.EXECUTED
        }

"""Profiles of sessions: what nodes take, of which passes, and nothing left on the disk."""

import tempfile
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.runtimes.exports import exported
from harness.runtimes.profiles import Counters, spent_of_trace
from harness.runtimes.sessions import open_session
from tests.harness.runtimes.common import model, scale


def run(ts: int, dur: int = 100) -> dict[str, Any]:
    return {"cat": "Session", "name": "model_run", "ts": ts, "dur": dur}


def node(ts: int, dur: int, kind: str, name: str = "x_kernel_time") -> dict[str, Any]:
    return {"cat": "Node", "name": name, "ts": ts, "dur": dur, "args": {"op_name": kind}}


def test_a_trace_is_read_from_a_pass_on() -> None:
    events = [
        {"cat": "Session", "name": "session_initialization", "ts": 0, "dur": 9},
        *(node(110, 70, "MatMul"), run(100)),
        *(node(210, 10, "MatMul"), node(220, 20, "Add"), node(245, 30, "MatMul"), run(200)),
        *(node(310, 20, "MatMul"), node(332, 10, "Add"), node(350, 20, "MatMul"), run(300)),
        # Neither a kernel, nor a pass that has come to its end.
        *(node(330, 50, "Add", "x_fence_before"), node(410, 50, "Add")),
    ]
    assert spent_of_trace(events, 1) == {"MatMul": (2.0, pytest.approx(40e-6)), "Add": (1.0, pytest.approx(15e-6))}
    assert spent_of_trace(events, 0)["MatMul"] == (pytest.approx(5 / 3), pytest.approx(50e-6))
    with pytest.raises(ValueError, match="none of the passes that were timed: fewer --seconds are enough"):
        spent_of_trace(events, 3)


@dataclass
class Info:
    class Status(Enum):
        EXECUTED = 1
        NOT_RUN = 2

    node_name: str
    node_type: str
    real_time: timedelta
    status: Status = Status.EXECUTED


def test_counters_are_means_of_all_passes_so_far() -> None:
    given = {"a": 10, "b": 30, "c": 4}
    counters = Counters(
        lambda: [
            *(Info(name, "Add" if name == "c" else "MatMul", timedelta(microseconds=us)) for name, us in given.items()),
            Info("d", "Reshape", timedelta(0), Info.Status.NOT_RUN),
        ]
    )
    counters.passes = 2
    counters.start()
    # Two further passes, of 20, 30 and 8: the means are those of all four.
    counters.passes = 4
    given |= {"a": 15, "b": 30, "c": 6}
    assert counters.spent() == {"MatMul": (2.0, pytest.approx(50e-6)), "Add": (1.0, pytest.approx(8e-6))}


@pytest.mark.parametrize(("format", "kind"), [("onnx", "MatMul"), ("openvino", "FullyConnected")])
def test_a_real_session(format: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    subject = model("deit_micro", "softmax")
    export = exported(subject, format)
    session = open_session(export, profiled=True)
    plain = open_session(export)
    assert plain.profile is None
    assert session.profile is not None
    assert torch.equal(session(*subject.args), plain(*subject.args))
    for _ in range(2):
        session(*subject.args)
    session.profile.start()
    for _ in range(4):
        session(*subject.args)
    found = session.profile.spent()
    assert found[kind][0] >= 4
    assert all(calls == int(calls) > 0 for calls, _ in found.values())
    assert sum(took for _, took in found.values()) > 0
    assert [path for path in tmp_path.iterdir() if path.name.startswith("attention-bench-")] == []


def test_torch_has_no_nodes() -> None:
    with pytest.raises(ValueError, match="torch does not take graph"):
        open_session(exported(scale(2.0), "torch-export"), profiled=True)

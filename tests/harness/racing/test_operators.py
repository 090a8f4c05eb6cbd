"""Operators of a model in the runtimes: they add up to a pass, through the gate of a race."""

from pathlib import Path

import pytest
from torch import Tensor

from backbones import preset
from harness.cells import Runtime
from harness.measures.parts import OUTSIDE
from harness.measures.quiet import UNWATCHED
from harness.racing.candidates import Candidate
from harness.racing.operators import Operators, operators
from harness.runtimes import exports, sessions
from harness.runtimes.profiles import Profile
from harness.runtimes.sessions import Run
from tests.harness.runtimes.common import plant_wrong


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "cache_folder", lambda: tmp_path / "exports")


def found(runtime: str, attention: str = "softmax", device: str = "cpu") -> Operators:
    candidate = Candidate(attention, preset("deit_micro", attention=attention), runtime=runtime)
    how = Runtime(device, batch=2)  # type: ignore[arg-type]
    return operators(candidate, how, 1e-3, lambda line: None, watching=UNWATCHED)


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime", "openvino"])
def test_operators_add_up_to_a_pass(runtime: str) -> None:
    result = found(runtime)
    assert result.problem is None
    assert result.cost is not None
    assert result.plain > 0
    assert sum(row.seconds for row in result.rows) == pytest.approx(result.profiled)
    assert [row.seconds for row in result.rows] == sorted((row.seconds for row in result.rows), reverse=True)
    inside = [row for row in result.rows if row.operator != OUTSIDE]
    assert 0 < sum(row.seconds for row in inside) <= result.profiled
    assert all(row.calls >= 1 for row in inside)
    names = {row.operator for row in inside}
    assert {"torch": "aten::addmm", "onnxruntime": "MatMul", "openvino": "FullyConnected"}[runtime] in names
    assert ("right: " in result.checked) == (runtime != "torch")
    assert (result.details is None) == (runtime == "torch")


def wrong(args: tuple[Tensor | None, ...], run: Run) -> Tensor:
    return 1.01 * run(args, {})


def test_a_wrong_runtime_has_no_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    plant_wrong(monkeypatch)
    result = found("onnxruntime")
    assert (result.problem or "").startswith("wrong: 1.0e-02 on ")
    assert result.rows == ()
    assert result.cost is None


def test_a_session_that_is_wrong_only_where_it_is_profiled(monkeypatch: pytest.MonkeyPatch) -> None:
    right = sessions._OPEN_PROFILED["openvino"]

    def opened(file: Path, threads: int) -> tuple[Run, str, Profile]:
        run, device, profile = right(file, threads)
        return (lambda args, kwargs: wrong(args, run)), device, profile

    monkeypatch.setitem(sessions._OPEN_PROFILED, "openvino", opened)
    assert (found("openvino").problem or "").startswith("wrong: 1.0e-02 on ")


def test_what_does_not_export_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "run_module", lambda *_: -9)
    assert "does not export to onnx: the exporting process was ended by SIGKILL" in (found("onnxruntime").problem or "")


def test_a_device_that_another_runtime_does_not_have() -> None:
    with pytest.raises(ValueError, match="cuda"):
        found("onnxruntime", device="cuda")

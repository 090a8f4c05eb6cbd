"""Runtimes: values that are not allowed are refused, with what is; keys hold what runs a model, unless it is torch."""

import pickle
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import ClassVar

import pytest

from backbones import preset
from harness.cells import Cell, Runtime, Speed
from harness.cells import runtime as runtime_module

SPEC = preset("deit_micro")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("device", "tpu", "unknown device 'tpu'; allowed are cpu, cuda"),
        ("precision", "float32", "unknown precision 'float32'; allowed are fp32, bf16, fp16"),
        ("mode", "jit", "unknown mode 'jit'; allowed are eager, compiled"),
        ("channels_last", "yes", "channels_last is 'yes'; allowed are True, False"),
        ("batch", 0, "batch is 0; allowed are whole numbers from 1 up"),
        ("batch", 2.0, "batch is 2.0; allowed are whole numbers from 1 up"),
        ("batch", True, "batch is True; allowed are whole numbers from 1 up"),
        ("runtime", "tensorrt", "unknown runtime 'tensorrt'; allowed are torch, onnxruntime, openvino"),
    ],
)
def test_what_is_not_allowed_is_named_with_what_is(field: str, value: object, message: str) -> None:
    with pytest.raises(ValueError) as error:
        Runtime(**{field: value})  # type: ignore[arg-type]
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("field", "value", "only"),
    [("device", "cuda", "cpu"), ("precision", "bf16", "fp32"), ("precision", "fp16", "fp32"),
     ("mode", "compiled", "eager"), ("channels_last", True, False)],
)  # fmt: skip
def test_another_runtime_takes_what_it_is_measured_with(field: str, value: object, only: object) -> None:
    with pytest.raises(ValueError) as error:
        Runtime(runtime="openvino", **{field: value})  # type: ignore[arg-type]
    assert str(error.value) == f"openvino is measured with {field} {only}, not {value}"


def test_a_runtime_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(runtime_module, "version", missing)
    with pytest.raises(ValueError) as error:
        Runtime(runtime="onnxruntime")
    assert str(error.value) == "onnxruntime is not installed: pip install -e '.[onnxruntime]'"
    assert Runtime().version is None


def test_torch_is_in_no_key_and_in_no_json() -> None:
    """As before there was another runtime; tests/test_compatibility.py has the keys of that time."""
    cell = Cell(SPEC, Speed(Runtime(batch=8)))
    values = {"device": "cpu", "precision": "fp32", "mode": "eager", "channels_last": False, "batch": 8}
    assert cell.to_json()["task"] == {"name": "speed", "runtime": values, "min_seconds": 2.0}
    assert cell == Cell(SPEC, Speed(Runtime(batch=8, runtime="torch")))
    assert cell.label == "deit_micro softmax(fused=True) speed cpu fp32 eager batch 8"


@dataclass(frozen=True)
class Own:
    """A task of a user's, with a runtime in it."""

    name: ClassVar[str] = "own"
    label: ClassVar[str] = "own"
    where: tuple[Runtime, ...] = (Runtime(),)


def test_a_users_task_with_a_runtime_has_the_json_it_had() -> None:
    (plain,) = Cell(SPEC, Own()).to_json()["task"]["where"]  # type: ignore[arg-type]
    assert list(plain) == ["device", "precision", "mode", "channels_last", "batch"]


def test_another_runtime_is_in_the_key_with_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    eager = Cell(SPEC, Speed())
    cells = [Cell(SPEC, Speed(replace(Runtime(), runtime=name))) for name in ("onnxruntime", "openvino")]
    told = [cell.to_json()["task"]["runtime"] for cell in cells]
    assert [(each["runtime"], each["version"]) for each in told] == [
        (name, version(name)) for name in ("onnxruntime", "openvino")
    ]
    assert cells[0].label == "deit_micro softmax(fused=True) speed cpu fp32 onnxruntime batch 64"
    sent = pickle.dumps(cells[0])
    monkeypatch.setattr(runtime_module, "version", lambda package: "0.1")
    later = Cell(SPEC, Speed(Runtime(runtime="onnxruntime")))
    assert len({cell.key for cell in (eager, *cells, later)}) == 4
    # What is sent to another machine is the cell that was submitted, and not one of that machine's version.
    assert pickle.loads(sent).key == cells[0].key
    assert not later.equals(cells[0].to_json())
    assert Cell(SPEC, Speed(replace(later.task.runtime, runtime="torch"))).key == eager.key  # type: ignore[union-attr]

"""Speeds in other runtimes: a record with a time where the outputs are right, without one where they are wrong."""

import json
import shlex
from importlib.metadata import PackageNotFoundError, version
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

from backbones import preset
from harness.cells import Cell, Runtime, Speed
from harness.cells import runtime as runtime_module
from harness.cli import selection
from harness.cli.repeating import commands
from harness.measures.speed import measure_backbone
from harness.runner.run_all import run_all
from harness.runtimes import exports, formats
from tests.harness.command_line import Ask, records, refused
from tests.harness.command_line import ask as ask
from tests.harness.planted import record
from tests.harness.runtimes.common import plant_wrong

pytestmark = pytest.mark.usefixtures("users_files", "cache")

GRID = "--backbone deit_micro --task speed --batch 2"
LINE = f"run {GRID} --attention linear --runtime"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache of exports, and short measurements."""
    monkeypatch.setattr(exports, "cache_folder", lambda: tmp_path.with_name(f"{tmp_path.name}-cache"))
    monkeypatch.setitem(selection.TASKS, "speed", Speed(min_seconds=0.05))


@pytest.mark.parametrize(
    ("runtime", "provider"), [("onnxruntime", "CPUExecutionProvider"), ("openvino", "CPU")], ids=str
)
def test_a_model_in_another_runtime_gives_a_record(ask: Ask, runtime: str, provider: str) -> None:
    answer = ask(f"{LINE} {runtime}")
    assert answer.status == 0, answer.err
    (kept,) = records()
    assert kept.status == "done"
    told, found = kept.cell["task"]["runtime"], kept.metrics
    assert (told["runtime"], told["version"]) == (runtime, version(runtime))
    assert found["runtime_outputs"].startswith("right: ")
    for kind in ("normal", "zeros", "scaled"):
        assert 0 <= found[f"runtime_difference_{kind}"] < 1e-4
    assert found["runtime_provider"] == provider
    assert found["runtime_threads"] == torch.get_num_threads() == kept.environment["threads"]
    assert found["runtime_precision"] == "fp32"
    assert (found["graph_exporter"], found["graph_opset"]) == ("torch.onnx", 18)
    assert json.loads(found["graph_versions"])[runtime] == version(runtime)
    assert json.loads(found["graph_operators"])["MatMul"] > 4
    assert json.loads(found["graph_options"]) == {"dynamic_batch": False, "sdpa": "math"}
    # Of inference, all that is recorded of torch; of training, nothing.
    assert found["images_per_s"] == pytest.approx(2 / found["latency_ms_p50"] * 1e3)
    assert found["latency_samples"] >= 10
    assert {"infer_disturbed", "infer_waited_share", "infer_peak_rss_mib"} <= found.keys()
    assert not [name for name in found if name.startswith("train")]
    assert "latency: measuring" in answer.out
    assert f"runtime {runtime}, version {version(runtime)}." in answer.out
    again = ask(f"{LINE} {runtime}")
    assert "1 of 1 cells are recorded in runs already" in again.out


def test_beside_torch_the_runtime_tells_rows_apart(ask: Ask) -> None:
    assert ask(f"{LINE} torch").status == 0
    assert ask(f"{LINE} onnxruntime").status == 0
    shown = ask("table").out
    assert "Rows differ in runtime (onnxruntime, torch): their speeds are not comparable" in shown, shown
    headers, *_ = (line for line in shown.splitlines() if line.startswith("backbone"))
    assert "runtime" in headers.split()
    assert "version" not in headers.split()


def test_a_planted_wrong_runtime_is_a_row_without_a_time(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    plant_wrong(monkeypatch)
    answer = ask(f"{LINE} onnxruntime")
    assert answer.status == 0, "it is a result"
    (kept,) = records()
    assert (kept.status, kept.error) == ("done", None)
    assert kept.wrong is not None
    assert kept.wrong.startswith("wrong: 1.0e-02 on ")
    assert not [name for name in kept.metrics if "_ms" in name or "images_per_s" in name]
    assert "    done: wrong: 1.0e-02 on " in answer.out
    assert ", in onnxruntime, so without a time: wrong: 1.0e-02 on " in answer.out
    assert kept.metrics["runtime_difference_normal"] == pytest.approx(0.01, rel=1e-3)


ASKING = """
from attentions import Attention, Macs, register

@register("asking")
class Asking(Attention):
    '''What it returns depends on a number that is known only when it runs.'''

    def forward(self, q, k, v, *, bias=None, x=None, regions=None):
        return v if float(q.sum()) > 0 else 2 * v

    def macs(self):
        return Macs()
"""


def test_what_does_not_export_has_failed_with_its_reason_and_the_rest_runs(ask: Ask) -> None:
    Path("asking.py").write_text(ASKING)
    answer = ask(f"run {GRID} --attention asking linear --import asking.py --runtime onnxruntime")
    assert answer.status == 1
    failed, done = sorted(records(), key=lambda each: each.status, reverse=True)
    assert (failed.status, done.status) == ("failed", "done")
    assert "ExportError: does not export to onnx: " in failed.reason
    assert "does not export to onnx: " in answer.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--runtime tensorrt", "unknown runtime 'tensorrt'; allowed are torch, onnxruntime, openvino"),
        ("--runtime openvino --device cuda", "openvino is measured with device cpu, not cuda"),
        ("--runtime openvino --precision bf16", "openvino is measured with precision fp32, not bf16"),
        ("--runtime onnxruntime --mode compiled", "onnxruntime is measured with mode eager, not compiled"),
        ("--runtime onnxruntime --channels-last", "onnxruntime is measured with channels_last False, not True"),
    ],
)
@pytest.mark.parametrize("command", ["run", "submit --cluster local", "run --dry-run"])
def test_what_another_runtime_does_not_do_is_refused(ask: Ask, command: str, options: str, said: str) -> None:
    assert said in refused(ask, f"{command} {GRID} {options}")


def test_a_training_has_no_other_runtime(ask: Ask) -> None:
    said = refused(ask, "run --backbone deit_micro --task train --runtime onnxruntime")
    assert said.startswith("--runtime has no effect on these cells; none has such a value")
    with pytest.raises(ValueError, match=r"^onnxruntime is not torch: a model is run there as an exported graph$"):
        measure_backbone(preset("deit_micro"), Speed(Runtime(runtime="onnxruntime")), lambda line: None)


@pytest.mark.parametrize("command", ["run", "submit --cluster local", "submit --cluster local --dry-run"])
@pytest.mark.parametrize("package", ["openvino", "onnxscript"])
def test_what_is_not_installed_is_refused_before_any_work(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, command: str, package: str
) -> None:
    def found(name: str) -> str:
        if name == package:
            raise PackageNotFoundError(name)
        return version(name)

    for module in (formats, runtime_module):
        monkeypatch.setattr(module, "version", found)
    said = refused(ask, f"{command} {GRID} --runtime openvino")
    assert "not installed: pip install -e '.[openvino]'" in said
    assert package in said


def test_a_cell_of_another_version_is_not_measured_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(runtime_module, "version", lambda package: "0.1")
        cell = Cell(preset("deit_micro"), Speed(Runtime(runtime="onnxruntime")))
    with pytest.raises(ValueError, match=rf"of onnxruntime 0\.1, and here is {version('onnxruntime')}: "):
        run_all([cell], tmp_path / "none", Console(file=StringIO()))
    assert not (tmp_path / "none").exists()


def test_its_cell_is_told_in_a_dry_run(ask: Ask) -> None:
    (line,) = ask(f"{LINE} openvino --dry-run").out.splitlines()
    assert line.endswith("speed cpu fp32 openvino batch 2")
    submitted = ask(f"submit --cluster local --dry-run {GRID} --attention linear --runtime openvino")
    assert submitted.status == 0, submitted.err
    assert "speed cpu fp32 openvino batch 2" in submitted.out
    assert "; as if torch ran it (1 cell)" in submitted.out
    assert line.split()[0] in submitted.out


def test_a_report_says_how_to_repeat_it_where_the_version_is_the_same(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(selection.TASKS, "speed", Speed())
    cell = Cell(preset("deit_micro"), Speed(Runtime(runtime="onnxruntime", batch=2)))
    found = commands([record(cell, {})])
    _, *words = shlex.split(found[cell.key])
    assert ask(shlex.join([*words, "--dry-run"])).out.split()[0] == cell.key
    monkeypatch.setattr(runtime_module, "version", lambda package: "0.1")
    assert commands([record(cell, {})]) == {}

"""operators: a table per runtime, what profiling costs below it, and what is refused."""

import json
import shlex
from pathlib import Path

import pandas as pd
import pytest

from harness.runtimes import exports
from tests.harness.command_line import Ask, refused
from tests.harness.runtimes.common import plant_wrong, without

pytestmark = pytest.mark.usefixtures("users_files", "cache")

QUICK = "--batch 2 --seconds 0.001"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "cache_folder", lambda: tmp_path.with_name(f"{tmp_path.name}-cache"))


def test_torch_by_operator_and_by_part(ask: Ask) -> None:
    answer = ask(f"operators deit_micro --attention softmax linear {QUICK} -o o.csv")
    assert answer.status == 0, answer.err
    first, second = answer.out.split("attention  part ")
    assert first.startswith("attention  runtime  operator ")
    assert "softmax in torch: " in first
    assert " ms without profiling, " in first
    parts = {line.split()[1] for line in second.splitlines()[1:] if line.startswith("softmax  ")}
    assert {"projections", "products", "norms", "copies", "together"} <= parts
    frame = pd.read_csv("o.csv")
    assert list(frame.columns) == ["attention", "runtime", "operator", "part", "where", "calls", "ms", "share"]
    for name in ("softmax", "linear"):
        own = frame[frame["attention"] == name]
        assert own["share"].sum() == pytest.approx(1, abs=1e-6)
    assert set(frame["where"]) == {"attention", "mlp", "rest"}
    lines = [line for line in first.splitlines()[1:] if line.startswith("softmax  ")]
    shares = [float(line.split()[-2]) for line in lines]
    # The last row are the small ones together.
    assert lines[-1].split()[3] == "others"
    assert shares[:-1] == sorted(shares[:-1], reverse=True)
    assert sum(shares) == pytest.approx(100, abs=2)


def test_runtimes_side_by_side_and_the_command_repeats_it(ask: Ask) -> None:
    answer = ask(f"operators deit_micro --runtime onnxruntime openvino {QUICK} -o o.json")
    assert answer.status == 0, answer.err
    assert answer.out.splitlines()[0].split() == ["attention", "runtime", "operator", "calls", "ms", "share"]
    assert "In torch, by part" not in answer.out
    plain = json.loads(Path("o.json").read_text())
    assert [each["runtime"] for each in plain["models"]] == ["onnxruntime", "openvino"]
    for each in plain["models"]:
        assert sum(row["ms"] for row in each["operators"]) == pytest.approx(each["ms_profiled"])
        assert each["ms"] > 0
        assert each["cost"]["low"] <= each["cost"]["value"] <= each["cost"]["high"]
        assert ": right: " in each["checked"]
        assert each["details"]["export"]["operators"]
    assert ask(shlex.join(shlex.split(plain["command"])[1:])).status == 0


def test_a_wrong_runtime_is_said_and_the_others_are_measured(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    plant_wrong(monkeypatch)
    answer = ask(f"operators deit_micro --runtime onnxruntime torch {QUICK} -o o.md")
    assert answer.status == 1
    assert "in onnxruntime: wrong: 1.0e-02 on " in answer.out
    assert "no number" in answer.out
    assert "aten::addmm" in Path("o.md").read_text()


REFUSED = {
    "nothing": "unknown preset 'nothing'",
    "deit_micro --attention nothing": "unknown attention 'nothing'",
    "deit_micro --attention linear linear": "--attention gives linear twice",
    "deit_micro --runtime onnx": "unknown runtime 'onnx'",
    "deit_micro --runtime torch torch": "--runtime gives torch twice",
    "deit_micro --set window": "cannot read --set 'window'",
    "deit_micro --batch 0": "--batch 0: it takes a number from 1 up",
    "deit_micro --seconds nan": "--seconds nan: it takes a number above 0",
    "deit_micro --device cuda": "torch finds no CUDA device",
    "deit_micro -o o.txt": "-o o.txt: its name must end in .json, .csv, .md",
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_is_refused(ask: Ask, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert REFUSED[line] in refused(ask, f"operators {line}")


def test_a_runtime_that_is_not_installed(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "openvino")
    said = refused(ask, "operators deit_micro --runtime torch openvino")
    assert said == "openvino needs openvino, which is not installed: pip install -e '.[openvino]'\n"

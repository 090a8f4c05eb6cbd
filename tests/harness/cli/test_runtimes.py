"""runtimes: a row per attention and runtime, right ones with times, wrong ones with the reason; and what is refused."""

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


def test_attentions_in_two_runtimes_one_of_them_wrong(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    plant_wrong(monkeypatch, "openvino", lambda file: "GroupConvolution" in file.read_text())
    answer = ask(f"runtimes --backbone deit_micro --attention softmax dwc {QUICK} -o r.csv")
    assert answer.status == 1
    lines = [line.split() for line in answer.out.splitlines()]
    names = [(attention, runtime) for attention in ("softmax", "dwc") for runtime in RUNTIMES]
    assert [tuple(line[1:3]) for line in lines[1:7]] == names
    assert [line[3] for line in lines[1:7]] == ["right"] * 5 + ["wrong:"]
    assert "dwc in deit_micro, openvino: wrong: 1.0e-02 on " in answer.out
    # Of all, only `dwc` has depthwise convolutions.
    first = "first differs in blocks.0.attn.core (the attention itself, level 1 of "
    assert f"; {first}" in answer.out
    frame = pd.read_csv("r.csv").set_index(["attention", "runtime"])
    assert frame.index.tolist() == names
    for column in ("problem", "first_wrong"):
        assert frame[column].notna().tolist() == [False] * 5 + [True]
    assert frame["first_wrong"]["dwc", "openvino"].startswith(first)
    assert frame["ms_p50"].notna().tolist() == [True] * 5 + [False]
    # Neither over itself, nor of what has no time.
    assert frame["over_torch_value"].notna().tolist() == [False, True, True, False, True, False]
    assert frame["over_softmax_value"].notna().tolist() == [False] * 3 + [True, True, False]
    # Medians of few rounds, but of the same rounds as the ratios.
    times = frame["ms_p50"]
    for row, other, column in (
        (("dwc", "onnxruntime"), ("dwc", "torch"), "over_torch"),
        (("dwc", "onnxruntime"), ("softmax", "onnxruntime"), "over_softmax"),
    ):
        assert frame[f"{column}_low"][row] <= frame[f"{column}_value"][row] <= frame[f"{column}_high"][row]
        assert 0.2 < frame[f"{column}_value"][row] / (times[row] / times[other]) < 5


RUNTIMES = ("torch", "onnxruntime", "openvino")


def test_everything_is_in_json_and_the_command_repeats_it(ask: Ask) -> None:
    answer = ask(f"runtimes --backbone deit_micro --attention dwc --runtime onnxruntime {QUICK} -o r.json")
    assert answer.status == 0, answer.err
    plain = json.loads(Path("r.json").read_text())
    torch, other = plain["rows"]
    assert torch["runtime_details"] is None
    assert other["runtime_details"]["export"]["operators"]["Conv"] >= 1
    assert ": right: " in other["checked"]
    # Softmax is not among them.
    assert other["over_softmax_value"] is None
    assert ask(shlex.join(shlex.split(plain["command"])[1:])).status == 0


REFUSED = {
    "--runtime onnx": "unknown runtime 'onnx' (allowed: onnxruntime, openvino)",
    "--runtime torch": "unknown runtime 'torch'",
    "--attention linear linear": "--attention gives linear twice",
    "--backbone deit_micro deit_micro": "--backbone gives deit_micro twice",
    "--attention nothing": "unknown attention 'nothing'",
    "--backbone deit_micro nothing": "unknown preset 'nothing'",
    "--batch 0": "--batch 0: it takes a number from 1 up",
    "--seconds 0": "--seconds 0.0: it takes a number above 0",
    "-o r.txt": "-o r.txt: its name must end in .json, .csv, .md",
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_is_refused(ask: Ask, line: str) -> None:
    assert REFUSED[line] in refused(ask, f"runtimes {line}")


def test_a_runtime_that_is_not_installed(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "openvino")
    said = refused(ask, "runtimes --attention linear")
    assert said == "openvino needs openvino, which is not installed: pip install -e '.[openvino]'\n"

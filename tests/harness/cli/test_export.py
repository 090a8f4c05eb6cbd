"""export: the files that it writes, the verdict beside them, and what is refused before anything is written."""

import json
import shlex
from pathlib import Path

import onnxruntime
import openvino
import pytest
import torch

from backbones import build, preset
from harness.runtimes import exports
from tests.harness.command_line import Ask, images, refused
from tests.harness.runtimes.common import plant_wrong, without

pytestmark = pytest.mark.usefixtures("users_files", "cache")

SMALL = "--set num_classes=3 image_size=16 dim=16 depth=1"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports are kept beside the folder of a test, not in it."""
    monkeypatch.setattr(exports, "cache_folder", lambda: tmp_path.with_name(f"{tmp_path.name}-cache"))


def own(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return build(preset("deit_micro", num_classes=3, image_size=16, dim=16, depth=1, attention="linear")).eval()


def test_any_number_of_images_in_onnx(ask: Ask) -> None:
    answer = ask(f"export deit_micro --attention linear {SMALL} --format onnx --batch dynamic --seed 3 -o new/m.onnx")
    assert answer.status == 0, answer.err
    first, *verdicts = answer.out.splitlines()
    assert first.startswith("deit_micro linear(")
    assert ", random weights, seed 3: " in first
    assert " operators by torch.onnx, opset 18: " in first
    assert [line.split(" at ")[1].split(":")[0] for line in verdicts] == ["1 image", "3 images"]
    assert all(": right: " in line for line in verdicts)
    images = torch.randn(5, 3, 16, 16)
    session = onnxruntime.InferenceSession("new/m.onnx", providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    with torch.no_grad():
        wanted = own(3)(images)
    assert torch.allclose(torch.from_numpy(session.run(None, {given.name: images.numpy()})[0]), wanted, atol=1e-5)
    about = json.loads(Path("new/m.onnx.json").read_text())
    assert about["right"] is True
    assert about["first_wrong"] is None
    assert [each["batch"] for each in about["gate"]] == [1, 3]
    assert about["gate"][0]["differences"].keys() == {"normal inputs", "zeros", "inputs scaled by 10"}
    assert about["export"]["operators"]["MatMul"] > 1
    assert {"torch", "onnx"} <= set(about["export"]["versions"])
    assert about["session"]["runtime"] == "onnxruntime"
    # The line that is kept makes the same.
    Path("new/m.onnx").rename("new/before.onnx")
    Path("new/m.onnx.json").unlink()
    assert ask(shlex.join(shlex.split(about["command"])[1:])).status == 0
    assert Path("new/m.onnx").read_bytes() == Path("new/before.onnx").read_bytes()


def test_weights_from_a_file_in_openvino_and_torch_export(ask: Ask) -> None:
    torch.manual_seed(1)
    model = build(preset("deit_micro")).eval()
    torch.save(model.state_dict(), "w.pth")
    for format, file in (("openvino", "m.xml"), ("torch-export", "m.pt2")):
        answer = ask(f"export deit_micro=w.pth --format {format} --batch 2 -o {file}")
        assert answer.status == 0, answer.err
        assert "w.pth (" in answer.out
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        wanted = model(images)
        loaded = torch.export.load("m.pt2").module()(images)
    found = openvino.Core().compile_model("m.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(images.numpy())[0]
    assert torch.allclose(loaded, wanted, atol=1e-5)
    assert torch.allclose(torch.from_numpy(found), wanted, atol=1e-5)
    assert {path.name for path in Path().iterdir()} == {
        *("my_sweeps.py", "w.pth", "m.xml", "m.bin", "m.xml.json", "m.pt2", "m.pt2.json")
    }


def test_a_wrong_runtime_is_said_and_kept_beside_the_file(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    plant_wrong(monkeypatch, "torch")
    answer = ask(f"export deit_micro {SMALL} --format torch-export -o m.pt2")
    assert answer.status == 1
    assert ": wrong: 1.0e-02 on " in answer.out
    about = json.loads(Path("m.pt2.json").read_text())
    assert about["right"] is False
    assert about["gate"][0]["differences"]["normal inputs"] == pytest.approx(0.01, rel=1e-3)
    assert answer.out.splitlines()[-1] == about["first_wrong"]
    assert about["first_wrong"] == "first differs in patch_embed (PatchEmbed), by 1.0e-02; it is the first part"


def test_int8_is_compared_on_real_images(ask: Ask) -> None:
    """All val images: what only one of the two has right is beside the file."""
    images([f"ten/train/{number}" for number in range(10)], 2)
    images([f"ten/val/{number}" for number in range(10)], 3)
    torch.manual_seed(1)
    torch.save(build(preset("deit_micro")).state_dict(), "w.pth")
    line = "export deit_micro=w.pth --format onnx --batch 4 --precision int8 --data ten -o m.onnx"
    answer = ask(line)
    assert answer.status == 0, answer.err
    _, verdict = answer.out.splitlines()
    assert "1 thread, int8): right: top-1 " in verdict or "threads, int8): right: top-1 " in verdict
    assert "of 30 val images " in verdict
    about = json.loads(Path("m.onnx.json").read_text())
    found = about["accuracy"]
    assert found["images"] == 30
    assert found["points"] == pytest.approx(100 * (found["int8_alone"] - found["own_alone"]) / 30)
    assert about["right"] is found["right"] is True
    assert about["gate"] == []
    assert about["export"]["precision"] == "int8"
    assert about["export"]["operators"]["MatMulInteger"] >= 4
    assert "--precision int8 --data ten" in about["command"]
    own = onnxruntime.InferenceSession("m.onnx", providers=["CPUExecutionProvider"])
    assert own.run(None, {own.get_inputs()[0].name: torch.randn(4, 3, 32, 32).numpy()})[0].shape == (4, 10)


TAKEN = "--format onnx -o my_sweeps.py/m.onnx"
REFUSED = {
    "deit_micro --format onx -o m.onnx": "--format onx: allowed: onnx, openvino, torch-export",
    "deit_micro --format onnx -o m.xml": "-o m.xml: the name of a file for --format onnx must end in .onnx",
    "deit_micro --format openvino -o m.onnx": "must end in .xml",
    "deit_micro --format torch-export -o m": "must end in .pt2",
    f"deit_micro {TAKEN}": "my_sweeps.py is a file",
    "deit_micro --format onnx --batch 0 -o m.onnx": "--batch 0: it takes a number from 1 up",
    "deit_micro --format onnx --batch many -o m.onnx": "--batch many: it takes a number from 1 up, or dynamic",
    "deit_micro --format onnx --limit 0 -o m.onnx": "--limit 0.0: it takes a number above 0",
    "deit_micro --format onnx --limit nan -o m.onnx": "--limit nan: it takes a number above 0",
    "deit_micro --format onnx --limit 0.1 -o m.onnx": "does not export to onnx: it was not done within 0.1 s",
    "deit_micro --format onnx --seed -1 -o m.onnx": "--seed -1: it takes a number from 0",
    "deit_micro --format onnx --ema -o m.onnx": "--ema has no effect without weights",
    "deit_micro=none.pth --format onnx -o m.onnx": "cannot read the weights none.pth",
    "deit_micro= --format onnx -o m.onnx": "a file of weights has no name",
    "deit_micro=none.pth --attention linear --format onnx -o m.onnx": "--attention and --set are of a preset",
    "my_sweeps.py --format onnx -o m.onnx": "my_sweeps.py",
    "nothing --format onnx -o m.onnx": "unknown preset 'nothing'",
    "deit_micro --format onnx --data ten -o m.onnx": "--data has no effect without --precision int8",
    "deit_micro --format onnx --calibrate 3 -o m.onnx": "--calibrate has no effect without --precision int8",
    "deit_micro --format torch-export --precision int8 --data ten -o m.pt2": "torch-export has no int8; allowed: onnx",
    "deit_micro --format onnx --precision int8 -o m.onnx": "compared on real images: name them with --data",
    "deit_micro --format onnx --precision int8 --data fashion_mnist_14k --calibrate 3 -o m.onnx": "is for openvino",
    "deit_micro --format onnx --precision int8 --data fashion_mnist_14k -o m.onnx": "is of trained weights",
    "deit_micro --format onnx --precision int4 -o m.onnx": "--precision int4: allowed: fp32, int8",
    "deit_micro --attention nothing --format onnx -o m.onnx": "unknown attention 'nothing'",
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_is_refused(ask: Ask, line: str) -> None:
    said = refused_after_a_note if "--limit 0.1" in line else refused
    assert REFUSED[line] in said(ask, f"export {line}")


def refused_after_a_note(ask: Ask, line: str) -> str:
    """What is refused once the export has begun, which is said first."""
    answer = ask(line)
    assert answer.status == 2
    assert [path.name for path in Path().iterdir()] == ["my_sweeps.py"]
    _, problem = answer.err.splitlines()
    return problem


@pytest.mark.parametrize("there", ["m.xml", "m.bin", "m.xml.json"])
def test_nothing_is_overwritten(ask: Ask, there: str) -> None:
    Path(there).write_text("mine")
    said = refused(ask, "export deit_micro --format openvino -o m.xml")
    assert said == f"{there} exists: move it away, or give another -o\n"


def test_a_runtime_that_is_not_installed(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "onnxruntime")
    said = refused(ask, "export deit_micro --format onnx -o m.onnx")
    assert said == "onnxruntime needs onnxruntime, which is not installed: pip install -e '.[onnxruntime]'\n"

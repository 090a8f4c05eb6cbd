"""Graphs in int8: what is in them, how near they are, when one is made anew, and what is refused."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from harness.runtimes import exports, formats
from harness.runtimes.exports import Export, ExportError, exported, quantised
from harness.runtimes.sessions import open_session
from tests.harness.runtimes.common import model, scale, without


def images(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((4, 2, 3, 32, 32), dtype=np.float32)


def check_near(export: Export, number: Export) -> None:
    """Near the graph in float32, and not the same."""
    (given,) = model("deit_micro", "softmax").args
    ours, theirs = open_session(number), open_session(export)
    assert (ours.about["precision"], theirs.about["precision"]) == ("int8", "fp32")
    gap = float((ours(given) - theirs(given)).norm() / theirs(given).norm())
    assert 1e-4 < gap < 0.2
    assert sum(path.stat().st_size for path in number.files) < sum(path.stat().st_size for path in export.files)


def test_products_with_weights_are_int8_in_onnx_runtime(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export = exported(model("deit_micro", "softmax"), "onnx")
    number = quantised(export, None, "")
    assert number.about["operators"]["MatMulInteger"] >= 4
    assert "ConvInteger" not in number.about["operators"]
    assert number.about["precision"] == "int8"
    assert number.about["quantiser"] == "onnxruntime.quantization.quantize_dynamic"
    assert "precision" not in export.about
    check_near(export, number)
    # Both are kept, and each is taken again; nothing else is left.
    assert {path.name for path in cache.iterdir()} == {each.file.parent.name for each in (export, number)}
    monkeypatch.setattr(exports, "run_module", lambda *_: pytest.fail("a process was started"))
    assert exported(model("deit_micro", "softmax"), "onnx") == export
    assert quantised(export, None, "") == number


@pytest.mark.skipif(find_spec("nncf") is None, reason="nncf is not installed")
def test_products_and_convolutions_are_int8_in_openvino() -> None:
    export = exported(model("deit_micro", "softmax"), "openvino")
    number = quantised(export, images(), "noise")
    assert number.about["operators"]["FakeQuantize"] >= 8
    assert number.about["calibration"] | {"digest": ""} == {"images": 8, "source": "noise", "digest": ""}
    assert not (number.file.parent / "images.npy").exists()
    assert {"nncf", "openvino"} <= number.about["versions"].keys()
    check_near(export, number)


def test_another_calibration_is_another_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    export = exported(scale(2.0), "openvino")
    monkeypatch.setattr(formats, "version", lambda package: "1.0")
    folders: list[Path] = []

    def note(source: Path, given: np.ndarray | None, about: object, folder: Path, limit: float) -> None:
        folders.append(folder)
        raise ExportError("noted")

    monkeypatch.setattr(exports, "_quantise", note)
    for given, source in ((images(), "a"), (images(), "a"), (images(1), "a"), (images(), "b"), (images()[:3], "a")):
        with pytest.raises(ExportError, match="noted"):
            quantised(export, given, source)
    assert folders[0] == folders[1]
    assert len(set(folders)) == 4


def test_what_cannot_be_is_one_line(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export = exported(model("deit_micro", "softmax"), "onnx")
    with pytest.raises(ExportError, match=r"does not become int8 for onnx: it was not done within 0\.2 s"):
        quantised(export, None, "", limit=0.2)
    export.file.write_bytes(b"no graph")
    with pytest.raises(ExportError, match="does not become int8 for onnx: ") as said:
        quantised(export, None, "")
    assert "\n" not in str(said.value)
    assert [path.name for path in cache.iterdir()] == [export.file.parent.name]
    other = exported(scale(2.0), "torch-export")
    with pytest.raises(ValueError, match="--format torch-export has no int8; allowed: onnx, openvino"):
        quantised(other, None, "")

    without(monkeypatch, "nncf")
    assert "nncf" not in formats.FORMATS["openvino"].versions()
    with pytest.raises(
        ValueError, match=r"openvino needs nncf, which is not installed: pip install -e '\.\[openvino\]'"
    ):
        formats.FORMATS["openvino"].versions(int8=True)

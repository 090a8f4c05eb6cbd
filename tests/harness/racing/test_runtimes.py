"""Races of other runtimes: through the same gate, rounds and tables as every other candidate."""

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch

from harness.cells import Runtime
from harness.measures.quiet import UNWATCHED
from harness.racing.candidates import Candidate, check_runtimes, read_candidates
from harness.racing.places import Place, places_of, read_place
from harness.racing.race import Measured, Setup, race
from harness.runtimes import exports, formats
from tests.harness.runtimes.common import plant_wrong

(SMALL,) = read_place("dim=16,heads=2,grid=4x5")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "cache_folder", lambda: tmp_path / "exports")


def raced(*texts: str, place: Place | None = SMALL, layer: bool = False) -> Measured:
    candidates = read_candidates(texts, "fp32", None)
    setup = Setup("forward", Runtime(batch=2), 1e-3, layer=layer)
    return race(candidates, place, setup, lambda line: None, watching=UNWATCHED)


def test_an_attention_in_three_runtimes() -> None:
    measured = raced("focused", "focused@onnxruntime", "focused@openvino")
    assert [each.problem for each in measured.results] == [None] * 3
    assert measured.ran == (0, 1, 2)
    eager, *others = measured.results
    assert eager.runtime is None
    for name, each in zip(("onnxruntime", "openvino"), others, strict=True):
        assert each.ratio is not None
        assert each.saved_mib is None
        assert each.runtime is not None
        assert each.runtime["runtime"] == name
        assert each.runtime["threads"] == torch.get_num_threads()
        assert each.runtime["export"]["operators"]["MatMul"] >= 2
        assert f"; {name} " in each.checked
        assert ": right: " in each.checked
        # What it must move and do is that of the attention, whoever runs it.
        assert each.needed == eager.needed


def test_layers_and_models() -> None:
    """A layer of Swin has a mask and regions beside its tokens."""
    (place,) = places_of("swin_micro", 1)
    assert [each.problem for each in raced("softmax", "softmax@onnxruntime", place=place, layer=True).results] == [
        None,
        None,
    ]
    models = raced("deit_micro", "deit_micro(attention=linear)@openvino", place=None)
    assert [each.problem for each in models.results] == [None, None]


def test_a_planted_wrong_runtime_has_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    plant_wrong(monkeypatch)
    eager, wrong = raced("linear", "linear@onnxruntime").results
    assert eager.seconds
    assert wrong.problem is not None
    assert wrong.problem.startswith("wrong: 1.0e-02 on ")
    assert wrong.seconds == ()
    assert wrong.ratio is None


def test_a_stale_export_has_no_time() -> None:
    """The graph of another attention in the place of the one that is raced."""
    raced("linear", "linear@onnxruntime")
    (own,) = exports.cache_folder().iterdir()
    raced("linear", "focused@onnxruntime")
    (other,) = (path for path in exports.cache_folder().iterdir() if path != own)
    (own / "graph.onnx").write_bytes((other / "graph.onnx").read_bytes())
    stale = raced("linear", "linear@onnxruntime").results[1]
    assert stale.problem is not None
    assert stale.problem.startswith("wrong: ")
    assert stale.seconds == ()


def test_what_does_not_export_has_no_number_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "run_module", lambda *_: -9)
    eager, lost = raced("linear", "linear@onnxruntime").results
    assert eager.seconds
    assert lost.problem is not None
    assert "does not export to onnx: the exporting process was ended by SIGKILL" in lost.problem


def candidates(*texts: str) -> list[Candidate]:
    return read_candidates(["linear", *texts], "fp32", "linear" if any(":" in text for text in texts) else None)


def test_what_another_runtime_does_not_do_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text("def mine(site):\n    return lambda q, k, v: v\n")
    given = candidates("linear@onnxruntime")
    check_runtimes(given, "forward", "cpu")
    check_runtimes(candidates("softmax"), "both", "cuda")
    with pytest.raises(ValueError, match="linear@onnxruntime: onnxruntime has no backward pass: --work forward"):
        check_runtimes(given, "both", "cpu")
    with pytest.raises(ValueError, match="onnxruntime is raced on a CPU, not on cuda"):
        check_runtimes(given, "forward", "cuda")
    with pytest.raises(ValueError, match="linear@openvino@bf16: openvino is raced in fp32, not bf16"):
        check_runtimes(candidates("linear@openvino@bf16"), "forward", "cpu")
    with pytest.raises(ValueError, match="is foreign: openvino takes attentions and presets by name"):
        check_runtimes(candidates(f"{tmp_path / 'mine.py'}:mine@openvino"), "forward", "cpu")
    for text in ("linear@openvino@compiled", "linear@native@openvino", "linear@onnxruntime@openvino"):
        with pytest.raises(ValueError, match="contradict each other"):
            candidates(text)
    with pytest.raises(ValueError, match=r"unknown way to run 'onnxruntim'; did you mean onnxruntime\?"):
        candidates("linear@onnxruntim")
    with pytest.raises(ValueError, match="no backward pass"):
        race(given, SMALL, Setup("both", Runtime(batch=2), 1e-3), lambda line: None, watching=UNWATCHED)

    def only_torch(package: str) -> str:
        if package != "torch":
            raise PackageNotFoundError
        return "1.0"

    monkeypatch.setattr(formats, "version", only_torch)
    check_runtimes(candidates("softmax"), "forward", "cpu")
    with pytest.raises(ValueError, match="not installed: pip install"):
        check_runtimes(given, "forward", "cpu")

"""Exports: what is in them, when one is made anew, and what is said where none can be made."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from attentions import AttentionSpec, load_file
from backbones import preset
from harness.runtimes import exports, formats
from harness.runtimes.exports import Export, Exportable, ExportError, exported
from harness.runtimes.sessions import open_session
from tests.harness.runtimes.common import SITE, attention, model, scale, without


def refuse(*_: object) -> int:
    raise AssertionError("a process was started")


def test_what_is_known_of_an_export(cache: Path) -> None:
    export = exported(scale(2.0), "onnx")
    assert export.file.parent.parent == cache
    about = export.about
    assert (about["format"], about["exporter"], about["opset"]) == ("onnx", "torch.onnx", 18)
    assert about["options"] == {"dynamic_batch": False, "sdpa": "math"}
    assert about["versions"].keys() == {"torch", "onnxruntime", "onnx", "onnxscript"}
    assert about["operators"] == {"Mul": 3}
    assert about["seconds"] > 0
    # Nothing else is left of the process that made it.
    assert [path.name for path in cache.iterdir()] == [export.file.parent.name]
    assert "module.pt" not in {path.name for path in export.file.parent.iterdir()}


@pytest.mark.parametrize(("format", "files"), [("torch-export", [".pt2"]), ("openvino", [".xml", ".bin"])])
def test_the_files_of_other_formats(format: str, files: list[str]) -> None:
    export = exported(scale(2.0), format)
    assert [path.suffix for path in export.files] == files
    assert sum(export.about["operators"].values()) == 3


def test_what_was_exported_before_is_taken_and_anything_else_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    first = exported(scale(2.0), "onnx")
    made: list[Exportable] = []

    def count(subject: Exportable, *_: object) -> None:
        made.append(subject)
        raise ExportError("counted")

    def again(subject: Exportable, format: str = "onnx", *, dynamic: bool = False) -> bool:
        """Whether it would be made."""
        before = len(made)
        try:
            assert exported(subject, format, dynamic=dynamic) == first
        except ExportError:
            return len(made) == before + 1
        return False

    monkeypatch.setattr(exports, "_make", count)
    one = scale(2.0)
    assert not again(one)
    # Values of inputs do not matter, what they are does.
    assert not again(replace(one, args=tuple(2 * x for x in one.args if x is not None)))
    assert again(replace(one, args=tuple(x[:1] for x in one.args if x is not None)))
    assert again(scale(2.001))
    assert again(replace(one, spec=AttentionSpec.parse("softmax(fused=False)")))
    assert again(replace(one, at="elsewhere"))
    assert again(one, "openvino")
    assert again(one, dynamic=True)
    with monkeypatch.context() as other:
        other.setattr(formats, "version", lambda package: "0.0" if package == "onnxscript" else "1.0")
        assert again(one)
    with monkeypatch.context() as other:
        other.setattr(exports, "project_digest", lambda: "another")
        assert again(one)
    with monkeypatch.context() as other:
        other.setattr(exports, "source_digest", lambda name: "another")
        assert again(one)
    assert not again(one)


@pytest.mark.parametrize("subject", [lambda: model("swin_micro", "softmax"), lambda: model("cswin_micro", "agent")])
def test_the_fused_kernel_of_torch_exports(subject: Callable[[], Exportable]) -> None:
    """Traced with that kernel, these end with "Cannot view a tensor with shape ..."."""
    assert exported(subject(), "onnx").about["operators"]["Softmax"] >= 2


def test_a_batch_may_be_left_open() -> None:
    subject = model("deit_micro", "linear")
    for format in ("onnx", "openvino", "torch-export"):
        session = open_session(exported(subject, format, dynamic=True))
        for batch in (1, 3):
            images = torch.randn(batch, 3, 32, 32)
            with torch.no_grad():
                assert torch.allclose(session(images), subject.module(images), atol=1e-5), format
    with pytest.raises(Exception, match=r"(?i)dimension|shape"):
        open_session(exported(subject, "onnx"))(torch.randn(3, 3, 32, 32))


MINE = """
from attentions import Attention, Macs, register

@register("exports_mine")
class Mine(Attention):
    def forward(self, q, k, v, *, bias=None, x=None, regions=None):
        return v.mean(dim=1, keepdim=True).expand_as(q) + q

    def macs(self):
        return Macs(attention=0)
"""


@pytest.mark.usefixtures("users_attentions")
def test_an_attention_of_the_users_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    load_file(tmp_path / "mine.py")
    spec = AttentionSpec.of("exports_mine")
    module, args = spec.build(SITE).eval(), attention().args
    export = exported(Exportable(module, args, spec), "onnx")
    assert torch.allclose(open_session(export)(*args), module(*args), atol=1e-6)


def test_what_does_not_export_says_why_in_one_line(cache: Path) -> None:
    with pytest.raises(ExportError, match=r"does not export to onnx: .*Could not guard on data-dependent") as said:
        exported(scale(2.0, asks=True), "onnx")
    assert "\n" not in str(said.value)
    assert list(cache.iterdir()) == []


def test_an_export_that_takes_too_long_is_ended(cache: Path) -> None:
    with pytest.raises(ExportError, match=r"does not export to onnx: it was not done within 0\.2 s"):
        exported(scale(2.0), "onnx", limit=0.2)
    assert list(cache.iterdir()) == []


def test_a_process_that_dies_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "run_module", lambda *_: -9)
    with pytest.raises(ExportError, match="the exporting process was ended by SIGKILL"):
        exported(scale(2.0), "onnx")

    def noisy(module: str, arguments: list[str], log: Path, limit: float) -> int:
        log.write_text("one\ntwo\n")
        return 2

    monkeypatch.setattr(exports, "run_module", noisy)
    with pytest.raises(ExportError, match=r"two$"):
        exported(scale(2.0), "onnx")


def test_what_is_missing_or_unknown_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown format 'onx'; did you mean onnx\? \(allowed: torch-export, onnx, "):
        exported(scale(2.0), "onx")

    without(monkeypatch, "openvino")
    with pytest.raises(ValueError, match=r"openvino needs openvino, .* not installed: pip install -e '\.\[openvino\]'"):
        exported(scale(2.0), "openvino")
    formats.check_installed(["torch", "onnxruntime"])
    with pytest.raises(ValueError, match="not installed"):
        formats.check_installed(["torch", "openvino"])
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(exports, "cache_folder", lambda: tmp_path / "file")
    with pytest.raises(ValueError, match="cannot write the cache of exports"):
        exported(scale(2.0), "onnx")


def test_equal_weights_of_another_model_are_another_export(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (replace(scale(2.0), spec=preset(name)) for name in ("deit_micro", "pvt_micro"))
    assert isinstance(exported(one, "onnx"), Export)
    monkeypatch.setattr(exports, "run_module", refuse)
    assert isinstance(exported(one, "onnx"), Export)
    with pytest.raises(AssertionError, match="a process was started"):
        exported(other, "onnx")

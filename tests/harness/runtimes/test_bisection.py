"""Bisection: the first part of a model that a runtime computes wrongly, and what is said of it."""

from pathlib import Path

import onnx
import pytest
import torch

from harness.runtimes.bisection import Until, first_wrong, parts
from harness.runtimes.exports import ExportError, exported
from harness.runtimes.gate import agreement
from harness.runtimes.sessions import open_session
from tests.harness.runtimes.common import model, plant_wrong
from tests.nightly import LONG


def plant(monkeypatch: pytest.MonkeyPatch, operator: str, number: int) -> None:
    """Make ONNX Runtime wrong for graphs that have an operator so often."""

    def has_it(file: Path) -> bool:
        return sum(node.op_type == operator for node in onnx.load(file).graph.node) >= number

    plant_wrong(monkeypatch, where=has_it)


def test_the_parts_of_a_model_in_the_order_in_which_they_are_done() -> None:
    named = parts(model("deit_micro", "linear"))
    assert named[:5] == ["patch_embed", "blocks.0.attn.core", "blocks.0.attn", "blocks.0.mlp", "blocks.0"]
    assert named[-3:] == ["norm", "head", ""]
    named = parts(model("cswin_micro", "softmax"))
    first = ["stage1.0.attns.0.core", "stage1.0.attns.0", "stage1.0.attns.1.core", "stage1.0.attns.1"]
    assert named[:6] == ["stage1_conv_embed", *first, "stage1.0.mlp"]
    assert named.index("stage1.1") < named.index("merge1") < named.index("stage2.0")


def test_the_graph_of_a_beginning_ends_there() -> None:
    subject = model("deit_micro", "linear")
    until = Until(subject.module, "blocks.0.mlp").eval()
    (images,) = subject.args
    with torch.inference_mode():
        assert until(images).shape == (2, 65, 64)
    begun, whole = (
        exported(type(subject)(each, subject.args, subject.spec), "onnx").about["operators"]
        for each in (until, subject.module)
    )
    assert begun["Erf"] == 1 < whole["Erf"]


def test_a_planted_wrong_mlp_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, "Erf", 2)
    found = first_wrong(model("deit_micro", "linear"), "onnx")
    assert (found.name, found.before) == ("blocks.1.mlp", "blocks.1.attn")
    assert str(found).startswith("first differs in blocks.1.mlp (an MLP, level 2 of ")
    assert str(found).endswith("), by 1.0e-02; blocks.1.attn before it is right")


def test_a_planted_wrong_attention_is_named_at_other_inputs_and_open_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, "Softmax", 1)
    subject = model("deit_micro", "softmax")
    found = first_wrong(subject, "onnx", dynamic=True, tried=(torch.randn(3, 3, 32, 32),))
    assert str(found) == (
        "first differs in blocks.0.attn.core (the attention itself, level 1 of 4), by 1.0e-02; "
        "patch_embed before it is right"
    )


def test_what_is_wrong_from_the_start_or_does_not_export(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = model("deit_micro", "linear")
    plant(monkeypatch, "Conv", 1)
    assert str(first_wrong(subject, "onnx")) == (
        "first differs in patch_embed (PatchEmbed), by 1.0e-02; it is the first part"
    )
    with pytest.raises(ExportError, match=r"it was not done within 0\.1 s"):
        first_wrong(subject, "openvino", limit=0.1)


def test_what_is_right_has_no_wrong_part() -> None:
    with pytest.raises(ValueError, match="exported once more, the whole is right"):
        first_wrong(model("deit_micro", "linear"), "onnx")


@pytest.mark.parametrize("text", ["agent", *(pytest.param(text, marks=LONG) for text in ("angular", "nystromformer"))])
def test_what_openvino_computes_wrongly_where_values_are_read_in_two_ways_is_right(text: str) -> None:
    subject = model("cswin_micro", text)
    assert agreement(subject.module, open_session(exported(subject, "openvino")), subject.args).right

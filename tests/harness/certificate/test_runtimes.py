"""The laws of runtimes: only they find their planted bugs, what is exempt says why, and an export ends in time."""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError

import pytest
import torch

from attentions import Attention, AttentionSpec, _registry
from harness.certificate import runtimes
from harness.certificate.certify import LAWS, certify
from harness.certificate.subject import Broken, Exempt, Subject
from harness.runtimes import formats
from tests.harness.certificate.planted_bugs import (
    CentresInDouble,
    OperatorThatOnlyTorchHas,
    RangeOfItsExample,
    Sound,
    SoundSoftmax,
)

Register = Callable[[type[Attention]], Subject]


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Register:
    """Makes an attention known for one test."""

    def register(cls: type[Attention]) -> Subject:
        name = cls.__name__.lower()
        monkeypatch.setitem(_registry._REGISTRY, name, cls)
        return Subject(AttentionSpec(name), quick=True)

    return register


class OnlyWithAClassToken(OperatorThatOnlyTorchHas):
    def weights(self, scores):
        return super().weights(scores) if self.site.queries.prefix else scores.softmax(-1)


@pytest.mark.parametrize(
    ("law", "bug"),
    [("onnx", OperatorThatOnlyTorchHas), ("onnx", RangeOfItsExample), ("openvino", CentresInDouble)],
    ids=lambda each: each if isinstance(each, str) else each.__name__,
)
def test_no_other_law_finds_these(law: str, bug: type[Attention], registered: Register) -> None:
    assert [each.law for each in certify(registered(bug).spec, quick=True).failed] == [law]


def test_sites_are_one_per_family(registered: Register) -> None:
    subject = registered(Sound)
    assert LAWS["onnx"](subject).startswith("2 sites, largest difference ")
    full = Subject(subject.spec)
    for law in ("onnx", "openvino"):
        said = LAWS[law](full)
        assert said.startswith("6 sites, largest difference ")
        assert 0 < float(said.rpartition(" ")[2]) < 1e-4


def test_what_does_not_export_says_at_which_site(registered: Register) -> None:
    subject = registered(OnlyWithAClassToken)
    with pytest.raises(Broken, match=r"^class token \(B 2, .*\): it does not export to onnx: ") as said:
        LAWS["onnx"](subject)
    assert "\n" not in str(said.value)
    with pytest.raises(Exempt, match=r"not tested: there is no graph that ONNX Runtime takes \(see onnx\)"):
        LAWS["openvino"](subject)


def test_what_is_wrong_says_where_and_by_how_much(registered: Register) -> None:
    subject = registered(RangeOfItsExample)
    with pytest.raises(Broken, match=r"^windows \(B 6, .*\): ONNX Runtime \S+ is wrong: .* on inputs scaled by 10"):
        LAWS["onnx"](subject)
    with pytest.raises(Exempt, match=r"not tested: the graph is wrong in ONNX Runtime too \(see onnx\)"):
        LAWS["openvino"](subject)


def test_a_fault_of_openvino_alone_says_how_right_the_graph_is_and_may_be_declared(
    registered: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = registered(CentresInDouble)
    with pytest.raises(
        Broken,
        match=r"^windows \(B 6.*\): OpenVINO \S+ is wrong: .*; ONNX Runtime \S+ is right on the same graph, to \d",
    ):
        LAWS["openvino"](subject)
    reason = "OpenVINO 2026.4.1 computes float64 in float32"
    monkeypatch.setattr(CentresInDouble, "exempt", {"openvino": reason})
    (verdict,) = (law for law in certify(subject.spec, quick=True).laws if law.law == "openvino")
    assert (verdict.verdict, verdict.detail) == ("exempt", reason)


def test_an_export_that_hangs_is_ended(registered: Register, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "LIMIT", 0.2)
    with pytest.raises(Broken, match=r"does not export to onnx: it was not done within 0\.2 s"):
        LAWS["onnx"](registered(SoundSoftmax))


def test_what_is_not_installed_or_is_in_no_file_is_exempt(
    registered: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Local(Sound):
        pass

    for law in ("onnx", "openvino"):
        with pytest.raises(Exempt, match="another process, which finds no class that is not in a file"):
            LAWS[law](registered(Local))
        with pytest.raises(Exempt, match="graphs are run on a CPU"):
            LAWS[law](Subject(AttentionSpec("linear"), quick=True, device="cuda"))

    def only_torch(package: str) -> str:
        if package != "torch":
            raise PackageNotFoundError
        return torch.__version__

    monkeypatch.setattr(formats, "version", only_torch)
    for law, runtime in (("onnx", "onnxruntime"), ("openvino", "openvino")):
        with pytest.raises(Exempt, match=rf"not tested: {runtime} needs {runtime}, which is not installed: pip"):
            LAWS[law](registered(SoundSoftmax))

"""The certificate: every planted bug is found by its law, and no sound attention is accused."""

from typing import ClassVar

import pytest
import torch
from torch._subclasses import FakeTensorMode

from attentions import AttentionSpec, _registry
from harness.certificate import costs
from harness.certificate.certify import LAWS, SLOW, certify
from harness.certificate.subject import Broken, Subject, loss_of
from tests.harness.certificate.planted_bugs import BUGS, NormalisesItsValues, Sound, SoundSoftmax
from tests.nightly import LONG

PLANTED = [(law, bug) for law, bugs in BUGS.items() for bug in bugs]


@pytest.fixture
def registered(monkeypatch):
    """Makes an attention known for one test."""

    def register(cls):
        name = cls.__name__.lower()
        monkeypatch.setitem(_registry._REGISTRY, name, cls)
        return AttentionSpec(name)

    return register


def test_there_is_a_bug_for_every_law():
    assert set(BUGS) == set(LAWS)
    assert len(PLANTED) >= 20


@pytest.mark.parametrize(("law", "bug"), PLANTED, ids=lambda value: value if isinstance(value, str) else value.__name__)
def test_a_planted_bug_is_found(law, bug, registered, monkeypatch):
    # A pair of small maps is enough to find it; larger ones would take a gigabyte.
    monkeypatch.setattr(costs, "ENOUGH", 0.015)
    monkeypatch.setattr(costs, "SLOW", 0.0)
    with pytest.raises(Broken) as found:
        LAWS[law](Subject(registered(bug)))
    assert "\n" not in str(found.value)


@LONG
@pytest.mark.parametrize("sound", [Sound, SoundSoftmax])
def test_a_sound_attention_passes_all_laws(sound, registered):
    certificate = certify(registered(sound))
    assert certificate.failed == ()
    assert [verdict.law for verdict in certificate.laws] == list(LAWS)


def test_a_sound_attention_passes_all_laws_of_the_quick_form(registered):
    certificate = certify(registered(SoundSoftmax), quick=True)
    assert certificate.failed == ()
    assert [verdict.law for verdict in certificate.laws] == [law for law in LAWS if law not in SLOW]


@pytest.mark.parametrize("width", [16, 64])
def test_what_takes_heads_of_some_widths_only_is_tested_at_these(width, registered):
    class Wide(Sound):
        def __init__(self, site):
            if site.head_dim % width:
                raise ValueError(f"heads of {site.head_dim} channels are not allowed; it takes multiples of {width}")
            super().__init__(site)

    certificate = certify(registered(Wide), quick=True)
    assert certificate.failed == ()
    assert {law.law for law in certificate.laws if law.verdict == "exempt"} <= {
        *("builds", "mask"),
        *("onnx", "openvino"),  # its class is in no file
    }


def test_where_it_can_be_mounted_nowhere_no_law_is_said_to_hold(registered):
    class Nowhere(Sound):
        def __init__(self, site):
            raise ValueError("not today")

    builds, *others = certify(registered(Nowhere), quick=True).laws
    assert (builds.law, builds.verdict) == ("builds", "fail")
    assert {law.verdict for law in others} == {"exempt"}


@pytest.mark.parametrize(
    ("mix", "said"),
    [
        (lambda v: (v, v), "returned a tuple of 2, must be one tensor (B, N, C)"),
        (lambda v: None, "returned a NoneType, must be one tensor (B, N, C)"),
        (lambda v: [][0], "IndexError: list index out of range"),
        (lambda v: v if v.shape[2] < 48 else [][0], "IndexError: list index out of range"),
    ],
    ids=["a map beside the output", "nothing", "an error", "an error at some sites"],
)
def test_what_does_not_run_is_said_once(registered, mix, said):
    """A line says what is wrong, and the other laws are not blamed for it."""

    class Broken(Sound):
        def forward(self, q, k, v, **given):
            return mix(v)

    certificate = certify(registered(Broken), quick=True)
    builds, shape, *others = certificate.laws
    assert (builds.verdict, shape.verdict) == ("pass", "fail")
    assert said in shape.detail
    assert {(law.verdict, law.detail) for law in others} == {
        ("exempt", "not tested: it does not run at every small site (see shape)")
    }
    assert certificate.short == "fails shape"


def test_an_error_in_the_middle_of_a_law_belongs_in_the_certificate(registered):
    class Odd(Sound):
        def forward(self, q, k, v, **given):
            out = super().forward(q, k, v, **given)
            return out if out.dtype == torch.float64 else (out, out)

    laws = {law.law: law for law in certify(registered(Odd), quick=True).laws}
    assert laws["shape"].detail.endswith("returned a tuple of 2, must be one tensor (B, N, C)")
    assert laws["reference"].verdict == "pass"
    assert laws["memory"].verdict == laws["near"].verdict == "fail"


@pytest.mark.parametrize(
    "problem",
    [
        RuntimeError("0 active drivers ([]). There should only be one."),
        AssertionError("Torch not compiled with CUDA enabled"),
        RuntimeError("Found no NVIDIA driver on your system."),
        AssertionError("needs CUDA"),
        ValueError("this kernel is for a GPU only"),
    ],
    ids=["triton", "a build of torch for CPUs", "no driver", "a check of its own", "another"],
)
@pytest.mark.parametrize("where", ["constructor", "forward"])
def test_what_asks_for_a_gpu_is_not_accused_on_the_cpu(registered, problem, where):
    class Kernel(Sound):
        def __init__(self, site):
            super().__init__(site)
            if where == "constructor":
                raise problem

        def forward(self, q, k, v, **given):
            raise problem

    with pytest.raises(
        ValueError, match=r"kernel asks for a GPU, and cannot be tested on the CPU \(.*--device cuda"
    ) as said:
        certify(registered(Kernel), quick=True)
    assert str(problem) in str(said.value)


def test_without_a_gpu_it_is_said_before_anything_is_tested(registered, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device cuda was asked for, but torch finds no CUDA device here"):
        certify(registered(Sound), quick=True, device="cuda")


@pytest.mark.gpu
def test_a_sound_attention_passes_all_laws_on_a_gpu(registered):
    certificate = certify(registered(SoundSoftmax), quick=True, device="cuda")
    assert certificate.failed == ()
    assert certificate.environment["device"] == "cuda"
    assert certificate.short.endswith(" quick on cuda")


def test_what_a_subject_on_a_gpu_gets_is_there(registered):
    """As far as it can be seen without one."""
    with FakeTensorMode():
        subject = Subject(registered(SoundSoftmax), quick=True, device="cuda")
        for case in subject.cases:
            given = subject.inputs(case)
            assert {x.device.type for x in (*given.values(), loss_of(given["q"]))} == {"cuda"}


def test_an_exemption_from_what_is_no_law_is_refused(registered):
    class Typo(Sound):
        exempt: ClassVar = {"permutations": "it was meant well"}

    with pytest.raises(ValueError, match=r"typo is exempt from \['permutations'\], which are not laws \(builds, shape"):
        certify(registered(Typo))


def test_what_is_not_linear_in_its_values_may_say_so(registered):
    class Declared(NormalisesItsValues):
        exempt: ClassVar = {"map": "values are vectors of length 1"}

    certificate = certify(registered(Declared), quick=True)
    assert certificate.failed == ()
    (law,) = (law for law in certificate.laws if law.law == "map")
    assert (law.verdict, law.detail) == ("exempt", "values are vectors of length 1")


@pytest.mark.parametrize("bug", BUGS["map"])
def test_no_other_law_finds_what_is_not_linear_in_the_values(bug, registered):
    assert [law.law for law in certify(registered(bug), quick=True).failed] == ["map"]


def test_what_differs_by_rounding_is_said(registered):
    """A difference of zero in everything would be one that was not measured."""
    said = {law.law: law.detail for law in certify(registered(SoundSoftmax), quick=True).laws}
    for law in ("reference", "gradient", "map"):
        assert 0 < float(said[law].rpartition(" ")[2]) < 1e-13, said[law]

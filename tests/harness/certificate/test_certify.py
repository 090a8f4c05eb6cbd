"""The certificate: every planted bug is found by its law, and no sound attention is accused."""

from typing import ClassVar

import pytest

from attentions import AttentionSpec, _registry
from harness.certificate import costs
from harness.certificate.certify import LAWS, SLOW, certify
from harness.certificate.subject import Broken, Subject
from tests.harness.certificate.planted_bugs import BUGS, Sound, SoundSoftmax
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


@pytest.mark.parametrize("sound", [Sound, pytest.param(SoundSoftmax, marks=LONG)])
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
    assert {law.law for law in certificate.laws if law.verdict == "exempt"} <= {"builds", "mask"}


def test_where_it_can_be_mounted_nowhere_no_law_is_said_to_hold(registered):
    class Nowhere(Sound):
        def __init__(self, site):
            raise ValueError("not today")

    builds, *others = certify(registered(Nowhere), quick=True).laws
    assert (builds.law, builds.verdict) == ("builds", "fail")
    assert {law.verdict for law in others} == {"exempt"}


def test_an_exemption_from_what_is_no_law_is_refused(registered):
    class Typo(Sound):
        exempt: ClassVar = {"permutations": "it was meant well"}

    with pytest.raises(ValueError, match=r"typo is exempt from \['permutations'\], which are not laws \(builds, shape"):
        certify(registered(Typo))


def test_what_differs_by_rounding_is_said(registered):
    """A difference of zero in everything would be one that was not measured."""
    said = {law.law: law.detail for law in certify(registered(SoundSoftmax), quick=True).laws}
    for law in ("reference", "gradient"):
        assert 0 < float(said[law].rpartition(" ")[2]) < 1e-13, said[law]

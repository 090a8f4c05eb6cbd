"""The certificate: every planted bug is found by its law, and no sound attention is accused."""

import pytest

from attentions import AttentionSpec, _registry
from harness.certificate import LAWS, certify, costs
from harness.certificate.subject import Broken, Subject
from tests.harness.planted_bugs import BUGS, Sound, SoundSoftmax

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


@pytest.mark.parametrize("sound", [Sound, SoundSoftmax])
def test_a_sound_attention_passes_all_laws(sound, registered):
    certificate = certify(registered(sound))
    assert certificate.failed == ()
    assert [verdict.law for verdict in certificate.laws] == list(LAWS)

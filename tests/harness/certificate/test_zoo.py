"""Every registered attention stands the laws of the certificate: the quick form here, the full one in a night."""

from contextlib import nullcontext, suppress

import pytest

import results
from attentions import AttentionSpec, names, source_digest
from harness.certificate.certify import LAWS, certify
from harness.certificate.subject import Exempt, Subject
from results.certificates import SHIPPED, file_name
from tests.nightly import LONG

# Options beside the defaults: a few here, the others at night, as is what compilers and random sites make of them.
HERE = (
    "agent(agents=9, agent_bias=False, kernel_size=5)",
    "focused(focusing_factor=8, kernel_size=3, positional_encoding=False)",
    "linear(kernel_size=3)",
    "mlla(rotary=False, kernel_size=5)",
    "softmax(fused=False)",
)
OPTIONS = (
    *HERE,
    "agent(agents=4, kernel_size=None)",
    "angular(kernel_size=None)",
    "angular(kernel_size=3, threshold=0.02)",
    "dwc(kernel_size=3)",
    "efficient(normalization=scaling)",
    "enhanced(scales=(3, 5))",
    "external(memory=5)",
    "focused(focusing_factor=1, kernel_size=None)",
    "focused(focusing_factor=32)",
    "inline(feature_map=relu, kernel_size=5)",
    "inline(kernel_size=None)",
    "linear(feature_map=elu)",
    "linformer(length=5, share=True)",
    "mlla(kernel_size=None)",
    "nystromformer(landmarks=1, kernel_size=None)",
    "nystromformer(landmarks=5, kernel_size=None)",
    "performer(features=5, orthogonal=False)",
    "performer(kernel=relu)",
    "polaformer(alpha=3, kernel_size=None)",
    "polaformer(kernel_size=3, positional_encoding=False)",
    "rala(reweight=False)",
    "rala(gate=False)",
    "soft(side=1)",
    "soft(side=2, iterations=6)",
)
SLOW = ("builds", "growth of time", "compile", "export", "onnx", "openvino", "random sites")


@pytest.mark.parametrize("name", names())
def test_an_attention_stands_every_law(name):
    certificate = certify(AttentionSpec(name), quick=True)
    assert not certificate.failed, certificate.failed
    # Of a definition all of them can boast.
    assert next(law for law in certificate.laws if law.law == "reference").verdict == "pass"
    assert all(law.detail for law in certificate.laws)


@pytest.mark.parametrize("text", [pytest.param(text, marks=[] if text in HERE else LONG) for text in OPTIONS])
def test_options_stand_the_laws_of_mathematics(text):
    subject = Subject(AttentionSpec.parse(text), quick=True)
    for name, law in LAWS.items():
        if name not in SLOW:
            with suppress(Exempt) if name in ("mask", "map") else nullcontext():
                assert law(subject)


def test_the_map_of_few_attentions_is_not_to_be_multiplied():
    """Each of the others is linear in v, and its map was multiplied with it."""
    exempt = {}
    for name in names():
        try:
            LAWS["map"](Subject(AttentionSpec(name), quick=True))
        except Exempt as reason:
            exempt[name] = str(reason).partition(",")[0]
    assert exempt == {"enhanced": "linear in v", "external": "it does not read v", "xca": "linear in v"}


def test_an_attention_with_options_is_tried_with_others_too():
    assert {AttentionSpec.parse(text).name for text in OPTIONS} == {
        name for name in names() if AttentionSpec(name).options
    }


def test_every_attention_has_a_certificate():
    assert {file_name(str(AttentionSpec(name))) for name in names()} <= {path.name for path in CERTIFICATES}


CERTIFICATES = sorted(SHIPPED.glob("*.json"))


@pytest.mark.parametrize("path", CERTIFICATES, ids=lambda path: path.stem)
def test_a_shipped_certificate_is_of_the_code_as_it_is(path):
    """`make certificates` writes them; it takes half a minute for each attention."""
    certificate = results.read_certificate(path)
    spec = AttentionSpec.parse(certificate.attention)
    assert path.name == file_name(str(spec))
    assert certificate.source == source_digest(spec.name)
    assert [law.law for law in certificate.laws] == list(LAWS)
    assert certificate.form == "full"
    assert not certificate.failed

"""Sessions: every runtime takes what the module takes, returns what it returns, and has as many threads as torch."""

import pytest
import torch

from attentions import AttentionSpec
from harness.runtimes.exports import Exportable, exported
from harness.runtimes.formats import RUNTIMES
from harness.runtimes.sessions import Deployed, open_session
from tests.harness.runtimes.common import SITE, attention, scale


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("text", ["softmax", "dwc", "inline"])
def test_the_module_as_a_runtime_runs_it(runtime: str, text: str) -> None:
    """dwc reads one of its three inputs, inline has a fourth."""
    subject = attention(text)
    kwargs: dict[str, torch.Tensor | None] = {"x": torch.randn(2, 20, 16)} if text == "inline" else {}
    subject = Exportable(subject.module, subject.args, subject.spec, kwargs)
    ours = Deployed(subject, runtime)
    with torch.no_grad():
        wanted = subject.module(*subject.args, **kwargs)
    first = ours(*subject.args, **kwargs)
    assert torch.allclose(first, wanted, atol=1e-5)
    # What was returned stays as it is.
    kept = first.clone()
    ours(*(None if x is None else 2 * x for x in subject.args), **kwargs)
    assert torch.equal(first, kept)
    assert {name for name, _ in ours.named_parameters()} == {
        f"own.{name}" for name, _ in subject.module.named_parameters()
    }


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_is_known_of_a_session(runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    session = open_session(exported(scale(2.0), RUNTIMES[runtime]))
    assert session.about["threads"] == 2
    assert session.about["precision"] == "fp32"
    assert str(session).startswith(f"{runtime} {session.about['version']} (")
    assert str(session).endswith(", 2 threads, fp32)")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_damaged_graph_is_one_line(runtime: str) -> None:
    export = exported(scale(2.0), RUNTIMES[runtime])
    export.file.write_bytes(export.file.read_bytes()[:50])
    with pytest.raises(ValueError, match=f"{runtime} does not take graph") as said:
        open_session(export)
    assert "\n" not in str(said.value)


def test_an_input_may_be_missing() -> None:
    spec = AttentionSpec.of("linear")
    q, k, v = attention().args
    subject = Exportable(spec.build(SITE).eval(), (q, k, v), spec, {"bias": None})
    assert Deployed(subject, "onnxruntime")(q, k, v, bias=None).shape == (2, 20, 16)

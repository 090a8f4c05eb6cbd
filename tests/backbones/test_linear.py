"""Linear layers by oneDNN give what torch's give: outputs, gradients, and gradients of these; hooks see all of it."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from attentions import using_path
from backbones import _linear, _parts
from backbones._layers import Mlp
from backbones._linear import Linear, linear

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of what oneDNN was given, where nothing is too small for it."""
    monkeypatch.setattr(_linear, "LARGE", 0)
    found: list[tuple[int, ...]] = []
    product = _linear._product

    def noted(x: Tensor, *given: Any) -> Tensor:
        found.append(tuple(x.shape))
        return product(x, *given)

    monkeypatch.setattr(_linear, "_product", noted)
    return found


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("shape", [(40, 24), (3, 40, 24), (2, 5, 7, 24)])
def test_outputs_and_gradients_are_those_of_float64(
    shape: tuple[int, ...], gelu: bool, bias: bool, calls: list[tuple[int, ...]]
) -> None:
    torch.manual_seed(0)
    layer = Linear(24, 36, bias=bias)
    x = torch.randn(shape, requires_grad=True)
    gradient = torch.randn(*shape[:-1], 36)
    wanted = (x, *layer.parameters())
    double = [each.detach().double().requires_grad_() for each in wanted]
    exact = F.linear(*double)
    exact = F.gelu(exact) if gelu else exact
    references = [exact, *torch.autograd.grad(exact, double, gradient.double())]

    out = linear(x, layer.weight, layer.bias, gelu)
    found = [out, *torch.autograd.grad(out, wanted, gradient)]
    with torch.no_grad():
        found.append(linear(x, layer.weight, layer.bias, gelu))
    assert calls == [shape, (*shape[:-1], 36), shape], "forward, the gradient of x, and forward without gradients"
    for each, reference in zip(found, [*references, exact], strict=True):
        assert (each - reference).abs().max() <= 1e-6 * reference.detach().abs().max()


def test_gradients_can_be_differentiated_again(calls: list[tuple[int, ...]]) -> None:
    torch.manual_seed(0)
    given = [torch.randn(shape, requires_grad=True) for shape in ((6, 4), (5, 4), (5,))]

    def second(function: Any) -> list[Tensor]:
        first = torch.autograd.grad(function(*given).square().sum(), given, create_graph=True)
        return list(torch.autograd.grad(torch.stack([each.square().sum() for each in first]).sum(), given))

    found = second(linear)
    assert calls
    for each, reference in zip(found, second(F.linear), strict=True):
        assert (each - reference).abs().max() <= 1e-5 * reference.abs().max()


def test_what_is_frozen_gets_no_gradient(calls: list[tuple[int, ...]]) -> None:
    layer = Linear(4, 5)
    layer.weight.requires_grad_(False)
    layer(torch.randn(6, 4)).sum().backward()
    assert len(calls) == 1, "the input wants no gradient"
    assert layer.weight.grad is None
    assert layer.bias.grad is not None


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_are_torchs(dtype: torch.dtype, calls: list[tuple[int, ...]]) -> None:
    layer, x = Linear(4, 5).to(dtype), torch.randn(6, 4, dtype=dtype)
    assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))
    assert not calls


def test_who_looks_into_the_operators_sees_torchs(calls: list[tuple[int, ...]]) -> None:
    layer, x = Linear(4, 5), torch.randn(6, 4)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        layer(x)
    assert counter.get_total_flops() == 2 * 6 * 4 * 5
    torch.jit.trace(layer, x, check_trace=False)
    torch.fx.symbolic_trace(layer)
    torch.export.export(layer, (x,))
    torch.func.vmap(layer)(x)
    with torch.autocast("cpu", torch.bfloat16):
        layer(x)
    with using_path("plain"):
        layer(x)
    with torch.backends.mkldnn.flags(enabled=False):
        layer(x)
    assert not calls


def test_small_layers_are_torchs(calls: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = Linear(4, 5), torch.randn(6, 4)
    for large, taken in ((6 * 4 * 5, 1), (6 * 4 * 5 + 1, 0)):
        monkeypatch.setattr(_linear, "LARGE", large)
        calls.clear()
        layer(x)
        assert len(calls) == taken


@pytest.mark.parametrize("part", ["fc1", "act", "fc2"])
def test_a_hook_in_an_mlp_sees_all_tokens_once(
    part: str, calls: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_parts, "LARGE", 100)
    monkeypatch.setattr(_parts, "PART", 1000)
    mlp, x, seen = Mlp(6, 4), torch.randn(5, 12, 6), []
    for recorded in (False, True):
        with torch.set_grad_enabled(recorded):
            expected = mlp(x)
            handle = mlp.get_submodule(part).register_forward_hook(lambda *given: seen.append(given[2].shape[:2]))
            assert torch.allclose(mlp(x), expected, atol=1e-6)
            handle.remove()
    assert seen == [(5, 12), (5, 12)]


def test_another_activation_or_layer_is_the_one_that_runs(calls: list[tuple[int, ...]]) -> None:
    mlp, x = Mlp(6, 4), torch.randn(5, 12, 6)
    mlp.act = nn.ReLU()  # type: ignore[assignment]
    assert torch.allclose(
        mlp(x), F.linear(F.relu(F.linear(x, *mlp.fc1.parameters())), *mlp.fc2.parameters()), atol=1e-6
    )
    mlp = Mlp(6, 4)
    mlp.fc1 = nn.Sequential(nn.Linear(6, 24), nn.Tanh())  # type: ignore[assignment]
    expected = F.linear(F.gelu(mlp.fc1(x)), mlp.fc2.weight, mlp.fc2.bias)
    assert torch.allclose(mlp(x), expected, atol=1e-6)

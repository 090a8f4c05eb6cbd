"""An MLP in parts gives what it gives at once: outputs, gradients, and gradients of these."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from attentions import Grid, using_path
from backbones import _parts, build, preset
from backbones._layers import Mlp
from backbones.pvt_v2 import ConvMlp

MLPS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: Mlp(6, 4),
    "convolution": lambda: ConvMlp(6, 24, Grid(3, 4), relu=False),
    "relu": lambda: ConvMlp(6, 24, Grid(3, 4), relu=True),
}


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows were expanded at a time, where a hundred bytes are large."""
    monkeypatch.setattr(_parts, "LARGE", 100)
    monkeypatch.setattr(_parts, "PART", 1000)
    found: list[int] = []

    def noting(expand: Callable[[nn.Module, Tensor], Tensor]) -> Callable[[nn.Module, Tensor], Tensor]:
        def noted(self: nn.Module, x: Tensor) -> Tensor:
            found.append(x.shape[0])
            return expand(self, x)

        return noted

    for kind in (Mlp, ConvMlp):
        monkeypatch.setattr(kind, "expand", noting(kind.expand))  # type: ignore[arg-type]
    return found


def results(module: nn.Module, x: Tensor) -> list[Tensor]:
    out = module(x)
    gradient = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
    wanted = (x, *module.parameters())
    return [out, *(each for each in torch.autograd.grad(out, wanted, gradient, allow_unused=True) if each is not None)]


@pytest.mark.parametrize("name", MLPS)
@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_parts_give_what_all_rows_give_at_once(name: str, dtype: torch.dtype, allowed: float, parts: list[int]) -> None:
    module = MLPS[name]().to(dtype)
    x = torch.randn(5, 12, 6, dtype=dtype, requires_grad=True)
    with using_path("plain"):
        expected = results(module, x)
    assert parts == [5]
    parts.clear()
    with torch.no_grad():
        out = module(x)
    assert len(parts) > 4 if name == "mlp" else parts == [2, 2, 1]
    parts.clear()
    found = results(module, x)
    assert len(parts) == 1 if name != "mlp" else len(parts) > 8
    for each, reference in zip([out, *found], [expected[0], *expected], strict=True):
        assert (each - reference).abs().max() <= allowed * reference.abs().max()


def test_gradients_and_their_gradients_are_right(parts: list[int]) -> None:
    module = Mlp(3, 2).double()
    x = torch.randn(2, 24, 3, dtype=torch.float64, requires_grad=True)
    given = (x, *module.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: module(x), given)
    assert torch.autograd.gradgradcheck(lambda x, *_: module(x), given)
    assert set(parts) == {20, 8, 48}, "in parts, and at once where gradients are to be differentiated again"


def test_a_frozen_parameter_gets_no_gradient(parts: list[int]) -> None:
    module = Mlp(6, 4)
    module.fc1.weight.requires_grad_(False)
    module(torch.randn(5, 12, 6)).sum().backward()
    assert len(parts) > 8
    assert [name for name, each in module.named_parameters() if each.grad is None] == ["fc1.weight"]


def test_of_hidden_channels_nothing_is_saved(parts: list[int]) -> None:
    module, x = Mlp(6, 4), torch.randn(5, 12, 6, requires_grad=True)
    saved: list[int] = []

    def pack(each: Tensor) -> Tensor:
        saved.append(each.numel())
        return each

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda each: each):
        module(x)
    assert max(saved) == x.numel()
    saved.clear()
    with using_path("plain"), torch.autograd.graph.saved_tensors_hooks(pack, lambda each: each):
        module(x)
    assert max(saved) == 4 * x.numel()


@pytest.mark.parametrize("name", ["deit_micro", "pvt_micro", "pvt_v2_micro", "swin_micro", "cswin_micro"])
def test_models_give_the_same_logits_and_gradients(name: str, parts: list[int]) -> None:
    torch.manual_seed(0)
    spec = preset(name)
    model = build(spec).double().eval()
    x = torch.randn(2, 3, *spec.image_size, dtype=torch.float64, requires_grad=True)
    with using_path("plain"):
        expected = results(model, x)
    blocks = len(parts)
    parts.clear()
    found = results(model, x)
    assert len(parts) == blocks if name == "pvt_v2_micro" else len(parts) > 2 * blocks
    for each, reference in zip(found, expected, strict=True):
        assert (each - reference).abs().max() <= 1e-12 * max(1.0, float(reference.detach().abs().max()))


def test_who_looks_into_the_operators_sees_all_rows(parts: list[int]) -> None:
    module, x = Mlp(6, 4).eval(), torch.randn(5, 12, 6)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(x)
    assert counter.get_total_flops() == 2 * 2 * 60 * 6 * 24
    torch.jit.trace(module, x, check_trace=False)
    torch.fx.symbolic_trace(module)
    torch.export.export(module, (x,))
    with torch.autocast("cpu", torch.bfloat16):
        module(x)
    assert {each for each in parts if isinstance(each, int)} == {5}


def test_small_hidden_channels_are_computed_at_once(parts: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    module, x = Mlp(6, 4), torch.randn(5, 12, 6)
    size = 60 * 24 * 4
    for large, recorded, at_once in ((size, False, True), (size - 1, False, False), (size // 2, True, True)):
        monkeypatch.setattr(_parts, "LARGE", large)
        parts.clear()
        with torch.set_grad_enabled(recorded):
            module(x)
        assert (parts == [5]) == at_once

"""Implied maps of the attentions of whole models, from the arguments that their blocks get."""

import pytest
import torch
from torch import Tensor, nn

from attentions import Attention, implied_map
from backbones import build, preset

MODELS = ("deit_micro", "pvt_micro", "pvt_v2_micro", "swin_micro", "cswin_micro")
NAMES = ("softmax", "linear", "focused", "agent", "inline", "polaformer")


def captured(model: nn.Module, images: Tensor) -> list[tuple[Attention, tuple, dict, Tensor]]:
    """Return each attention of a model with its arguments and its output."""
    found: list[tuple[Attention, tuple, dict, Tensor]] = []

    def keep(core, args, named, out):
        found.append((core, args, named, out))

    hooks = [
        core.register_forward_hook(keep, with_kwargs=True) for core in model.modules() if isinstance(core, Attention)
    ]
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()
    return found


def randomised(name: str, **overrides) -> nn.Module:
    """Build a model in float64, with random parameters where they start with zeros or ones."""
    torch.manual_seed(0)
    model = build(preset(name, **overrides)).double().eval()
    for parameter in model.parameters():
        with torch.no_grad():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def by_heads(x: Tensor, core: Attention) -> Tensor:
    return x.unflatten(-1, (core.site.heads, -1)).transpose(1, 2)


@pytest.mark.parametrize("attention", NAMES)
@pytest.mark.parametrize("model", MODELS)
def test_the_map_times_the_values_is_the_output(model, attention):
    swin = {"window": 4, "softmax_window": 4, "honour_shift_mask": attention not in ("softmax", "agent")}
    overrides = swin if model == "swin_micro" else {}
    found = captured(randomised(model, attention=attention, **overrides), torch.rand(2, 3, 32, 32).double())
    assert len(found) >= 4
    if model == "swin_micro" and attention != "agent":
        assert any(named["bias" if attention == "softmax" else "regions"] is not None for _, _, named, _ in found)
    for core, (q, k, v), named, out in found:
        implied = implied_map(core, q, k, v, **named)
        assert implied.kind == ("per channel" if attention == "polaformer" else "per head")
        assert implied.gap < 1e-10
        # The values of the model, and for what is not the same in all channels of a head, their means in each of them.
        values = by_heads(v, core)
        if implied.kind == "per head" and implied.convolution is None:
            wanted = by_heads(out - implied.offset, core)
            assert (implied.weights @ values - wanted).norm() < 1e-10 * wanted.norm()
        values = values.mean(dim=-1, keepdim=True)
        alike = values.expand(-1, -1, -1, core.site.head_dim).transpose(1, 2).flatten(2)
        with torch.no_grad():
            wanted = by_heads(core(q, k, alike, **named) - implied.offset, core).mean(dim=-1, keepdim=True)
        assert (implied.together @ values - wanted).norm() < 1e-10 * wanted.norm()


@pytest.mark.parametrize(
    ("attention", "alone", "together"),
    [("softmax", 196, 196), ("focused(kernel_size=None)", 64, 64), ("focused", 64, 196)],
)
def test_ranks_of_a_deit(attention, alone, together):
    """At most as many as a head has channels if it is linear in the tokens, unless a convolution is added."""
    torch.manual_seed(0)
    model = build(preset("deit_t", attention=attention, num_classes=10)).eval()
    core, (q, k, v), named, _ = captured(model, torch.rand(1, 3, 224, 224))[0]
    implied = implied_map(core, q, k, v, **named)
    for weights, rank in ((implied.weights, alone), (implied.together, together)):
        found = torch.linalg.matrix_rank(weights[0, :, 1:, 1:])
        assert found.tolist() == [rank] * 3 if rank == 196 else int(found.max()) <= rank

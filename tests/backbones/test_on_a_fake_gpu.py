"""Each attention in each family, forward and backward on a GPU that is not there: devices, dtypes, nothing that waits.

By default each attention and each set of options meets one family in one precision, in turn, so that each family meets
each precision; all combinations at night.
"""

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import attentions
from attentions import Attention, AttentionSpec, Site
from backbones import BackboneSpec, build, preset
from harness.cells.runtime import AUTOCAST
from tests.fake_gpu import DEVICE, FakeGpu, fake_gpu
from tests.harness.certificate.test_zoo import OPTIONS
from tests.nightly import EVERY_COMBINATION

HOSTS = ("deit_micro", "pvt_micro", "pvt_v2_micro", "swin_micro", "cswin_micro")
TEXTS = (*attentions.names(), *OPTIONS)


def one_stage(host: str, attention: AttentionSpec) -> BackboneSpec:
    """The micro backbone with one stage of one block, or two in Swin, of which the second is shifted."""
    spec: Any = preset(host, attention=attention)
    if host == "deit_micro":
        return replace(spec, depth=1)
    pairs = {f.name: getattr(spec, f.name) for f in fields(spec) if f.name != "image_size"}
    per_stage = {name: pair[:1] for name, pair in pairs.items() if isinstance(pair, tuple) and len(pair) == 2}
    blocks = (2,) if host == "swin_micro" else (1,)
    return replace(spec, **per_stage | {"stages": "L", "block_counts": blocks})


def step(model: nn.Module, images: Tensor, dtype: torch.dtype | None) -> None:
    """Make a training step up to the gradients. Each attention must return the dtype that it was given."""

    def look(core: nn.Module, inputs: tuple[Tensor, ...], mixed: Tensor) -> None:
        values = inputs[2].dtype
        assert values == (dtype or torch.float32)
        assert mixed.dtype == values, f"{type(core).__name__} returns {mixed.dtype} for values in {values}"

    cores = [module for module in model.modules() if isinstance(module, Attention)]
    hooks = [core.register_forward_hook(look) for core in cores]
    assert hooks
    with torch.autocast(images.device.type, dtype, enabled=dtype is not None):
        logits = model.train()(images)
    assert logits.device == images.device
    assert logits.dtype in (dtype, torch.float32)
    logits.float().sum().backward()
    unused = getattr(model, "never_used", ())
    for name, parameter in model.named_parameters():
        if name not in unused:
            assert parameter.grad is not None, f"{name} has no gradient"
            assert (parameter.grad.device, parameter.grad.dtype) == (images.device, torch.float32), name


def rehearse(gpu: FakeGpu, model: nn.Module, image: tuple[int, ...], dtype: torch.dtype | None) -> None:
    """Make that step on the GPU. Nothing in it may wait, or be in float64."""
    model, images = model.to(DEVICE), torch.zeros(2, *image, device=DEVICE)
    gpu.waits.clear()
    step(model, images, dtype)
    assert not gpu.waits, gpu.waits
    assert not gpu.doubles, gpu.doubles


def cases() -> list[Any]:
    found = []
    for number, text in enumerate(TEXTS):
        for place, host in enumerate(HOSTS):
            for turn, precision in enumerate(AUTOCAST):
                sampled = number % len(HOSTS) == place and number % len(AUTOCAST) == turn
                if EVERY_COMBINATION or sampled:
                    found.append(pytest.param(text, host, precision, id=f"{text}-{host}-{precision}"))
    return found


def test_each_family_meets_each_precision() -> None:
    assert {case.values[1:] for case in cases()} == {(host, precision) for host in HOSTS for precision in AUTOCAST}
    assert {case.values[0] for case in cases()} == set(TEXTS)


@pytest.mark.parametrize(("text", "host", "precision"), cases())
def test_a_step_on_a_gpu(text: str, host: str, precision: str) -> None:
    spec = one_stage(host, AttentionSpec.parse(text))
    with fake_gpu() as gpu:
        rehearse(gpu, build(spec, drop_path=0.1), (spec.in_channels, *spec.image_size), AUTOCAST[precision])


# What a CPU does not show


class Planted(Attention):
    """Sound; each of its subclasses has a mistake that nobody meets on a CPU."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.scale = nn.Parameter(torch.ones(site.dim))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, **given: Tensor | None) -> Tensor:
        return self.mix(q * self.scale.to(q.dtype), k, v)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (q @ k.transpose(1, 2)).softmax(-1).to(v.dtype) @ v


class MaskOfTheCpu(Planted):
    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return super().mix(q, k, v) * torch.ones(v.shape[1], 1, dtype=v.dtype)


class TableWithoutABuffer(Planted):
    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.table = torch.ones(site.queries.tokens, 1)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return super().mix(q, k, v * self.table.to(v.dtype))


class GradientOfTheCpu(Planted):
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return torch.full(gradient.shape, 2.0)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return super().mix(q, k, self.Twice.apply(v))


class WideOnCudaAlone(Planted):
    """softmax runs in float32 in CUDA's autocast, and in the CPU's it does not."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return q.softmax(-1) * v


class UnlikeOnCudaAlone(Planted):
    """So a sum in place of two dtypes is an error there."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        first = torch.zeros(1, dtype=torch.long, device=v.device)
        return v.index_add(1, first, q[:, :1].softmax(-1))


class NormOfTwoDtypes(Planted):
    """A CPU normalises float16 by a weight in float32."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with torch.autocast(v.device.type, enabled=False):
            return F.layer_norm(v, v.shape[2:], self.scale)


class ReadsANumber(Planted):
    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return super().mix(q, k, v) / max(1, len(v), k.detach().amax().item())


class UploadsAList(Planted):
    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return super().mix(q, k, v) * torch.tensor([1.0] * v.shape[2], device=v.device, dtype=v.dtype)


class IndexesByAList(Planted):
    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return super().mix(q, k, v)[:, list(range(v.shape[1]))]


class Doubles(Planted):
    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        places = torch.arange(v.shape[1], device=v.device, dtype=torch.float64)
        return super().mix(q, k, v) * places.cos()[:, None].to(v.dtype)


class Network(nn.Module):
    """Classifies images (B, 3, 4, 4) by one attention on their pixels."""

    def __init__(self, core: type[Planted]) -> None:
        super().__init__()
        self.qkv, self.head = nn.Linear(3, 24), nn.Linear(8, 5)
        grid = attentions.Grid(4, 4)
        self.core = core(Site(8, 2, grid, grid))

    def forward(self, images: Tensor) -> Tensor:
        q, k, v = self.qkv(images.flatten(2).transpose(1, 2)).chunk(3, dim=-1)
        return self.head(self.core(q, k, v).mean(1))


FOUND = {
    MaskOfTheCpu: "the same device",
    TableWithoutABuffer: "the same device",
    GradientOfTheCpu: "a gradient on cpu",
    WideOnCudaAlone: r"returns torch\.float32 for values in torch\.bfloat16",
    UnlikeOnCudaAlone: "of unlike dtypes",
    NormOfTwoDtypes: "expected scalar type BFloat16",
    ReadsANumber: r"ReadsANumber\.mix \(tests/backbones/test_on_a_fake_gpu\.py:\d+\): reads a number",
    UploadsAList: "from memory not pinned",
    IndexesByAList: "from memory not pinned",
    Doubles: r"Doubles\.mix",
}


@pytest.mark.parametrize("core", FOUND, ids=lambda core: core.__name__)
def test_a_mistake_that_no_cpu_shows_is_found(core: type[Planted]) -> None:
    step(Network(core), torch.randn(2, 3, 4, 4), torch.bfloat16)
    with fake_gpu() as gpu, pytest.raises((AssertionError, RuntimeError), match=FOUND[core]):
        rehearse(gpu, Network(core), (3, 4, 4), torch.bfloat16)


@pytest.mark.parametrize("precision", AUTOCAST)
def test_what_has_no_mistake_passes(precision: str) -> None:
    with fake_gpu() as gpu:
        rehearse(gpu, Network(Planted), (3, 4, 4), AUTOCAST[precision])

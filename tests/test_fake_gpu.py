"""The fake GPU is told apart from a CPU where a real one would be, and computes gradients as torch does."""

import operator
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional as F

from backbones import build, preset
from tests.fake_gpu import DEVICE, backward, fake_gpu

half, single = partial(torch.ones, dtype=torch.float16), partial(torch.ones, dtype=torch.float32)


def on(device: str, *tensors: Tensor) -> Any:
    return [tensor.to(device) for tensor in tensors]


def test_the_graph_is_walked_as_the_engine_does() -> None:
    spec = preset("swin_micro", stages="L", block_counts=(2,), heads=(2,), image_size=16, window=4)
    gradients = []
    for engine in (torch.autograd.backward, backward):
        torch.manual_seed(0)
        model = build(spec)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(torch.randn(2, spec.in_channels, *spec.image_size)).float().square().sum()
        engine(loss)
        gradients.append([parameter.grad for parameter in model.parameters()])
    for expected, found in zip(*gradients, strict=True):
        assert expected is not None
        assert found is not None
        assert torch.equal(expected, found)


def test_the_cpu_is_real_and_torch_is_left_as_it_was() -> None:
    before = torch.cuda.is_available(), torch.autograd.backward, torch.Generator
    with fake_gpu():
        assert torch.arange(4).sum().item() == 6
        weight = torch.ones(3, requires_grad=True)
        (weight * 2).sum().backward()
        assert weight.grad is not None
        assert weight.grad.tolist() == [2, 2, 2]
        there = weight.detach().to("cuda")
        assert (there.device, type(there)) == (DEVICE, FakeTensor)
        assert type(there.cpu()) is Tensor
    assert (torch.cuda.is_available(), torch.autograd.backward, torch.Generator) == before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_lists_of_autocast_are_those_of_cuda(dtype: torch.dtype) -> None:
    with fake_gpu(), torch.autocast("cuda", dtype), torch.autocast("cpu", torch.bfloat16):
        for device, softmax in (("cpu", torch.bfloat16), ("cuda", torch.float32)):
            product = torch.ones(2, 2, device=device) @ torch.ones(2, 2, device=device)
            assert product.dtype == (torch.bfloat16 if device == "cpu" else dtype)
            assert product.softmax(-1).dtype == softmax
        assert torch.amp.GradScaler("cuda").is_enabled()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_what_makes_the_cpu_wait(mode: Callable[[], Any]) -> None:
    here = torch.ones(2, 3)
    with fake_gpu() as gpu, mode():
        there = here.to("cuda")
        assert gpu.waits.total() == 1, "it is not pinned"
        there = here.pin_memory().to("cuda")
        assert gpu.waits.total() == 2, "it is to block"
        there = here.pin_memory().to("cuda", non_blocking=True)
        torch.empty_like(there).copy_(here.pin_memory(), non_blocking=True)
        there = (there * 0.5 + there.sum()).softmax(-1)[:, 1:]
        assert (gpu.waits.total(), gpu.uploads.total()) == (2, 2)
        for wait in (
            there.sum().item, there.cpu, there.tolist, there.isfinite().all().__bool__, torch.cuda.synchronize,
            lambda: there[:, [0, 1]], lambda: torch.tensor([1.0, 2.0], device="cuda"), lambda: here[:, 1:].copy_(there),
        ):  # fmt: skip
            before = gpu.waits.total()
            wait()
            assert gpu.waits.total() > before, wait
        assert all(line.startswith("test_what_makes_the_cpu_wait") for line in gpu.waits)


@pytest.mark.parametrize(
    "call",
    [
        lambda d: F.linear(*on(d, half(2, 3), single(4, 3))),
        lambda d: F.conv2d(*on(d, half(1, 2, 5, 5), single(3, 2, 3, 3))),
        lambda d: operator.matmul(*on(d, half(2, 3, 4), single(2, 4, 3))),
        lambda d: half(2, 3).to(d).index_add(0, *on(d, torch.tensor([0]), single(1, 3))),
        lambda d: half(2, 3).to(d).index_copy(0, *on(d, torch.tensor([0]), single(1, 3))),
        lambda d: half(2, 3).to(d).__setitem__(torch.tensor([0], device=d), single(1, 3).to(d)),
        lambda d: half(2, 3).to(d).lerp(single(2, 3).to(d), 0.5),
        lambda d: F.scaled_dot_product_attention(*on(d, half(2, 3, 4), half(2, 3, 4), single(2, 3, 4))),
    ],
    ids=["linear", "conv", "matmul", "index_add", "index_copy", "index_put", "lerp", "sdpa"],
)
def test_unlike_dtypes_are_refused_as_on_a_cpu(call: Callable[[str], Any]) -> None:
    for device in ("cpu", "cuda"):
        with fake_gpu(), pytest.raises(RuntimeError):
            call(device)

"""The Triton kernels against torch's operators, in Triton's interpreter on a CPU, and on a GPU where there is one.

The interpreter is chosen before Triton is imported, so these checks run in a process of their own.
"""

import importlib.util
import multiprocessing
import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from attentions import Attention, AttentionSpec, Grid, Site, _triton, used_paths, using_path
from attentions._functions import FOCUSED, Product
from attentions._source import class_digest
from harness.certificate.precision import NEAR
from harness.certificate.subject import gradients
from tests.nightly import EVERY_COMBINATION
from tests.on_a_gpu import DEVICES

SITES = {
    "more tokens than a program": Site(32, 2, Grid(9, 8), Grid(9, 8)),
    "odd channels, class token": Site(21, 3, Grid(5, 3, prefix=1), Grid(5, 3, prefix=1)),
    "reduced keys": Site(32, 1, Grid(6, 4), Grid(3, 2)),
}

WIDE = Site(48, 1, Grid(5, 4), Grid(5, 4))
"""A head that is taken in float32 and half precision only."""

OPTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("focused", {"kernel_size": 3}),
    ("focused", {"focusing_factor": 4, "kernel_size": None, "positional_encoding": False}),
    ("focused", {"focusing_factor": 1, "kernel_size": None}),
    ("linear", {"kernel_size": 3}),
    ("linear", {"feature_map": "elu"}),
    ("mlla", {"rotary": False, "kernel_size": 3}),
    ("inline", {"kernel_size": 3}),
)


@pytest.fixture(scope="module")
def interpreter() -> Iterator[Callable[..., Future]]:
    """Calls a function of this file where Triton interprets its kernels."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        with patch.dict(os.environ, TRITON_INTERPRET="1"):
            pool.submit(torch.set_num_threads, 1).result()
        yield pool.submit


@pytest.fixture
def run(device: str, request: pytest.FixtureRequest) -> Callable[..., Any]:
    if device == "cuda":
        return lambda check, *args: check(device, *args)
    submit = request.getfixturevalue("interpreter")
    return lambda check, *args: submit(check, device, *args).result()


def made(name: str, options: dict[str, Any], site: Site, device: str) -> tuple[Attention, list[Tensor]]:
    """Return an attention in float64 with random parameters, and q, k and v as slices of one tensor."""
    torch.manual_seed(0)
    module = AttentionSpec(name, options).build(site).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.5)
    n, m = site.queries.tokens, site.keys.tokens
    q, k, v = torch.randn(2, max(n, m), 3 * site.dim, dtype=torch.float64).chunk(3, dim=-1)
    return module.to(device), [x.to(device).requires_grad_() for x in (q[:, :n], k[:, :m], v[:, :m])]


def results(module: Attention, tokens: list[Tensor], path: str) -> list[Tensor]:
    """Return the output, and the gradients of tokens and parameters, by a path that is taken."""
    with using_path(path), used_paths() as used:
        out = module(*tokens, x=tokens[0])
    assert used == {path}, used
    return [out.detach(), *gradients(out, [*tokens, *module.parameters()])]


def errors(ours: list[Tensor], exact: list[Tensor]) -> list[float]:
    """Return the relative l2 differences."""
    return [float((a.double() - b).norm() / b.norm()) for a, b in zip(ours, exact, strict=True)]


def same_in_float64(device: str, name: str, options: dict[str, Any], site: Site) -> None:
    module, tokens = made(name, options, site, device)
    exact = results(module, tokens, "plain")
    assert max(errors(results(module, tokens, "triton"), exact)) < 1e-12
    module, tokens = module.float(), [x.detach().float().requires_grad_() for x in tokens]
    ours, plain = (errors(results(module, tokens, path), exact) for path in ("triton", "plain"))
    assert all(a < max(1e-6, 2 * b) for a, b in zip(ours, plain, strict=True)), (ours, plain)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=str)
@pytest.mark.parametrize("site", SITES.values(), ids=SITES)
def test_it_gives_the_same(run: Callable[..., Any], site: Site, name: str, options: dict[str, Any]) -> None:
    run(same_in_float64, name, options, site)


def near_in_half_precision(device: str, name: str, dtype: torch.dtype) -> None:
    module, tokens = made(name, {"kernel_size": 3}, WIDE, device)
    # Sums that exceed half precision, were they in it.
    tokens = [x.detach().mul(30).to(dtype).requires_grad_() for x in tokens]
    module = module.to(dtype)
    ours = results(module, tokens, "triton")
    exact = results(module.double(), [x.detach().double().requires_grad_() for x in tokens], "plain")
    assert ours[0].dtype == dtype
    assert max(errors(ours, exact)) < NEAR * torch.finfo(dtype).eps


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["focused", "linear"])
def test_half_precision_is_summed_in_float32(run: Callable[..., Any], name: str, dtype: torch.dtype) -> None:
    run(near_in_half_precision, name, dtype)


def keeps_half_tensors(device: str) -> None:
    module, tokens = made("focused", {"kernel_size": None}, SITES["more tokens than a program"], device)
    tokens = [x.detach().bfloat16().requires_grad_() for x in tokens]
    kept: list[Tensor] = []

    def pack(x: Tensor) -> Tensor:
        kept.append(x)
        return x

    with using_path("triton"), torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        module.bfloat16()(*tokens)
    pointers = {x.data_ptr() for x in kept}
    assert all(x.data_ptr() in pointers for x in tokens)
    # Beside them: the positional encoding, and sums over the keys.
    largest = max(x.numel() for x in kept if x.data_ptr() not in {y.data_ptr() for y in tokens})
    assert largest <= 72 * 32


@pytest.mark.parametrize("device", DEVICES)
def test_half_precision_is_kept_as_it_is(run: Callable[..., Any]) -> None:
    run(keeps_half_tensors)


def powers_stay_in_range(device: str, scale: float) -> None:
    options = {"focusing_factor": 32, "kernel_size": None}
    module, tokens = made("focused", options, SITES["more tokens than a program"], device)
    tokens = [(scale * x).detach().requires_grad_() for x in tokens]
    exact = results(module, tokens, "plain")
    module, tokens = module.float(), [x.detach().float().requires_grad_() for x in tokens]
    ours, plain = (errors(results(module, tokens, path), exact) for path in ("triton", "plain"))
    assert all(a < max(1e-6, 2 * b) for a, b in zip(ours, plain, strict=True)), (ours, plain)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_powers_stay_in_range(run: Callable[..., Any], scale: float) -> None:
    run(powers_stay_in_range, scale)


def not_finite(device: str, of: int, bad: float) -> None:
    module, tokens = made("focused", {"kernel_size": None}, SITES["odd channels, class token"], device)
    tokens = [x.detach().clone() for x in tokens]
    tokens[of][0, 5, 7] = bad
    with using_path("triton"):
        out = module(*tokens)
    assert not out[0].isfinite().all()
    assert out[1].isfinite().all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("of", "bad"), [(0, float("nan")), (1, float("nan")), (2, float("nan")), (2, float("inf"))])
def test_what_is_not_finite_stays_so(run: Callable[..., Any], of: int, bad: float) -> None:
    run(not_finite, of, bad)


def differentiated_again(device: str) -> None:
    module, tokens = made("focused", {"kernel_size": 3}, Site(8, 2, Grid(3, 4), Grid(3, 4)), device)

    def penalty(path: str) -> tuple[Tensor, ...]:
        with using_path(path):
            first = torch.autograd.grad(module(*tokens).square().sum(), tokens, create_graph=True)
        return torch.autograd.grad(torch.stack([x.square().sum() for x in first]).sum(), tokens)

    assert max(errors(list(penalty("triton")), list(penalty("plain")))) < 1e-10


@pytest.mark.parametrize("device", DEVICES)
def test_gradients_can_be_differentiated_again(run: Callable[..., Any]) -> None:
    run(differentiated_again)


def same_bits(device: str) -> None:
    given = made("focused", {"kernel_size": 3}, SITES["more tokens than a program"], device)
    assert all(map(torch.equal, results(*given, "triton"), results(*given, "triton")))


@pytest.mark.parametrize("device", DEVICES)
def test_it_gives_the_same_bits_again(run: Callable[..., Any]) -> None:
    run(same_bits)


def steps_aside(device: str) -> None:
    regions = Site(16, 2, Grid(3, 2), Grid(3, 2), regions=2)
    for site, labels in ((WIDE, None), (regions, torch.zeros(2, 6, dtype=torch.int64, device=device))):
        module, tokens = made("focused", {"kernel_size": None}, site, device)
        with using_path("triton"), used_paths() as used:
            module(*tokens, regions=labels)
        assert used == {"plain"}


@pytest.mark.parametrize("device", DEVICES)
def test_wide_heads_and_regions_are_left_to_torch(run: Callable[..., Any]) -> None:
    run(steps_aside)


INTEGERS = ("count", "height", "width", "C")
IN_FLOAT32 = ("inverse", "encoding", "parts", "sums", "d_sums", "d_inverse")
SHARED = 99 * 1024
"""Bytes of shared memory that a program may have on the smaller GPUs of compute capability 8."""


COMPILED = [(torch.bfloat16, 64), (torch.bfloat16, 32), (torch.float32, 64), (torch.float32, 32), (torch.float64, 32)]
"""Precisions, and channels of a head; wider ones are left to torch's operators."""


@pytest.mark.parametrize(("dtype", "width"), COMPILED if EVERY_COMBINATION else COMPILED[:1], ids=str)
def test_the_kernels_are_compiled_for_a_gpu_without_one(dtype: torch.dtype, width: int) -> None:
    """The compiler refuses what the interpreter takes: a variable that changes its type in a loop, say."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from attentions import _triton_kernels

    tokens, constants = _triton._plan(Product(2, 1, FOCUSED, 3, True), *torch.empty(3, 1, 1, 2 * width, dtype=dtype))
    names = {torch.bfloat16: "*bf16", torch.float32: "*fp32", torch.float64: "*fp64"}
    wide = torch.promote_types(dtype, torch.float32)
    given = {
        **constants,
        "BT": tokens,
        "NORMALISED": True,
        "K": 3,
        "BC": 32,
        "WIDE": getattr(triton.language, str(wide)[6:]),
    }
    for name in ("sums", "outputs", "queries_backward", "keys_backward", "convolve", "convolve_backward"):
        kernel, types = getattr(_triton_kernels, name), {}
        for each in kernel.params:
            is_integer = each.name in INTEGERS or each.name.endswith(("_batch", "_token"))
            pointer = names[wide if each.name in IN_FLOAT32 else dtype]
            types[each.name] = "constexpr" if each.is_constexpr else "i32" if is_integer else pointer
        own = {key: value for key, value in given.items() if key in types}
        source = ASTSource(kernel, types, constexprs=own)
        compiled = triton.compile(source, target=GPUTarget("cuda", 80, 32), options={"num_warps": given["num_warps"]})
        assert compiled.metadata.shared <= SHARED, name


def unforced(device: str) -> set[str]:
    module, tokens = made("linear", {}, SITES["odd channels, class token"], device)
    with used_paths() as used:
        module(*tokens)
    return used


def test_the_interpreter_is_never_taken_unforced(interpreter: Callable[..., Future]) -> None:
    assert "triton" not in interpreter(unforced, "cpu").result()


@pytest.mark.gpu
def test_a_gpu_takes_it_where_it_is_forced() -> None:
    assert unforced("cuda") == {"plain"}
    with using_path("triton"):
        assert unforced("cuda") == {"triton"}


def without_the_interpreter(**environment: str) -> set[str]:
    with patch.dict(os.environ, environment), using_path("triton"):
        return unforced("cpu")


def test_without_an_interpreter_or_triton_torch_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(_triton, "_works", _triton._works.__wrapped__)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert without_the_interpreter() == {"plain"}
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        assert without_the_interpreter(TRITON_INTERPRET="1") == {"plain"}


def test_a_triton_that_fails_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: object, **constants: object) -> None:
        raise RuntimeError("Failed to find C compiler.\nSet CC")

    monkeypatch.setattr(_triton, "_works", _triton._works.__wrapped__)
    monkeypatch.setattr(_triton, "_run", fail)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.warns(UserWarning, match=r"attentions run as torch operators: Failed to find C compiler\.$"):
        assert without_the_interpreter(TRITON_INTERPRET="1") == {"plain"}


def test_the_kernels_are_part_of_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    focused = type(AttentionSpec("focused").build(SITES["odd channels, class token"]))
    before = class_digest.__wrapped__(focused)
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read(path) + b"#" * (path.name == "_triton_kernels.py"))
    assert class_digest.__wrapped__(focused) != before

"""The C++ kernels against torch's operators: numbers, gradients, memory, and when they step aside."""

import ctypes
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from attentions import PATHS, Attention, AttentionSpec, Grid, Site, _native, used_paths, using_path
from attentions._source import class_digest
from harness.measures.memory import saved_for_backward
from harness.process.determinism import one_thread

SITES = {
    "28x28, 96 channels": Site(96, 3, Grid(28, 28), Grid(28, 28)),
    "more keys than are summed at once": Site(32, 1, Grid(25, 25), Grid(25, 25)),
    "a wide head": Site(128, 2, Grid(14, 14), Grid(14, 14)),
    "odd channels, class token": Site(21, 3, Grid(7, 5, prefix=1), Grid(7, 5, prefix=1)),
    "reduced keys": Site(64, 1, Grid(16, 16), Grid(4, 4)),
    "regions": Site(48, 2, Grid(9, 7), Grid(9, 7), regions=4),
}

OPTIONS = [
    ("focused", {}),
    ("focused", {"focusing_factor": 4, "kernel_size": 9}),
    ("focused", {"focusing_factor": 32, "kernel_size": None, "positional_encoding": False}),
    ("linear", {"kernel_size": 7}),
    ("linear", {"feature_map": "elu", "kernel_size": 3}),
    ("performer", {}),
    ("mlla", {"rotary": False, "kernel_size": 3}),
    ("inline", {"kernel_size": 5}),
]


@pytest.fixture(autouse=True)
def needs_the_kernels() -> None:
    if _native.library() is None:
        pytest.skip("the kernels are not compiled here: there is no C++ compiler")


def made(name: str, options: dict, site: Site, dtype: torch.dtype) -> tuple[Attention, list[Tensor], Tensor | None]:
    """Return an attention with random parameters, q, k and v as slices of one tensor, and labels of regions."""
    torch.manual_seed(0)
    module = AttentionSpec(name, options).build(site).to(dtype)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.5)
    n, m = site.queries.tokens, site.keys.tokens
    q, k, v = torch.randn(3, max(n, m), 3 * site.dim, dtype=dtype).requires_grad_().chunk(3, dim=-1)
    regions = torch.randint(site.regions, (3, n)) if site.regions > 1 else None
    return module, [q[:, :n], k[:, :m], v[:, :m]], regions


def results(module: Attention, tokens: list[Tensor], regions: Tensor | None, path: str) -> list[Tensor]:
    """Return the output, and the gradients of tokens and parameters."""
    with using_path(path), used_paths() as used:
        out = module(*tokens, regions=regions, x=tokens[0])
    assert path in used
    weight = torch.randn(out.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    return [out, *torch.autograd.grad((out * weight).sum(), [*tokens, *module.parameters()])]


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=lambda value: str(value))
@pytest.mark.parametrize("site", SITES.values(), ids=SITES)
def test_all_paths_give_the_same(site: Site, name: str, options: dict) -> None:
    module, tokens, regions = made(name, options, site, torch.float64)
    exact = results(module, tokens, regions, "plain")
    for ours, wanted in zip(results(module, tokens, regions, "native"), exact, strict=True):
        assert (ours - wanted).norm() < 1e-12 * wanted.norm()
    module, tokens = module.float(), [x.float() for x in tokens]
    rounded = (results(module, tokens, regions, path) for path in ("native", "plain"))
    for ours, plain, wanted in zip(*rounded, exact, strict=True):
        error, of_plain = ((x - wanted).norm() / wanted.norm() for x in (ours, plain))
        assert error < max(1e-6, 2 * of_plain)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("power", [1, 3, 32])
def test_powers_stay_in_range(power: int, scale: float) -> None:
    options = {"focusing_factor": power, "kernel_size": None}
    module, tokens, _ = made("focused", options, SITES["28x28, 96 channels"], torch.float32)
    tokens = [(scale * x).detach().requires_grad_() for x in tokens]
    ours, wanted = (results(module, tokens, None, path) for path in ("native", "plain"))
    exact = results(module.double(), [x.double() for x in tokens], None, "plain")
    for mine, plain, right in zip(ours, wanted, exact, strict=True):
        error, theirs = ((x.double() - right).norm() / right.norm() for x in (mine, plain))
        assert error < max(2 * theirs, 1e-6)


def test_threads_do_not_change_a_bit() -> None:
    given = made("focused", {}, SITES["28x28, 96 channels"], torch.float32)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = results(*given, "native")
        torch.set_num_threads(3)
        together = results(*given, "native")
    finally:
        torch.set_num_threads(before)
    # The gradients of parameters are summed over the batch by torch, whose order depends on threads.
    assert all(map(torch.equal, alone[:4], together[:4]))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("which", [0, 1, 2], ids=["q", "k", "v"])
@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=lambda value: str(value))
def test_what_is_not_finite_stays_so(name: str, options: dict, which: int, bad: float) -> None:
    module, tokens, _ = made(name, options, SITES["28x28, 96 channels"], torch.float32)
    tokens = [x.detach().clone() for x in tokens]
    tokens[which][0, 5, 7] = bad
    found = {}
    with torch.no_grad():
        for path in ("plain", "native"):
            with using_path(path):
                found[path] = module(*tokens, x=tokens[0]).isfinite()
    assert torch.equal(found["native"], found["plain"])
    assert found["native"][1:].all()
    if not (which < 2 and bad < 0):  # which a relu takes away
        assert not found["native"][0].all()


def test_gradients_can_be_differentiated_again() -> None:
    site = Site(8, 2, Grid(3, 4), Grid(3, 4))
    module, tokens, _ = made("focused", {"kernel_size": 3}, site, torch.float64)
    tokens = [x.detach().requires_grad_() for x in tokens]

    def penalty(path: str) -> tuple[Tensor, ...]:
        with using_path(path):
            first = torch.autograd.grad(module(*tokens).square().sum(), tokens, create_graph=True)
        return torch.autograd.grad(torch.stack([x.square().sum() for x in first]).sum(), tokens)

    for ours, wanted in zip(penalty("native"), penalty("plain"), strict=True):
        assert (ours - wanted).norm() < 1e-10 * wanted.norm()


def test_little_is_kept_for_backward() -> None:
    site = Site(96, 3, Grid(56, 56), Grid(56, 56))
    module, tokens, _ = made("focused", {}, site, torch.float32)
    besides = [*tokens, *module.parameters()]
    found = {}
    for path in PATHS:
        with using_path(path):
            found[path] = saved_for_backward(partial(module, *tokens), besides)
    assert found["native"] < 0.1 * found["plain"]


def steps_aside() -> Iterator[tuple[str, Callable[[Attention, list[Tensor]], object]]]:
    def under(manager: object) -> Callable[[Attention, list[Tensor]], object]:
        def run(module: Attention, tokens: list[Tensor]) -> object:
            with manager:  # type: ignore[attr-defined]
                return module(*tokens)

        return run

    def bound(module: Attention, tokens: list[Tensor]) -> object:
        return torch.func.vmap(module, randomness="error")(*(x[None] for x in tokens))

    def forward_mode(module: Attention, tokens: list[Tensor]) -> object:
        return torch.func.jvp(module, tuple(tokens), tuple(map(torch.ones_like, tokens)))

    yield "counted", under(FlopCounterMode(display=False))
    yield "vmap", bound
    yield "forward mode", forward_mode
    yield "traced", lambda module, tokens: torch.jit.trace(module, tuple(tokens), check_trace=False)
    yield "half", lambda module, tokens: module.to(torch.bfloat16).dwc(tokens[0].bfloat16())  # type: ignore[operator]


@pytest.mark.parametrize(("run"), [run for _, run in steps_aside()], ids=[name for name, _ in steps_aside()])
def test_the_kernels_step_aside(run: Callable[[Attention, list[Tensor]], object]) -> None:
    module, tokens, _ = made("focused", {}, SITES["regions"].__class__(32, 2, Grid(5, 4), Grid(5, 4)), torch.float32)
    tokens = [x.detach() for x in tokens]
    with used_paths() as used, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run(module.requires_grad_(False), tokens)
    assert used == {"plain"}


def test_a_path_that_is_none_is_refused() -> None:
    with (
        pytest.raises(ValueError, match="path 'fast' is not known; there are: plain, native, triton"),
        using_path("fast"),
    ):
        pass


def test_without_a_compiler_torch_does_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_native, "library", _native.library.__wrapped__)
    module, tokens, _ = made("focused", {}, SITES["odd channels, class token"], torch.float32)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with used_paths() as used, warnings.catch_warnings():
        warnings.simplefilter("error")
        module(*tokens)
    assert used == {"plain"}
    # A compiler that fails is said, in one line.
    (tmp_path / "c++").write_text("#!/bin/sh\necho 'c++: no space left' >&2; exit 1\n")
    (tmp_path / "c++").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.warns(UserWarning, match=r"attentions run as torch operators: c\+\+: no space left"):
        assert _native.library() is None
    assert not list((tmp_path / "attention-bench").glob("*.so"))


def test_the_kernels_are_compiled_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert isinstance(_native.library.__wrapped__(), ctypes.CDLL)
    (made,) = (tmp_path / "attention-bench").iterdir()
    monkeypatch.setattr(subprocess, "run", None)
    assert isinstance(_native.library.__wrapped__(), ctypes.CDLL)
    assert list((tmp_path / "attention-bench").iterdir()) == [made]


def test_the_kernels_are_part_of_the_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    focused = type(AttentionSpec("focused").build(Site(8, 2, Grid(2, 2), Grid(2, 2))))
    before = class_digest.__wrapped__(focused)
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read(path) + (b"//" if path == _native.SOURCE else b""))
    assert class_digest.__wrapped__(focused) != before


def test_the_kernels_are_worth_it() -> None:
    """Forward and backward take a third of the CPU time of torch's operators; a wide bound, for any machine."""
    module, tokens, _ = made("focused", {}, SITES["28x28, 96 channels"], torch.float32)
    times: dict[str, list[float]] = {path: [] for path in PATHS}

    def both(path: str) -> float:
        began = time.process_time()
        with using_path(path):
            out = module(*tokens)
            torch.autograd.grad(out.sum(), tokens)
        return time.process_time() - began

    with one_thread():
        for _ in range(8):
            for path in ("native", "plain", "plain", "native"):
                times[path].append(both(path))
    assert min(times["native"]) < 0.7 * min(times["plain"])

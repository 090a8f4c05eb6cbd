"""Which kernel ran `scaled_dot_product_attention`: seen on a CPU, in what is measured and in trainings."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import backbones
from attentions import using_path
from harness.cells import Runtime, Speed
from harness.measures.sdpa import kernels_of, sdpa_kernels
from harness.measures.speed import measure_backbone
from harness.training import checkpoints
from harness.training.loop import train
from tests.harness.image_sets import coloured
from tests.harness.small_training import RECIPE, deit, task

X = torch.ones(1, 2, 8, 4)


def attend(bias: Tensor | None = None) -> Tensor:
    return F.scaled_dot_product_attention(X, X, X, attn_mask=bias)


def attend_to(x: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(x, x, x)


def test_each_kernel_is_named() -> None:
    assert kernels_of(attend) == "flash"
    assert kernels_of(lambda: attend(torch.zeros(8, 8))) == "flash"
    with sdpa_kernel(SDPBackend.MATH):
        assert kernels_of(attend) == "math"
    assert kernels_of(lambda: (X @ X.mT).softmax(-1) @ X) is None


def test_a_bias_that_needs_a_gradient_is_not_fused_on_a_cpu() -> None:
    bias = torch.zeros(8, 8, requires_grad=True)
    assert kernels_of(lambda: attend(bias)) == "math"
    with torch.no_grad():
        # A bias that would need one were there gradients is enough; what is computed from it here needs none.
        assert kernels_of(lambda: attend(bias)) == "math"
        assert kernels_of(lambda: attend(bias + 1)) == "flash"
    assert kernels_of(lambda: (attend(bias), attend())) == "flash, math"


def test_looking_changes_nothing_and_ends_with_an_error() -> None:
    seen = []
    for look in (False, True):
        torch.manual_seed(0)
        x = torch.randn(1, 2, 8, 4, requires_grad=True)
        if look:
            with sdpa_kernels():
                attend_to(x).square().sum().backward()
        else:
            attend_to(x).square().sum().backward()
        seen.append((x.grad, torch.rand(3)))
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))
    with pytest.raises(RuntimeError, match="from inside"), sdpa_kernels():
        raise RuntimeError("from inside")
    assert kernels_of(attend) == "flash"


def test_who_profiles_already_is_let_alone() -> None:
    with torch.autograd.profiler.profile(use_kineto=False) as outer:
        assert kernels_of(attend) is None
    assert any("flash_attention_for_cpu" in event.name for event in outer.function_events)


@pytest.mark.parametrize(
    ("backbone", "attention", "infer", "step"),
    [
        ("swin_micro", "softmax", "flash", "math"),
        ("deit_micro", "linear", None, None),
    ],
)
def test_a_speed_says_which_kernels_it_is_of(backbone: str, attention: str, infer: Any, step: Any) -> None:
    spec = backbones.preset(backbone, attention=attention)
    metrics = measure_backbone(spec, Speed(Runtime(batch=1), min_seconds=1e-3), lambda line: None)
    assert (metrics["sdpa_kernel"], metrics["train_sdpa_kernel"]) == (infer, step)


@pytest.mark.parametrize(
    ("attention", "forced", "path"),
    [("focused", "native", "native"), ("focused", "plain", "plain"), ("softmax", "native", None)],
)
def test_a_speed_says_which_path_it_is_of(attention: str, forced: str, path: str | None) -> None:
    spec = backbones.preset("deit_micro", attention=attention)
    with using_path(forced):
        metrics = measure_backbone(spec, Speed(Runtime(batch=1), min_seconds=1e-3), lambda line: None)
    assert (metrics["attention_path"], metrics["train_attention_path"]) == (path, path)


def test_a_training_says_it_and_its_end_alone_remembers(tmp_path: Path) -> None:
    this = task(coloured(tmp_path / "images", 8, 4), replace(RECIPE, epochs=1))
    spec = deit(attention="softmax")
    assert train(this, spec, tmp_path / "run", print)["loop_sdpa_kernel"] == "flash"
    newest = checkpoints.all_of(tmp_path / "run")[0]
    assert checkpoints.read(newest)["progress"]["kernels"] == ["flash"]
    # Nothing is left to train: what the checkpoint says is all that is known.
    assert train(this, spec, tmp_path / "run", print)["loop_sdpa_kernel"] == "flash"


def test_a_checkpoint_of_before_is_read(tmp_path: Path) -> None:
    this = task(coloured(tmp_path / "images", 8, 4), replace(RECIPE, epochs=1))
    train(this, deit(attention="softmax"), tmp_path / "run", print)
    newest = checkpoints.all_of(tmp_path / "run")[0]
    state = checkpoints.read(newest)
    del state["progress"]["kernels"]
    torch.save(state, newest)
    assert train(this, deit(attention="softmax"), tmp_path / "run", print)["loop_sdpa_kernel"] is None

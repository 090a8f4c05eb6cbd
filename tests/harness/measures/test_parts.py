"""Times by operator and part: each operator belongs where it belongs, and all of them add up to the pass."""

import time

import pytest
import torch
from torch import Tensor, nn

from attentions import AttentionSpec, Grid, Site
from attentions._native import library
from harness.measures.free import FREE, GROUPS
from harness.measures.parts import ATTENTION, MLP, OTHER, OUTSIDE, PARTS, REST, Operator, Profiler, part_of

SITE = Site(16, 2, Grid(4, 5), Grid(4, 5))


class Block(nn.Module):
    """One of each kind of work, around an attention and an MLP."""

    def __init__(self, attention: str) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.qkv = nn.Linear(16, 48, bias=False)
        self.core = AttentionSpec.parse(attention).build(SITE)
        self.conv = nn.Conv1d(16, 16, 3, padding=1)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=-1)
        x = self.core(q, k, v)
        x = self.conv(x.transpose(1, 2)).transpose(1, 2).contiguous()
        return torch.fft.rfft(self.mlp(x), dim=1).abs().sum()


def spent(module: nn.Module, *given: Tensor, passes: int = 3) -> tuple[float, dict[Operator, tuple[float, float]]]:
    profiler = Profiler(torch.inference_mode()(lambda: module(*given)), module, "cpu")
    for _ in range(passes):
        profiler()
    return profiler.spent()


def test_operators_are_where_they_belong_and_add_up_to_the_pass() -> None:
    seconds, found = spent(Block("softmax(fused=False)").eval(), torch.randn(2, 20, 16))
    assert sum(took for _, took in found.values()) == pytest.approx(seconds)
    places = {(each.name, each.part, each.where) for each in found}
    assert {
        ("aten::native_layer_norm", "norms", REST),
        # Of the layer without a bias, which torch computes by `mm`.
        ("aten::mm", "projections", REST),
        ("aten::bmm", "products", ATTENTION),
        ("aten::_softmax", "softmax", ATTENTION),
        ("aten::addmm", "projections", MLP),
        ("aten::gelu", "elementwise", MLP),
        ("aten::convolution", "convolutions", REST),
        ("aten::_fft_r2c", "transforms", REST),
        ("aten::sum", "reductions", REST),
        ("aten::copy_", "copies", REST),
        (OUTSIDE, OUTSIDE, ATTENTION),
        (OUTSIDE, OUTSIDE, REST),
    } <= places
    assert {part for _, part, _ in places} <= set(PARTS)
    assert found[Operator("aten::bmm", "products", ATTENTION)][0] == 2
    assert found[Operator("aten::addmm", "projections", MLP)][0] == 2
    assert found[Operator(OUTSIDE, OUTSIDE, ATTENTION)][0] == 0


def test_the_fused_kernel_is_a_product() -> None:
    _, found = spent(Block("softmax").eval(), torch.randn(2, 20, 16))
    fused = [each for each in found if "flash_attention" in each.name]
    assert fused
    assert {(each.part, each.where) for each in fused} == {("products", ATTENTION)}


def test_nothing_is_left_in_the_model_and_no_number_changes() -> None:
    model, x = Block("linear").eval(), torch.randn(2, 20, 16)
    with torch.inference_mode():
        before = model(x)
        spent(model, x, passes=1)
        assert torch.equal(model(x), before)
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in model.modules())


def test_a_planted_slow_operator_is_the_slowest() -> None:
    class Slow(Block):
        def forward(self, x: Tensor) -> Tensor:
            for _ in range(30):
                x = x.repeat(50, 1, 1).flip(0)[: len(x)]
            return super().forward(x)

    _, found = spent(Slow("softmax").eval(), torch.randn(32, 20, 16))
    sums = dict.fromkeys(PARTS, 0.0)
    for operator, (_, took) in found.items():
        sums[operator.part] += took
    assert max(sums, key=lambda part: sums[part]) == "copies"


def test_what_torch_knows_no_operator_for_is_outside_and_where_it_runs() -> None:
    model = Block("softmax").eval()
    forward = model.core.forward

    def sleepy(*given: Tensor, **named: Tensor) -> Tensor:
        time.sleep(0.02)
        return forward(*given, **named)

    model.core.forward = sleepy  # type: ignore[method-assign, assignment]
    seconds, found = spent(model, torch.randn(2, 20, 16), passes=2)
    assert 0.02 <= found[Operator(OUTSIDE, OUTSIDE, ATTENTION)][1] <= seconds


def test_passes_are_forgotten() -> None:
    model, x = Block("softmax").eval(), torch.randn(2, 20, 16)
    profiler = Profiler(lambda: model(x), model, "cpu")
    profiler()
    profiler.start()
    profiler()
    seconds, found = profiler.spent()
    assert seconds == profiler.last
    assert found[Operator("aten::gelu", "elementwise", MLP)][0] == 1


def test_parts_of_names() -> None:
    assert part_of("aten::add_", []) == "elementwise"
    assert part_of("aten::mm", []) == "products"
    assert part_of("aten::mm", ["products", "projections"]) == "projections"
    assert part_of("mine::anything", []) == OTHER
    assert part_of("mine::anything", ["norms", "projections"]) == "norms"
    assert part_of("aten::mkldnn_convolution", []) == "convolutions"
    assert part_of("mkldnn::_linear_pointwise", []) == "projections"
    # A copy is one, whoever asks for it.
    assert part_of("aten::copy_", ["products"]) == "copies"


def test_groups_of_free_operators_have_each_name_once() -> None:
    names = [name for texts in GROUPS.values() for text in texts for name in text.split()]
    assert len(names) == len(set(names)) == len(FREE)


@pytest.mark.gpu
def test_a_gpu_has_the_time_of_its_kernels() -> None:
    model, x = Block("softmax").eval().cuda(), torch.randn(64, 20, 16, device="cuda")
    profiler = Profiler(torch.inference_mode()(lambda: model(x)), model, "cuda")
    profiler()
    profiler.start()
    profiler()
    _, found = profiler.spent()
    assert sum(took for each, (_, took) in found.items() if each.part == "projections") > 0


@pytest.mark.skipif(library() is None, reason="no C++ compiler")
def test_kernels_of_attentions_are_operators() -> None:
    _, found = spent(Block("focused").eval(), torch.randn(2, 20, 16))
    assert found[Operator("LinearProduct", "products", ATTENTION)][0] == 1
    assert found[Operator("Convolution", "convolutions", ATTENTION)][0] == 1

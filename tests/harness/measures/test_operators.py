"""Single operators, counted three ways: by torch's counter, by fvcore's, and by hand."""

import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from attentions import Macs, operators, register_operator, temporary_registry
from harness.measures import formulas
from harness.measures.costs import by_category, check_agreement
from harness.measures.counters import count_with_fvcore, count_with_torch, own_operators
from harness.measures.free import FREE

B, N, C = 2, 6, 8  # images, tokens, channels
ROWS, COLUMNS = 2, 3  # of the tokens' map


class Model(nn.Module):
    """A model made of a function of tokens (B, N, C), and of the module that it calls, if any."""

    def __init__(self, function: Callable[[Tensor], Any], module: nn.Module | None = None) -> None:
        super().__init__()
        self.function, self.module = function, module

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def counted(function: Callable[[Tensor], Any], expected: Macs, module: nn.Module | None = None) -> None:
    """Assert that both counters count `expected`, in each category that they know."""
    x, model = torch.empty(B, N, C, device="meta"), Model(function, module)
    counts = {"torch": count_with_torch(model, x), "fvcore": count_with_fvcore(model, x)[0]}
    wanted = by_category(expected)
    check_agreement({**counts, "formula": wanted}, label="model")
    for found in counts.values():
        assert found == {category: wanted[category] for category in found}


def new(x: Tensor, *shape: int) -> Tensor:
    return x.new_empty(shape)


def as_map(x: Tensor) -> Tensor:
    return x.transpose(1, 2).unflatten(-1, (ROWS, COLUMNS))


def heads(x: Tensor) -> Tensor:
    return x.unflatten(-1, (2, -1)).transpose(1, 2)


PRODUCTS: dict[str, tuple[Callable[[Tensor], Any], int]] = {
    "a matrix and a vector": (lambda x: x[0] @ x[0, 0], N * C),
    "a batch and a vector": (lambda x: x @ x[0, 0], B * N * C),
    "a vector and a matrix": (lambda x: x[0, 0] @ x[0].mT, C * N),
    "mv": (lambda x: torch.mv(x[0], x[0, 0]), N * C),
    "dot": (lambda x: torch.dot(x[0, 0], x[0, 1]), C),
    "vdot": (lambda x: torch.vdot(x[0, 0], x[0, 1]), C),
    "vecdot": (lambda x: torch.linalg.vecdot(x, x[:, :1]), B * N * C),
    "vecdot of vectors": (lambda x: torch.linalg.vecdot(x[0, 0], x[0, 1]), C),
    "vecdot by name": (lambda x: torch.linalg.vecdot(x=x, y=x, dim=1), B * N * C),
    "inner": (lambda x: torch.inner(x, x), (B * N) ** 2 * C),
    "inner with a number": (lambda x: torch.inner(x, x[0, 0, 0]), 0),
    "addmv": (lambda x: torch.addmv(new(x, N), x[0], x[0, 0]), N * C),
    "addbmm": (lambda x: torch.addbmm(new(x, N, N), x, x.mT), B * N * N * C),
    "baddbmm": (lambda x: torch.baddbmm(new(x, 1, 1, 1), x, x.mT), B * N * N * C),
    "addmv_": (lambda x: new(x, N).addmv_(x[0], x[0, 0]), N * C),
    "addbmm_": (lambda x: new(x, N, N).addbmm_(x, x.mT, beta=0.5), B * N * N * C),
    "baddbmm_": (lambda x: new(x, B, N, N).baddbmm_(x, x.mT), B * N * N * C),
    "bmm, out": (lambda x: torch.bmm(x, x.mT, out=new(x, B, N, N)), B * N * N * C),
    "cosine_similarity": (lambda x: F.cosine_similarity(x[:, None], x[:, :, None], dim=-1), B * N * N * C),
    "linalg.matmul": (lambda x: torch.linalg.matmul(x, x.mT), B * N * N * C),
    "tensordot over one": (lambda x: torch.tensordot(x, new(x, 5, C), dims=([2], [1])), B * N * C * 5),
    "tensordot over two": (lambda x: torch.tensordot(x, new(x, N, C, 3), dims=2), B * N * C * 3),
    # What is multiplied first is what makes it cheapest.
    "multi_dot": (lambda x: torch.linalg.multi_dot([x[0], x[0].mT, x[0]]), 2 * N * N * C),
    "multi_dot from the right": (lambda x: torch.linalg.multi_dot([x[0], x[0].mT, new(x, N, 1)]), 2 * N * C),
    "multi_dot of four": (
        lambda x: torch.linalg.multi_dot([x[0], new(x, C, 2), new(x, 2, C), x[0, 0]]),
        C * 2 + 2 * C + C * N,
    ),
    "chain_matmul": (lambda x: torch.chain_matmul(x[0], x[0].mT, new(x, N, 1)), 2 * N * C),
    "matrix_power": (lambda x: torch.linalg.matrix_power(x @ x.mT, 5), B * N * N * C + 3 * B * N**3),
    "bilinear": (lambda x: F.bilinear(x, x[..., :3], new(x, 5, C, 3)), B * N * 5 * (C * 3 + 3)),
    "cdist": (lambda x: torch.cdist(x, x[:, :4]), B * N * 4 * C),
    "cdist, p=1": (lambda x: torch.cdist(x, x[:, :4], p=1.0), B * N * 4 * C),
    "outer": (lambda x: torch.outer(x[0, 0], x[0, 1]), 0),
    "kron": (lambda x: torch.kron(x[0], x[0]), 0),
    "einsum with ...": (lambda x: torch.einsum("...nd,...md->...nm", heads(x), heads(x)), B * N * N * C),
    "einsum, ... broadcast": (lambda x: torch.einsum("...nd,...d->n...", x, x[0, 0]), B * N * C),
    "einsum without ->": (lambda x: torch.einsum("bnc,cd", x, new(x, C, 5)), B * N * C * 5),
    "einsum of lists": (lambda x: torch.einsum(x, [0, 1, 2], x, [0, 3, 2], [0, 1, 3]), B * N * N * C),
    "einsum of three": (lambda x: torch.einsum("bnd,bmd,bme->bne", x, x, new(x, B, N, 5)), B * N * N * (C + 5)),
    "einsum of four": (
        lambda x: torch.einsum("bnc,cd,de,e->bn", x, new(x, C, 5), new(x, 5, 3), new(x, 3)),
        B * N * (C * 5 + 5 * 3 + 3),
    ),
    "einsum of a diagonal": (lambda x: torch.einsum("bnn,bnc->bc", x[..., :N], x), B * N * C),
    "complex": (lambda x: (x + 0j) @ (x + 0j).mH, 4 * B * N * N * C),
    "complex with a vector": (lambda x: (x + 0j) @ (x[0, 0] + 0j), 4 * B * N * C),
    "complex einsum": (lambda x: torch.einsum("bnc,bmc->bnm", x + 0j, x + 0j), 4 * B * N * N * C),
    "sdpa": (lambda x: F.scaled_dot_product_attention(heads(x), heads(x), heads(x)), 2 * B * N * N * C),
    "sdpa, causal": (
        lambda x: F.scaled_dot_product_attention(heads(x), heads(x), heads(x), is_causal=True),
        2 * B * N * N * C,
    ),
    "sdpa, groups": (
        lambda x: F.scaled_dot_product_attention(heads(x), heads(x)[:, :1], heads(x)[:, :1], enable_gqa=True),
        2 * B * N * N * C,
    ),
    "sdpa, wider values": (
        lambda x: F.scaled_dot_product_attention(x[..., :2], x[..., :2], x),
        B * N * N * (2 + C),
    ),
    "sdpa, flash": (
        lambda x: torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*[heads(x)] * 3)[0],
        2 * B * N * N * C,
    ),
}


@pytest.mark.filterwarnings("ignore:torch.chain_matmul is deprecated")
@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name: str) -> None:
    function, expected = PRODUCTS[name]
    counted(function, Macs(attention=expected))


# Transforms of N points: N ceil(log2 N) for a real signal, twice that for a complex one.
SIGNALS = B * C
FLAT = SIGNALS * N * 3  # 6 points: 2^3 and no power below
TRANSFORMS: dict[str, tuple[Callable[[Tensor], Any], int]] = {
    "fft": (lambda x: torch.fft.fft(x, dim=1), 2 * FLAT),
    "ifft": (lambda x: torch.fft.ifft(x + 0j, dim=1), 2 * FLAT),
    "rfft": (lambda x: torch.fft.rfft(x, dim=1), FLAT),
    "rfft of another length": (lambda x: torch.fft.rfft(x, 16, dim=1), SIGNALS * 16 * 4),
    "irfft": (lambda x: torch.fft.irfft(x + 0j, 7, dim=1), SIGNALS * 7 * 3),
    "hfft": (lambda x: torch.fft.hfft(x + 0j, 7, dim=1), SIGNALS * 7 * 3),
    "ihfft": (lambda x: torch.fft.ihfft(x, dim=1), FLAT),
    "there and back": (lambda x: torch.fft.irfft(torch.fft.rfft(x, dim=1), n=x.shape[1], dim=1), 2 * FLAT),
    "fft2": (lambda x: torch.fft.fft2(as_map(x)), 2 * FLAT),
    "ifft2": (lambda x: torch.fft.ifft2(as_map(x) + 0j, norm="ortho"), 2 * FLAT),
    "rfft2": (lambda x: torch.fft.rfft2(as_map(x), norm="ortho"), FLAT),
    "rfft2 and irfft2": (
        lambda x: torch.fft.irfft2(torch.fft.rfft2(as_map(x)) * 2j, s=(ROWS, COLUMNS)),
        2 * FLAT,
    ),
    "rfft2, padded": (lambda x: torch.fft.rfft2(as_map(x), s=(4, 8)), SIGNALS * 32 * 5),
    "rfft2, sizes of a tensor": (lambda x: torch.fft.rfft2(as_map(x), s=as_map(x).shape[-2:]), FLAT),
    "hfft2": (
        lambda x: torch.fft.hfft2(as_map(x) + 0j),  # 2 x 4: real over 4, complex over 2 on half of them and one
        SIGNALS * (ROWS * 4 * 2 + 2 * ROWS * 3 * 1),
    ),
    "ihfft2": (
        lambda x: torch.fft.ihfft2(as_map(x)),
        SIGNALS * (ROWS * COLUMNS * 2 + 2 * ROWS * 2 * 1),
    ),
    "fftn": (lambda x: torch.fft.fftn(x), 2 * B * N * C * 7),  # 96 points
    "fftn, the last two": (lambda x: torch.fft.fftn(x, s=(N, C)), 2 * B * N * C * 6),  # 48 points
    "rfftn": (lambda x: torch.fft.rfftn(x, dim=(1,)), FLAT),
    "irfftn": (lambda x: torch.fft.irfftn(as_map(x) + 0j, s=(ROWS, COLUMNS)), FLAT),
    "a filter": (lambda x: torch.fft.fftshift(torch.fft.rfft(x, dim=1)).conj().real, FLAT),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_fourier_transforms(name: str) -> None:
    function, expected = TRANSFORMS[name]
    counted(function, Macs(attention=expected))


def test_every_transform_of_torch_is_counted() -> None:
    assert {name for name in torch.fft.__all__ if "fft" in name and hasattr(torch.fft, name)} - {
        "fftfreq", "rfftfreq", "fftshift", "ifftshift"
    } <= set(formulas.TRANSFORMS)  # fmt: skip


CONVOLUTIONS: dict[str, tuple[Callable[[Tensor], Any], int]] = {
    "transposed": (lambda x: F.conv_transpose1d(x.mT, new(x, C, 5, 3), stride=2), B * N * C * 5 * 3),
    "transposed, groups": (
        lambda x: F.conv_transpose2d(as_map(x), new(x, C, 3, 3, 2), padding=1, groups=2),
        B * N * C * 3 * 6,
    ),
    "transposed, module": (
        lambda x: nn.ConvTranspose3d(C, 4, 2, 2, output_padding=1, device=x.device)(as_map(x).unsqueeze(2)),
        B * N * C * 4 * 8,
    ),
    "transposed, one image": (lambda x: F.conv_transpose1d(x[0].mT, new(x, C, 5, 3)), N * C * 5 * 3),
    "one image": (lambda x: F.conv2d(as_map(x)[0], new(x, 5, C, 1, 1)), N * C * 5),
    "depthwise": (lambda x: F.conv1d(x.mT, new(x, C, 1, 3), padding=1, groups=C), B * N * C * 3),
    "groups": (lambda x: F.conv2d(as_map(x), new(x, 4, 2, 1, 1), groups=4), B * N * 4 * 2),
    "3d": (lambda x: F.conv3d(as_map(x).unsqueeze(2), new(x, 5, C, 1, 1, 1)), B * N * C * 5),
    "complex": (lambda x: F.conv1d(x.mT + 0j, new(x, 5, C, 1) + 0j), 3 * B * N * C * 5),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name: str) -> None:
    function, expected = CONVOLUTIONS[name]
    counted(function, Macs(convolutions=expected))


@pytest.mark.parametrize(
    ("norm", "operations"),
    [
        (lambda x: F.rms_norm(x, (C,)), 4),
        (lambda x: F.rms_norm(x, (C,), new(x, C)), 5),
        (lambda x: F.rms_norm(input=x, normalized_shape=(C,), weight=new(x, C)), 5),
        (lambda x: torch.rms_norm(x, (C,)), 4),
        (lambda x: nn.RMSNorm(C, device=x.device)(x), 5),
        (lambda x: nn.LayerNorm(C, device=x.device)(x), 5),
        (lambda x: nn.LayerNorm(C, elementwise_affine=False)(x), 4),
    ],
    ids=["function", "weight", "by name", "torch", "module", "LayerNorm", "LayerNorm without weights"],
)
def test_norms(norm: Callable[[Tensor], Tensor], operations: int) -> None:
    counted(norm, Macs(norms=operations * B * N * C))


def test_a_module_of_torch_is_counted_without_its_fast_path() -> None:
    module = nn.MultiheadAttention(C, 2, batch_first=True, device="meta").eval()
    expected = Macs(attention=2 * B * N * N * C, projections=4 * B * N * C * C)
    counted(lambda x: module(x, x, x)[0], expected, module)
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_product_into_a_matrix() -> None:
    counted(lambda x: new(x, N, N).addmm_(x[0], x[0].mT), Macs(projections=N * N * C))


def test_a_weight_norm_is_free() -> None:
    module = torch.nn.utils.parametrizations.weight_norm(nn.Linear(C, 5, bias=False, device="meta"))
    counted(module, Macs(projections=B * N * C * 5), module)


def test_a_linear_layer_whose_weight_is_a_vector() -> None:
    counted(lambda x: F.linear(x, new(x, C)), Macs(projections=B * N * C))


def test_a_transform_whose_size_is_unknown_is_refused() -> None:
    model = Model(lambda x: torch.fft.rfft(x, x.shape[1] * 2, dim=1))
    with pytest.raises(
        ValueError, match=r"^the sizes of torch.fft.rfft are computed from a tensor's shape; take them from"
    ):
        count_with_fvcore(model, torch.empty(B, N, C, device="meta"))


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_scripted_function_is_refused_with_what_to_do() -> None:
    def product(x: Tensor) -> Tensor:
        return x @ x.mT

    scripted = torch.jit.script(product)
    with pytest.raises(ValueError, match=r"a function of torch.jit.script hides its products .*: leave its decorator"):
        count_with_fvcore(Model(scripted), torch.empty(B, N, C, device="meta"))


def test_einsums_are_contracted_as_torch_does() -> None:
    """Random equations, sizes of one and broadcasts among them, against the products that torch runs."""
    draw = random.Random(0)
    for _ in range(150):
        sizes = {letter: draw.choice([1, 2, 3]) for letter in "abcd"}
        hidden = [draw.choice([1, 2]) for _ in range(2)]
        terms, shapes = [], []
        for _ in range(draw.choice([1, 2, 3, 4])):
            letters = draw.choices("abcd", k=draw.randint(1, 3))
            shape = [1 if letters.count(each) == 1 and draw.random() < 0.1 else sizes[each] for each in letters]
            dots = draw.choice([0, 0, 1, 2])
            terms.append("..." * bool(dots) + "".join(letters))
            shapes.append([*hidden[2 - dots :], *shape])
        equation = ",".join(terms)
        if draw.random() < 0.8:
            used = sorted(set(equation) & set("abcd"))
            equation += "->" + "..." * ("..." in equation) + "".join(draw.sample(used, draw.randint(0, len(used))))
        with FlopCounterMode(display=False) as counter, torch.backends.opt_einsum.flags(enabled=False):
            torch.einsum(equation, *[torch.empty(shape) for shape in shapes])
        assert formulas.einsum(equation, shapes)[0] == counter.get_total_flops() // 2, (equation, shapes)


def test_what_is_free_is_an_operator() -> None:
    schemas = torch._C._jit_get_schemas_for_operator
    assert not [name for name in FREE if not schemas(name) and not schemas(f"{name}_")]
    assert not FREE & {*formulas.WITH_WEIGHT, *formulas.OF_ACTIVATIONS, *formulas.FOURIER, *formulas.BY_DISPATCHER}


# Operators of a user's


@torch.library.custom_op("attention_bench_tests::summary", mutates_args=())
def summary(keys: list[Tensor], v: Tensor, scale: float = 1.0) -> Tensor:
    """Return sum(keys)^T v: (B, N, C) each -> (B, C, C)."""
    return scale * sum(keys).transpose(-2, -1) @ v  # type: ignore[union-attr]


@summary.register_fake
def _(keys: list[Tensor], v: Tensor, scale: float = 1.0) -> Tensor:
    return v.new_empty(v.shape[0], v.shape[-1], v.shape[-1])


NAME = "attention_bench_tests::summary"


def own(x: Tensor) -> Tensor:
    return x @ summary([x, x], x)


def test_a_registered_operator_is_counted_by_both() -> None:
    with temporary_registry():

        @register_operator(NAME)
        def formula(keys: list[tuple[int, ...]], v: tuple[int, ...], scale: float) -> int:
            assert len(keys) == 2
            assert scale == 1.0
            return math.prod(v) * v[-1]

        counted(own, Macs(attention=2 * B * N * C * C))
        assert own_operators(Model(own), torch.empty(B, N, C, device="meta")) == {NAME}
        assert own_operators(Model(torch.relu), torch.empty(B, N, C, device="meta")) == set()
        with pytest.raises(ValueError, match="model disagree"):
            counted(own, Macs(attention=B * N * C * C))
    assert NAME not in operators()
    with pytest.raises(ValueError, match=rf'{NAME} is neither .*: give it .*register_operator\("{NAME}"\)'):
        counted(own, Macs())


@pytest.mark.parametrize("counter", [count_with_torch, count_with_fvcore])
@pytest.mark.parametrize(
    ("result", "said"),
    [
        (lambda: 1.5, "returns 1.5, which is no whole number from 0 up"),
        (lambda: -1, "returns -1, which is no whole number from 0 up"),
        (lambda: True, "returns True, which is no whole number from 0 up"),
        (lambda: None, "returns None, which is no whole number from 0 up"),
        (lambda: 1 // 0, "raises ZeroDivisionError: "),
    ],
    ids=["fraction", "negative", "bool", "none", "error"],
)
def test_a_formula_that_gives_no_number_is_named(counter, result, said) -> None:
    with temporary_registry():
        register_operator(NAME)(lambda keys, v, scale: result())
        with pytest.raises(ValueError) as error:
            counter(Model(own), torch.empty(B, N, C, device="meta"))
    text = str(error.value)
    assert text.startswith(f"the formula of operator {NAME}, {__file__}, line ")
    assert said in text
    assert text.endswith("(for [(2, 6, 8), (2, 6, 8)], (2, 6, 8), 1.0)")
    assert "\n" not in text


@pytest.mark.parametrize("name", ["aten::mm", "aten::fft_rfft", "aten::_fft_r2c", "aten::relu"])
def test_what_is_counted_already_takes_no_other_formula(name: str) -> None:
    with temporary_registry():
        register_operator(name)(lambda *arguments: 1)
        with pytest.raises(ValueError, match=f"^operator {name} is counted already"):
            counted(torch.relu, Macs())
    counted(torch.relu, Macs())

"""The blocks written a second time, as plain loops over the tokens of one image, from the papers and golden/QUIRKS.md.

A map is a tensor (H * W, C) and its (height, width); a group of tokens that meet is a list of rows of that tensor.
Weights go by their official names. Linear attention is written as its quadratic form, shifts and windows as lists of
places: nothing here follows the way in which our modules compute.
"""

import math
from itertools import pairwise, product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import backbones
from tests.golden.fill import fill_state_dict

Weights = dict[str, Tensor]
Size = tuple[int, int]


def norm(x: Tensor, w: Weights, name: str, eps: float) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    spread = (centred.square().mean(dim=-1, keepdim=True) + eps).sqrt()
    return centred / spread * w[f"{name}.weight"] + w[f"{name}.bias"]


def linear(x: Tensor, w: Weights, name: str) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def mlp(x: Tensor, w: Weights) -> Tensor:
    hidden = linear(x, w, "mlp.fc1")
    return linear(hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2, w, "mlp.fc2")


def patches(x: Tensor, size: Size, w: Weights, name: str) -> Tensor:
    """A convolution whose stride is its kernel: (H * W, C) -> (H / p * W / p, C')."""
    kernel = w[f"{name}.weight"]
    p = kernel.shape[-1]
    out = []
    for top, left in product(range(0, size[0], p), range(0, size[1], p)):
        taps = [kernel[:, :, i, j] @ x[(top + i) * size[1] + left + j] for i, j in product(range(p), repeat=2)]
        out.append(sum(taps, w[f"{name}.bias"]))
    return torch.stack(out)


def depthwise(x: Tensor, size: Size, kernel: Tensor, bias: Tensor) -> Tensor:
    """Zero-padded depthwise convolution of a map (H * W, C); kernel (C, k, k)."""
    half = kernel.shape[-1] // 2
    out = []
    for row, column in product(range(size[0]), range(size[1])):
        token = bias
        for down, right in product(range(-half, half + 1), repeat=2):
            y, z = row + down, column + right
            if 0 <= y < size[0] and 0 <= z < size[1]:
                token = token + kernel[:, half + down, half + right] * x[y * size[1] + z]
        out.append(token)
    return torch.stack(out)


def softmax(q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    d = q.shape[1] // heads
    out = []
    for head in range(heads):
        own = slice(head * d, (head + 1) * d)
        scores = q[:, own] @ k[:, own].T / math.sqrt(d)
        scores = scores if bias is None else scores + bias[head]
        weights = (scores - scores.max()).exp()
        out.append(weights / weights.sum(dim=1, keepdim=True) @ v[:, own])
    return torch.cat(out, dim=1)


def focus(x: Tensor, scale: Tensor) -> Tensor:
    x = (x.clamp(min=0) + 1e-6) / torch.log(1 + scale.exp())
    power = x**3
    return power / power.square().sum(dim=1, keepdim=True).sqrt() * x.square().sum(dim=1, keepdim=True).sqrt()


def stretch(v: Tensor, length: int) -> Tensor:
    """1-D linear interpolation of a sequence (M, C) to (length, C), ends not aligned."""
    out = []
    for place in range(length):
        source = max(0.0, (place + 0.5) * len(v) / length - 0.5)
        low = int(source)
        high = min(low + 1, len(v) - 1)
        out.append(v[low] * (low + 1 - source) + v[high] * (source - low))
    return torch.stack(out)


def focused(q: Tensor, k: Tensor, v: Tensor, heads: int, size: Size, w: Weights, name: str) -> Tensor:
    d = q.shape[1] // heads
    scale = w[f"{name}.scale"].flatten()
    q, k = focus(q, scale), focus(k + w[f"{name}.positional_encoding"][0], scale)
    out = []
    for head in range(heads):
        own = slice(head * d, (head + 1) * d)
        scores = q[:, own] @ k[:, own].T / len(k)
        out.append(scores / (scores.sum(dim=1, keepdim=True) + 1e-6) @ v[:, own])
    assert w[f"{name}.dwc.weight"].shape == (d, 1, 5, 5)
    kernel = torch.cat([w[f"{name}.dwc.weight"][:, 0]] * heads)
    bias = torch.cat([w[f"{name}.dwc.bias"]] * heads)
    return torch.cat(out, dim=1) + depthwise(stretch(v, len(q)), size, kernel, bias)


def windows(size: Size, window: Size, shift: int = 0) -> list[list[int]]:
    """Rows of the tokens of each window, when the map is first moved up and left by `shift`, around its borders."""
    return [
        [
            (top + i + shift) % size[0] * size[1] + (left + j + shift) % size[1]
            for i, j in product(range(window[0]), range(window[1]))
        ]
        for top, left in product(range(0, size[0], window[0]), range(0, size[1], window[1]))
    ]


def position_bias(table: Tensor, group: list[int], size: Size, window: Size) -> Tensor:
    """(heads, N, N): the table's entry, less 100 where two tokens are not as far apart in the map as in the window."""
    bias = torch.zeros(table.shape[1], len(group), len(group), dtype=torch.float64)
    for a, b in product(range(len(group)), repeat=2):
        down, right = a // window[1] - b // window[1], a % window[1] - b % window[1]
        bias[:, a, b] = table[(down + window[0] - 1) * (2 * window[1] - 1) + right + window[1] - 1]
        if group[a] - group[b] != down * size[1] + right:
            bias[:, a, b] -= 100
    return bias


def swin_block(x: Tensor, w: Weights, attention: str, heads: int, size: Size, window: Size, shift: int) -> Tensor:
    q, k, v = linear(norm(x, w, "norm1", 1e-5), w, "attn.qkv").chunk(3, dim=1)
    mixed = torch.zeros_like(x)
    for group in windows(size, window, shift):
        if attention == "focused":
            mixed[group] = focused(q[group], k[group], v[group], heads, window, w, "attn")
        else:
            bias = position_bias(w["attn.relative_position_bias_table"], group, size, window)
            mixed[group] = softmax(q[group], k[group], v[group], heads, bias)
    x = x + linear(mixed, w, "attn.proj")
    return x + mlp(norm(x, w, "norm2", 1e-5), w)


def swin_merge(x: Tensor, w: Weights, size: Size) -> Tensor:
    corners = [(0, 0), (1, 0), (0, 1), (1, 1)]
    four = [
        torch.cat([x[(top + i) * size[1] + left + j] for i, j in corners])
        for top, left in product(range(0, size[0], 2), range(0, size[1], 2))
    ]
    return norm(torch.stack(four), w, "downsample.norm", 1e-5) @ w["downsample.reduction.weight"].T


def cswin_block(x: Tensor, w: Weights, attention: str, heads: int, size: Size, stripes: list[Size]) -> Tensor:
    """`stripes`: the size of a stripe in each branch; the branches share channels and heads evenly, in their order."""
    parts = linear(norm(x, w, "norm1", 1e-5), w, "qkv").chunk(3, dim=1)
    branches, heads = len(stripes), heads // len(stripes)
    mixed = []
    for branch, stripe in enumerate(stripes):
        name = f"attns.{branch}"
        q, k, v = (part.chunk(branches, dim=1)[branch] for part in parts)
        out = torch.zeros_like(v)
        for group in windows(size, stripe):
            if attention == "focused":
                out[group] = focused(q[group], k[group], v[group], heads, stripe, w, name)
            else:
                out[group] = softmax(q[group], k[group], v[group], heads)
            out[group] += depthwise(v[group], stripe, w[f"{name}.get_v.weight"][:, 0], w[f"{name}.get_v.bias"])
        mixed.append(out)
    x = x + linear(torch.cat(mixed, dim=1), w, "proj")
    return x + mlp(norm(x, w, "norm2", 1e-5), w)


def pvt_block(x: Tensor, w: Weights, attention: str, heads: int, size: Size) -> Tensor:
    y = norm(x, w, "norm1", 1e-6)
    q = linear(y, w, "attn.q")
    if "attn.sr.weight" in w:
        y = norm(patches(y, size, w, "attn.sr"), w, "attn.norm", 1e-5)
    k, v = linear(y, w, "attn.kv").chunk(2, dim=1)
    mixed = focused(q, k, v, heads, size, w, "attn") if attention == "focused" else softmax(q, k, v, heads)
    x = x + linear(mixed, w, "attn.proj")
    return x + mlp(norm(x, w, "norm2", 1e-6), w)


def filled(module: nn.Module) -> Weights:
    """Give the module weights away from zero, and return them under their official names."""
    fill_state_dict(module.state_dict())
    return {key.replace("core.", ""): value for key, value in module.double().eval().state_dict().items()}


def below(w: Weights, prefix: str) -> Weights:
    return {key.removeprefix(prefix): value for key, value in w.items() if key.startswith(prefix)}


def assert_same(got: Tensor, wanted: list[Tensor]) -> None:
    assert got.shape == torch.stack(wanted).shape
    assert (got - torch.stack(wanted)).norm() < 1e-10 * torch.stack(wanted).norm()


@pytest.mark.parametrize("attention", ["focused", "softmax"])
def test_a_swin_stage_of_shifted_windows(attention):
    """The second block is shifted: softmax keeps opposite borders of the map apart, focused attention does not."""
    spec = backbones.preset("swin_micro", attention=attention, image_size=(32, 64), window=4)
    model: Any = backbones.build(spec)
    stage = model.layers[0]
    w, size, window = filled(stage), (8, 16), (4, 4)
    wanted, x = [], torch.randn(2, 8 * 16, 48, dtype=torch.float64)
    for image in x:
        for block, shift in enumerate((0, 2)):
            image = swin_block(image, below(w, f"blocks.{block}."), attention, 2, size, window, shift)
        wanted.append(swin_merge(image, w, size))
    assert_same(stage.downsample(nn.Sequential(*stage.blocks)(x)), wanted)


@pytest.mark.parametrize("attention", ["focused", "softmax"])
@pytest.mark.parametrize(("size", "window", "tile"), [((8, 6), 8, (8, 6)), ((8, 6), 9, (8, 6)), ((8, 16), 8, (8, 8))])
def test_a_swin_block_whose_window_fills_its_map_is_not_shifted(attention, size, window, tile):
    image_size = (4 * size[0], 4 * size[1])
    spec = backbones.preset("swin_micro", attention=attention, stages="LS", image_size=image_size, window=window)
    model: Any = backbones.build(spec)
    block = model.layers[0].blocks[1]
    w, x = filled(block), torch.randn(2, size[0] * size[1], 48, dtype=torch.float64)
    assert_same(block(x), [swin_block(image, w, attention, 2, size, tile, 0) for image in x])


@pytest.mark.parametrize("attention", ["focused", "softmax"])
@pytest.mark.parametrize("reduction", [1, 2])
def test_a_pvt_block_with_reduced_keys(attention, reduction):
    spec = backbones.preset("pvt_micro", attention=attention, image_size=(16, 24), sr_ratios=(reduction, 1))
    model: Any = backbones.build(spec)
    block = model.block1[0]
    w, x = filled(block), torch.randn(2, 8 * 12, 32, dtype=torch.float64)
    assert_same(block(x), [pvt_block(image, w, attention, 2, (8, 12)) for image in x])


@pytest.mark.parametrize("attention", ["focused", "softmax"])
@pytest.mark.parametrize(("split", "stripes"), [(2, [(8, 2), (2, 12)]), (12, [(8, 12)])])
def test_a_cswin_block(attention, split, stripes):
    """Stripes in two branches, the first one upright; a stripe as wide as the map is one branch over all channels."""
    spec = backbones.preset("cswin_micro", attention=attention, image_size=(32, 48), split_size=(split, 4))
    model: Any = backbones.build(spec)
    block = model.stage1[0]
    w, x = filled(block), torch.randn(2, 8 * 12, 48, dtype=torch.float64)
    assert_same(block(x), [cswin_block(image, w, attention, 2, (8, 12), stripes) for image in x])


@pytest.mark.parametrize("class_token", [True, False])
def test_a_whole_pvt_with_and_without_class_token(class_token):
    """PVT reads a class token of its last stage behind a norm; FLatten-PVT averages, and its norm is not used."""
    spec = backbones.preset("pvt_micro", image_size=(16, 24), sr_ratios=(2, 1), class_token=class_token)
    model = backbones.build(spec)
    w, images, wanted = filled(model), torch.randn(2, 3, 16, 24, dtype=torch.float64), []
    for x in images.flatten(2).transpose(1, 2):
        for stage, (before, size) in enumerate(pairwise([(16, 24), (8, 12), (4, 6)]), start=1):
            x = norm(patches(x, before, w, f"patch_embed{stage}.proj"), w, f"patch_embed{stage}.norm", 1e-5)
            if class_token and stage == 2:
                x = torch.cat((w["cls_token"][0], x))
            x = x + w[f"pos_embed{stage}"][0]
            for block in range(2):
                x = pvt_block(x, below(w, f"block{stage}.{block}."), "softmax", 2 * stage, size)
        wanted.append(linear(norm(x, w, "norm", 1e-6)[0] if class_token else x.mean(dim=0), w, "head"))
    assert_same(model(images), wanted)

"""Maps lie where the image has it: an attention that sees one bright patch is drawn on that patch, in every family."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attentions import Attention, Given, Macs, register, temporary_registry
from backbones import build, preset
from harness.seeing.maps import maps_of
from harness.seeing.places import places_of


@pytest.fixture(autouse=True)
def brightest() -> Iterator[None]:
    with temporary_registry():

        @register("brightest")
        class Brightest(Attention):
            """All queries attend to the key with the largest norm."""

            def forward(
                self, q: Tensor, k: Tensor, v: Tensor, *, bias: Given = None, x: Given = None, regions: Given = None
            ) -> Tensor:
                prefix = self.site.keys.prefix
                at = prefix + k[:, prefix:].norm(dim=-1).argmax(dim=1)
                return v[torch.arange(len(v)), at].unsqueeze(1).expand(-1, q.shape[1], -1)

            def macs(self) -> Macs:
                return Macs()

        yield


def with_a_bright_patch(size: tuple[int, int], pixel: tuple[int, int], channels: int) -> Tensor:
    image = torch.zeros(1, channels, *size)
    image[..., pixel[0], pixel[1]] = 1e4
    return image


@torch.no_grad()
def keep_pixels_apart(model: nn.Module) -> None:
    """Leave tokens that are not of the bright pixel zero: nothing is added to them, and patches do not overlap."""
    for name, parameter in model.named_parameters():
        mixes = name.endswith("proj.weight") and "patch_embed" not in name
        if name.endswith("bias") or "pos_embed" in name or "cls_token" in name or mixes:
            parameter.zero_()
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size != module.stride:
            taps = torch.zeros_like(module.weight)
            pad, step = int(module.padding[0]), module.stride[0]
            taps[:, :, pad : pad + step, pad : pad + step] = 1
            module.weight.mul_(taps)


@pytest.mark.parametrize(
    ("name", "changes", "stage", "block"),
    [
        ("deit_micro", {}, 1, 1),
        ("pvt_micro", {}, 1, 0),
        ("pvt_micro", {"sr_ratios": (2, 1)}, 1, 1),
        ("pvt_v2_micro", {}, 1, 0),
        ("pvt_v2_micro", {}, 2, 1),
        ("pvt_v2_micro", {"sr_ratios": (2, 1)}, 1, 0),
        ("swin_micro", {"window": 4}, 1, 0),
        ("swin_micro", {"window": 4}, 1, 1),
        ("swin_micro", {"window": 4}, 2, 1),
        ("cswin_micro", {}, 1, 0),
        ("cswin_micro", {"split_size": (2, 4)}, 1, 1),
        ("swin_micro", {"window": 4, "image_size": (32, 64)}, 1, 1),
        ("deit_micro", {"image_size": (32, 64)}, 1, 0),
        ("pvt_micro", {"image_size": (64, 32), "sr_ratios": (2, 1)}, 1, 0),
        ("swin_t", {"image_size": 384, "window": 12}, 1, 1),
        ("deit_t", {"image_size": 384}, 1, 0),
    ],
)
def test_the_bright_pixel_is_where_the_map_says(name: str, changes: dict[str, object], stage: int, block: int) -> None:
    torch.manual_seed(0)
    spec = preset(name, attention="brightest", stages="L" * len(preset(name).stages), **changes)
    model = build(spec).eval()
    keep_pixels_apart(model)
    height, width = spec.image_size
    for pixel in ((1, 1), (height // 2 + 1, width // 3), (height - 2, width - 2), (height // 5, width - height // 7)):
        image = with_a_bright_patch((height, width), pixel, spec.in_channels)
        place = next(p for p in places_of(model) if (p.stage, p.block) == (stage, block))
        cell = (pixel[0] * place.grid.height // height, pixel[1] * place.grid.width // width)
        (found,) = maps_of(model, image, stage, block, [cell]).queries
        assert found.weights.shape[1:] == (place.grid.height, place.grid.width)
        for head in found.weights:
            seen = np.argwhere(np.nan_to_num(head) > 0.5)
            assert cell in map(tuple, seen.tolist()), (pixel, cell, seen)
            # Where keys were reduced, all cells that a key is made from have its weight.
            ratio = place.site.queries.height // place.site.keys.height
            assert len(seen) == ratio**2
            assert np.isnan(head).sum() == head.size - place.site.queries.height * place.site.queries.width

"""Maps of a timm vision transformer after swap, against its own softmax weights; and what cannot be looked into."""

from typing import Any

import numpy as np
import pytest
import timm
import torch

from backbones.swap import swap
from harness.seeing.maps import maps_of
from harness.seeing.places import places_of


def vit() -> Any:
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=3).eval()


def test_the_map_of_a_swapped_softmax_is_timms_own() -> None:
    model = vit()
    image = torch.randn(1, 3, 224, 224)
    inputs = []
    model.blocks[1].attn.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    with torch.no_grad():
        model(image)
        attention = model.blocks[1].attn
        q, k, _ = attention.qkv(inputs[0]).double().unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1)[0].numpy()
    swap(model, "softmax")
    (found,) = maps_of(model, image, 1, 1, [(3, 5)]).queries
    token = 1 + 3 * 14 + 5  # behind the class token
    assert np.allclose(found.weights, weights[:, token, 1:].reshape(-1, 14, 14), atol=1e-6)
    assert np.allclose(found.prefix[:, 0], weights[:, token, 0], atol=1e-6)


def test_what_cannot_be_looked_into_says_so() -> None:
    with pytest.raises(ValueError, match="VisionTransformer has no attention of this project"):
        places_of(vit())
    compiled: Any = torch.compile(swap(vit(), "linear"))
    with pytest.raises(ValueError, match=r"take the model as it was before torch\.compile"):
        places_of(compiled)

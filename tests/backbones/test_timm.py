"""DeiT, Swin and PVTv2 with softmax attention against timm's own code, with the same weights by official names."""

from collections.abc import Callable

import pytest
import safetensors.torch
import timm
import torch
from timm.models import pvt_v2, swin_transformer
from torch import Tensor, nn

import backbones
from backbones._layers import DropPath, Mlp, fill_normal
from backbones.official import from_timm
from harness.training import loading
from harness.training.files import read_file
from tests.golden.fill import fill_state_dict

TIMM_NAMES = {
    "deit_t": "deit_tiny_patch16_224",
    "deit_s": "deit_small_patch16_224",
    "deit_b": "deit_base_patch16_224",
    "swin_t": "swin_tiny_patch4_window7_224",
    "swin_s": "swin_small_patch4_window7_224",
    "swin_b": "swin_base_patch4_window7_224",
    "swin_b_384": "swin_base_patch4_window12_384",
    **{name: name for name in (*(f"pvt_v2_b{size}" for size in range(6)), "pvt_v2_b2_li")},
}

# timm's DeiT keeps the official names; for the others it has a reader of official checkpoints, which serves here.
READERS: dict[str, Callable[[dict[str, Tensor], nn.Module], dict[str, Tensor]]] = {
    "deit": lambda state, model: state,
    "swin": swin_transformer.checkpoint_filter_fn,
    "pvt_v2": pvt_v2.checkpoint_filter_fn,
}


def load_into(theirs: nn.Module, ours: nn.Module, spec: backbones.BackboneSpec) -> None:
    """Strict: every parameter of either model is one of the other, and has its shape."""
    # timm's readers resize what does not fit, and strict loading would not notice.
    assert sorted(p.shape for p in ours.parameters()) == sorted(p.shape for p in theirs.parameters())
    official = backbones.to_official(ours.state_dict(), spec)
    theirs.load_state_dict(READERS[spec.family](official, theirs), strict=True)


@pytest.mark.parametrize("name", TIMM_NAMES)
def test_parameters_have_the_names_and_shapes_of_timms(name):
    spec = backbones.preset(name)
    with torch.device("meta"):
        ours, theirs = backbones.build(spec), timm.create_model(TIMM_NAMES[name])
    load_into(theirs, ours, spec)


@pytest.mark.parametrize(
    ("name", "ours", "theirs"),
    [
        ("deit_t", {}, {}),
        ("deit_t", {"image_size": (96, 160)}, {"img_size": (96, 160)}),
        ("deit_s", {"image_size": 96}, {"img_size": 96}),
        # The large ones in fewer blocks: the test above sees the depth.
        ("deit_b", {"image_size": (64, 48), "depth": 2}, {"img_size": (64, 48), "depth": 2}),
        ("swin_t", {}, {}),
        ("swin_s", {"image_size": 112}, {"img_size": 112}),
        # Swin-B at 224 differs in its windows only, and the test above sees those in the shapes of the bias tables.
        ("swin_b_384", {"image_size": 192, "block_counts": (2,) * 4}, {"img_size": 192, "depths": (2,) * 4}),
        # Odd windows on maps that are not square, shifted in every stage.
        ("swin_t", {"image_size": (192, 288), "window": 3}, {"img_size": (192, 288), "window_size": 3}),
        # Maps of 25, 13, 7 and 4 tokens a side: merging pads the odd ones, and a window is clipped to its map.
        ("swin_t", {"image_size": 100, "window": 25}, {"img_size": 100, "window_size": 25}),
        ("pvt_v2_b0", {}, {}),
        ("pvt_v2_b0", {"image_size": (96, 160)}, {}),
        # B3 to B5 differ from B2 in depths and MLP widths only, which the test above sees.
        ("pvt_v2_b1", {"image_size": (64, 96)}, {}),
        ("pvt_v2_b2", {"image_size": (64, 96)}, {}),
        ("pvt_v2_b2_li", {"image_size": 128}, {}),
        # Odd maps, some smaller than the 7x7 pool.
        ("pvt_v2_b2_li", {"image_size": (75, 110)}, {}),
    ],
)
def test_logits_equal_timms(name, ours, theirs):
    spec = backbones.preset(name, num_classes=10, **ours)
    model, other = backbones.build(spec), timm.create_model(TIMM_NAMES[name], num_classes=10, **theirs)
    fill_state_dict(model.state_dict())
    load_into(other, model, spec)
    images = torch.randn(1, 3, *spec.image_size, dtype=torch.float64)
    with torch.no_grad():
        got, wanted = (each.double().eval()(images) for each in (model, other))
    assert (got - wanted).norm() < 1e-12 * wanted.norm()


@pytest.mark.parametrize(
    ("name", "ours", "theirs"),
    [
        ("deit_t", {"depth": 2}, {"depth": 2}),
        ("swin_t", {"image_size": 112}, {"img_size": 112}),
        ("pvt_v2_b0", {"image_size": 64}, {}),
        ("pvt_v2_b2_li", {"image_size": 64}, {}),
    ],
)
def test_weights_of_timms_models_are_read(name, ours, theirs, tmp_path):
    spec = backbones.preset(name, num_classes=10, **ours)
    other = timm.create_model(TIMM_NAMES[name], num_classes=10, **theirs)
    fill_state_dict(other.state_dict())
    images = torch.randn(2, 3, *spec.image_size)
    for suffix in ("pth", "safetensors"):
        path = tmp_path / f"timm.{suffix}"
        save = safetensors.torch.save_file if suffix == "safetensors" else torch.save
        save(other.state_dict(), path)
        model = backbones.build(spec)
        assert not any(loading.load_weights(loading.weights_in(path), model, spec))
        with torch.no_grad():
            got, wanted = (each.eval()(images) for each in (model, other))
            assert (got - wanted).norm() < 1e-5 * wanted.norm()
    with torch.no_grad():
        got, wanted = (each.double()(images.double()) for each in (model, other))
        assert (got - wanted).norm() < 1e-9 * wanted.norm()


def test_official_weights_are_not_taken_for_timms():
    for name in ("deit_micro", "swin_micro", "pvt_v2_micro", "pvt_micro", "cswin_micro"):
        spec = backbones.preset(name)
        state = backbones.to_official(backbones.build(spec).state_dict(), spec)
        assert from_timm(state, spec) == state


def test_damaged_safetensors_are_refused_in_one_line(tmp_path):
    path = tmp_path / "torn.safetensors"
    path.write_bytes(bytes(range(64)))
    with pytest.raises(ValueError, match=r"^cannot read the weights .*torn.safetensors: damaged.*$"):
        read_file(path)


def test_layers_have_the_numbers_of_timms():
    """Their random numbers, too: a seed makes the same weights, and drops the same images."""
    x = torch.randn(6, 4, 8)

    def both(ours, theirs):
        torch.manual_seed(0)
        expected = theirs()
        torch.manual_seed(0)
        torch.testing.assert_close(ours(), expected, rtol=0, atol=0)

    both(lambda: fill_normal(torch.empty(1000)), lambda: timm.layers.trunc_normal_(torch.empty(1000), std=0.02))
    both(lambda: DropPath(0.3)(x), lambda: timm.layers.DropPath(0.3)(x))
    both(lambda: DropPath(0.3).eval()(x), lambda: x)
    both(lambda: Mlp(8, 4)(x), lambda: timm.layers.Mlp(8, 32)(x))

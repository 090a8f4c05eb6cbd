"""Our presets as timm models: created, changed, taken apart and trained as timm's scripts do."""

import fnmatch
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.data import resolve_data_config
from timm.models import FeatureInfo
from timm.optim import create_optimizer_v2
from torch import Tensor, nn

import attentions
import backbones
from backbones._layers import DropPath
from backbones._model import Backbone
from backbones.timm_models import TIMM_NAMES, default_cfgs
from harness.published.recipes import RECIPES
from tests.nightly import NIGHTLY

ROOT = Path(__file__).parents[2]
MICROS = [name for name in backbones.presets() if name.endswith("_micro")]

LARGER = [TIMM_NAMES[name] for name in ("pvt_v2_b0", "flatten_pvt_v2_b0")]


def images(*size: int, count: int = 2) -> Tensor:
    return torch.randn(count, 3, *(size or (32, 32)))


def one_batch(model: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits and gradients."""
    model.zero_grad()
    logits = model(x)
    logits.square().sum().backward()
    return logits.detach(), [p.grad for p in model.parameters() if p.grad is not None]


def test_every_preset_is_registered_and_none_of_timms_is_replaced():
    assert set(TIMM_NAMES) == set(backbones.presets())
    assert set(timm.list_models(module="timm_models")) == set(TIMM_NAMES.values())
    assert {name for name, theirs in TIMM_NAMES.items() if name != theirs} >= {"pvt_v2_b0", "pvt_v2_b2_li"}
    with torch.device("meta"):
        assert not isinstance(timm.create_model("pvt_v2_b0"), Backbone)
        assert isinstance(timm.create_model("bench_pvt_v2_b0"), Backbone)


@pytest.mark.parametrize("name", backbones.presets())
def test_the_configuration_describes_the_model(name):
    spec, cfg = backbones.preset(name), default_cfgs[TIMM_NAMES[name]].default
    with torch.device("meta"):
        model: Any = backbones.build(spec)
    state = model.state_dict()
    assert f"{cfg.classifier}.weight" in state
    assert state[f"{cfg.first_conv}.weight"].shape[1] == cfg.input_size[0] == model.in_chans
    assert cfg.input_size[1:] == spec.image_size
    assert cfg.num_classes == spec.num_classes
    assert cfg.pool_size == model.levels[-1].grid[:2]
    if name in RECIPES:
        published = RECIPES[name].evaluation
        kind = {"center": "short_side", "squash": "squash"}[cfg.crop_mode]
        assert (kind, cfg.crop_pct, cfg.interpolation) == (
            published.kind,
            published.crop_pct,
            published.interpolation,
        )


@pytest.mark.parametrize("name", backbones.presets())
def test_parameters_are_grouped_by_depth(name):
    """A later layer never has an earlier group, the head has the last one, and `coarse` knows the stages."""
    with torch.device("meta"):
        model: Any = backbones.build(backbones.preset(name))
    groups = timm.models.group_parameters(model, model.group_matcher(), reverse=True)
    assert set(groups) == {parameter for parameter, _ in model.named_parameters()}
    blocks = [groups[f"{path}.norm1.weight"] for path, m in model.named_modules() if hasattr(m, "drop_path")]
    assert blocks == list(range(1, sum(model.spec.depths) + 1))
    assert groups["head.weight"] == groups["head.bias"] == blocks[-1] + 1
    assert {groups[n] for n in groups if n.startswith(default_cfgs[TIMM_NAMES[name]].default.first_conv)} == {0}
    if len(model.spec.depths) > 1:
        coarse = timm.models.group_parameters(model, model.group_matcher(coarse=True), reverse=True)
        assert len(set(coarse.values())) == len(model.spec.depths) + 2


@pytest.mark.parametrize("name", MICROS)
def test_arguments_of_timm_reach_the_model(name):
    model = timm.create_model(name, num_classes=7, in_chans=1, img_size=(32, 64), drop_rate=0.5, drop_path_rate=0.1)
    assert model(torch.randn(2, 1, 32, 64)).shape == (2, 7)
    assert model.spec.image_size == (32, 64)
    assert model.num_classes == 7
    assert not torch.equal(model(torch.ones(2, 1, 32, 64)), model(torch.ones(2, 1, 32, 64)))
    rates = [m.drop_prob for m in model.modules() if isinstance(m, DropPath)]
    assert max(rates) == pytest.approx(0.1)
    data = resolve_data_config(model=timm.create_model(name, img_size=32))
    assert data["input_size"] == (3, 32, 32)


@pytest.mark.parametrize("name", MICROS)
def test_it_is_the_model_that_build_makes(name):
    spec = backbones.preset(name, attention="linear(kernel_size=3)")
    ours, theirs = backbones.build(spec), timm.create_model(name, attention="linear(kernel_size=3)")
    theirs.load_state_dict(ours.state_dict())
    x = images()
    assert torch.equal(ours(x), theirs(x))
    assert theirs.spec == spec


def test_windows_follow_the_image_where_they_have_to():
    def windows(name, **arguments):
        with torch.device("meta"):
            spec = timm.create_model(name, **arguments).spec
        return [getattr(spec, field) for field in ("window", "softmax_window", "split_size") if hasattr(spec, field)]

    assert windows("flatten_swin_t", num_classes=10, img_size=256) == [64, 8]
    assert windows("swin_t", img_size=384) == [12, 12]
    # They tile the maps as they are.
    assert windows("swin_t", img_size=448) == [7, 7]
    assert windows("cswin_t", img_size=256) == [(1, 2, 8, 8)]
    assert windows("swin_t", img_size=256, window=16, softmax_window=16) == [16, 16]


@pytest.mark.parametrize(
    ("arguments", "kind", "parts"),
    [
        ({"windw": 4}, TypeError, ["unknown argument of swin_micro 'windw'", "did you mean window"]),
        ({"image_size": 64}, TypeError, ["did you mean img_size"]),
        ({"attention": "softmx"}, ValueError, ["unknown attention 'softmx'"]),
        ({"img_size": 36, "window": 8}, ValueError, ["9x9 map", "8x8 windows"]),
        ({"img_size": "large"}, ValueError, ["image_size='large'"]),
        ({"global_pool": "max"}, ValueError, ["global_pool='max' is not allowed; it takes 'avg' or ''"]),
        ({"features_only": True, "out_indices": (3,)}, ValueError, ["2 levels of features; indices=(3,) is not"]),
    ],
)
def test_what_is_not_allowed_is_one_clear_line(arguments, kind, parts):
    with pytest.raises(kind) as error:
        timm.create_model("swin_micro", **arguments)
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


def test_there_are_no_weights_to_download():
    with pytest.raises(RuntimeError, match="No pretrained weights exist for swin_micro"):
        timm.create_model("swin_micro", pretrained=True)


@pytest.mark.parametrize("attention", attentions.names())
@pytest.mark.parametrize("name", MICROS)
def test_every_attention_trains(name, attention):
    try:
        model = timm.create_model(name, attention=attention)
    except ValueError as refusal:
        pytest.skip(str(refusal))
    _, gradients = one_batch(model, images())
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("name", MICROS)
def test_features_and_head_are_the_two_halves_of_the_model(name):
    model = timm.create_model(name).eval()
    x = images()
    features = model.forward_features(x)
    pooled = model.forward_head(features, pre_logits=True)
    assert pooled.shape == (2, model.head_hidden_size) == (2, model.num_features)
    assert torch.equal(model.get_classifier()(pooled), model(x))
    assert torch.equal(model.forward_head(features), model(x))
    if name == "deit_micro":
        assert features.shape == (2, 1 + 8 * 8, 64)
        assert torch.equal(pooled, features[:, 0])
    else:
        assert features.shape == (2, *model.levels[-1].grid[:2], model.num_features)
        assert torch.allclose(pooled, features.mean(dim=(1, 2)), atol=1e-6)


@pytest.mark.parametrize("name", MICROS)
def test_the_classifier_can_be_changed_and_taken_away(name):
    model = timm.create_model(name).eval()
    x = images()
    pooled = model.forward_head(model.forward_features(x), pre_logits=True)
    model.reset_classifier(5)
    assert model(x).shape == (2, 5)
    assert not model.head.training
    assert model.head.bias.abs().max() == 0
    model.reset_classifier(0)
    assert isinstance(model.get_classifier(), nn.Identity)
    assert torch.equal(model(x), pooled)
    model.reset_classifier(0, "")
    assert torch.equal(model(x), model.forward_features(x))
    without = timm.create_model(name, num_classes=0, global_pool="").eval()
    assert without.num_classes == 0
    assert without(x).shape == model(x).shape
    model.double().reset_classifier(3, "avg")
    assert model(x.double()).dtype == torch.float64


@pytest.mark.parametrize(("name", "arguments"), [("deit_micro", {}), ("pvt_micro", {"class_token": True})])
def test_a_model_with_a_class_token_can_pool_the_map_instead(name, arguments):
    model = timm.create_model(name, **arguments).eval()
    assert model.global_pool == "token"
    features = model.forward_features(images())
    model.reset_classifier(0, "avg")
    assert torch.equal(model.forward_head(features), features[:, 1:].mean(dim=1))
    model.reset_classifier(0, "token")
    assert torch.equal(model.forward_head(features), features[:, 0])


@pytest.mark.parametrize(
    ("name", "arguments"),
    [*((name, {}) for name in MICROS), ("pvt_micro", {"class_token": True}), ("swin_micro", {"attention": "focused"})],
)
def test_maps_of_the_levels(name, arguments):
    """Read features of all levels and of some, pruned or not; each is the output of its level."""
    model = timm.create_model(name, img_size=(32, 64), **arguments).eval()
    x = images(32, 64)
    info = FeatureInfo(model.feature_info, tuple(range(len(model.levels))))
    final, maps = model.forward_intermediates(x)
    assert torch.equal(final, model.forward_features(x))
    for features, channels, reduction in zip(maps, info.channels(), info.reduction(), strict=True):
        assert features.shape == (2, channels, 32 // reduction, 64 // reduction)
    assert all(dict(model.named_modules())[module] for module in info.module_name())
    (normed,) = model.forward_intermediates(x, indices=1, norm=True, intermediates_only=True)
    if model.output_fmt == "NHWC":
        assert torch.equal(normed, final.permute(0, 3, 1, 2))
    for wanted in ((0,), (-1,), (0, 1)):
        getter = timm.create_model(name, img_size=(32, 64), features_only=True, out_indices=wanted, **arguments).eval()
        getter.model.load_state_dict(model.state_dict(), strict=False)
        for got, index in zip(getter(x), wanted, strict=True):
            assert torch.equal(got, maps[index])


@pytest.mark.parametrize("name", MICROS)
def test_a_feature_extractor_has_no_parameter_that_it_does_not_use(name):
    for index in (0, 1):
        model = timm.create_model(name, features_only=True, out_indices=(index,))
        sum(features.sum() for features in model(images())).backward()
        assert not [n for n, p in model.named_parameters() if p.grad is None and p.requires_grad]
        whole = timm.create_model(name)
        whole.prune_intermediate_layers([index])
        whole.reset_classifier(4, "avg")
        assert whole(images()).shape == (2, 4)


@pytest.mark.parametrize("name", ["deit_micro", "pvt_micro", "pvt_v2_micro", "swin_micro", "cswin_micro"])
def test_images_of_another_size_are_refused_in_one_line(name):
    model = timm.create_model(name)
    height, width = model.spec.image_size
    said = f"{name} was built for images of {height}x{width}; other sizes need another image_size"
    for size in ((2 * height, width), (height, 2 * width)):
        for call in (model, model.forward_intermediates):
            with pytest.raises(AssertionError, match=said):
                call(torch.zeros(1, 3, *size))


def test_an_early_stop_computes_no_further():
    model = timm.create_model("swin_micro").eval()
    seen = []
    model.layers[1].blocks[0].register_forward_hook(lambda *_: seen.append(1))
    tokens, maps = model.forward_intermediates(images(), indices=[0], stop_early=True)
    assert not seen
    assert torch.equal(tokens, maps[0].flatten(2).transpose(1, 2))
    with pytest.raises(ValueError, match="output_fmt='NLC' is not allowed"):
        model.forward_intermediates(images(), output_fmt="NLC")


@pytest.mark.parametrize("name", MICROS)
def test_checkpointed_blocks_run_twice_keep_less_and_learn_the_same(name):
    model = timm.create_model(name, attention="focused", drop_path_rate=0.3)
    x = images(count=4)
    block = next(m for m in model.modules() if hasattr(m, "drop_path"))
    calls: list[int] = []
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    block.norm1.register_forward_hook(lambda *_: calls.append(1))

    def batch() -> tuple[Tensor, list[Tensor], int, int]:
        calls.clear()
        kept.clear()
        torch.manual_seed(3)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            logits, gradients = one_batch(model, x)
        return logits, [gradient.clone() for gradient in gradients], len(calls), sum(kept)

    logits, gradients, once, much = batch()
    model.set_grad_checkpointing()
    logits_again, gradients_again, twice, little = batch()
    model.set_grad_checkpointing(False)
    assert (once, twice) == (1, 2)
    assert little < much / 4
    assert torch.equal(logits, logits_again)
    assert all(map(torch.equal, gradients, gradients_again))
    assert batch()[2] == 1


@pytest.mark.parametrize("name", MICROS)
def test_timms_optimizers_find_what_they_ask_for(name):
    model = timm.create_model(name)
    names = [parameter for parameter, _ in model.named_parameters()]
    for pattern in model.no_weight_decay():
        assert fnmatch.filter(names, pattern) or getattr(model, pattern) is None
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.5)
    scales = {group["lr_scale"] for group in optimizer.param_groups}
    assert len(scales) == sum(model.spec.depths) + 2
    decayed = [p for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]]
    undecayed = {id(model.get_parameter(parameter)) for parameter in model.no_weight_decay() if parameter in names}
    assert decayed
    assert not undecayed & set(map(id, decayed))


@pytest.mark.parametrize("name", ["pvt_micro", "swin_micro"])
def test_it_compiles_whole_and_is_on_the_device_and_of_the_type_that_is_asked_for(name):
    model = timm.create_model(name, attention="focused").eval()
    x = images()
    with torch.no_grad():
        assert torch.allclose(torch.compile(model, backend="aot_eager", fullgraph=True)(x), model(x), atol=1e-5)
    placed = timm.create_model(name, device="meta", dtype=torch.bfloat16)
    assert {parameter.device.type for parameter in placed.parameters()} == {"meta"}
    assert {parameter.dtype for parameter in placed.parameters()} == {torch.bfloat16}


def test_weights_of_a_file_are_read_and_the_classifier_left_out_where_classes_differ(tmp_path):
    source: Any = backbones.build(backbones.preset("swin_micro"))
    torch.save(backbones.to_official(source.state_dict(), source.spec), tmp_path / "official.pth")
    overlay = {"file": str(tmp_path / "official.pth")}
    same = timm.create_model("swin_micro", pretrained=True, pretrained_cfg_overlay=overlay)
    assert torch.equal(same(images(count=1) * 0), source(images(count=1) * 0))
    other = timm.create_model("swin_micro", pretrained=True, pretrained_cfg_overlay=overlay, num_classes=3, in_chans=1)
    assert other(torch.zeros(1, 1, 32, 32)).shape == (1, 3)
    assert torch.equal(other.norm.weight, source.norm.weight)


def test_timms_own_tests_pass(tmp_path):
    """Run the tests of models from timm's source distribution on ours."""
    fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "timm"]
    fetched = subprocess.run([*fetch, f"timm=={timm.__version__}", "-d", tmp_path], capture_output=True, timeout=120)
    if fetched.returncode:
        pytest.skip(f"timm's tests need its source distribution, which pip cannot fetch here ({timm.__version__})")
    (archive,) = tmp_path.glob("timm-*.tar.gz")
    with tarfile.open(archive) as files:
        tests = files.extractfile(f"{archive.name.removesuffix('.tar.gz')}/tests/test_models.py")
        assert tests is not None
        text = tests.read()
    (tmp_path / "test_models.py").write_bytes(text)
    left_out = (
        # Three levels at least are wanted, micro models have two.
        *(
            f"test_model_forward_{what}[1-{name}]"
            for what in ("features", "intermediates")
            for name in MICROS
            if name != "deit_micro"
        ),
        # A norm that is never called, as in the official code, gets no gradient.
        "test_model_backward[2-pvt_micro]",
        "test_model_backward_fx[2-pvt_micro]",
        # What the smaller models have shown.
        *(f"test_model_{what}[2-{name}]" for what in ("backward", "backward_fx") for name in LARGER),
        *(f"test_model_forward_fx[1-{name}]" for name in LARGER),
        *(f"test_prune_intermediate_layers_contract[{name}]" for name in LARGER),
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.backbones.only_ours", "-p", "no:cacheprovider"]
    deselected = [f"--deselect=test_models.py::{test}" for test in left_out]
    names = " or ".join(["micro", *LARGER] if NIGHTLY else ["deit_micro", "swin_micro"])
    # Our modules are not written in the subset of Python that TorchScript supports.
    command += ["-W", "ignore", "-k", f"({names}) and not torchscript", *deselected]
    done = subprocess.run(
        [*command, "--rootdir", tmp_path, tmp_path / "test_models.py"],
        cwd=ROOT, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > (40 if NIGHTLY else 15)

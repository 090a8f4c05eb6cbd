"""Weights from files: every wrapper, damaged, hostile and unfitting files, other resolutions, own runs."""

import argparse
import re
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import backbones
from harness.cells import MICRO, DataSource, Train
from harness.cells.recipe import LR_BATCH
from harness.training import checkpoints, loading
from harness.training.loading import load_weights, weights_in
from harness.training.loop import train
from tests.harness.image_sets import coloured
from tests.harness.weight_files import AVERAGE, RAW, deit, filled, follow, loaded, official, refusal, same, saved

# What files wrap their tensors in


@pytest.mark.parametrize("wrapper", ["model", "state_dict", "module", "net", "model_state_dict", "best_weights", None])
@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "module.",
        "_orig_mod.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "model.",
        "backbone.",
        "encoder.vit.",
        "f.",
    ],
)
def test_weights_are_found_in_every_wrapper(tmp_path: Path, wrapper: str | None, prefix: str) -> None:
    state = official(RAW, prefix)
    content = state if wrapper is None else {wrapper: OrderedDict(state), "epoch": 299, "optimizer": {"state": {}}}
    path = saved(tmp_path / "file.pth", content)
    assert same(loaded(path), RAW)
    assert "has no moving average of weights" in refusal(path, ema=True)


@pytest.mark.parametrize("wrapper", ["ema", "model_ema", "state_dict_ema", "ema_state_dict"])
@pytest.mark.parametrize("raw", ["model", "state_dict"])
def test_the_average_is_taken_if_asked_for(tmp_path: Path, raw: str, wrapper: str) -> None:
    path = saved(tmp_path / "both.pth", {wrapper: official(AVERAGE), raw: official(RAW)})
    assert same(loaded(path), RAW)
    assert same(loaded(path, ema=True), AVERAGE)
    path = saved(tmp_path / "average.pth", {wrapper: official(AVERAGE, "module.")})
    assert same(loaded(path, ema=True), AVERAGE)
    assert refusal(path) == f"FILE has weights as a moving average only ({wrapper}): pass --ema"


def test_what_compilers_and_shards_put_into_names(tmp_path: Path) -> None:
    state = {
        re.sub(r"^blocks\.(\d)\.", r"blocks.\1._checkpoint_wrapped_module._orig_mod.", name): value
        for name, value in official(RAW, "module._fsdp_wrapped_module.").items()
    }
    assert same(loaded(saved(tmp_path / "file.pth", {"state_dict": state})), RAW)


def test_what_lies_outside_the_model_is_left_there(tmp_path: Path) -> None:
    """Lightning keeps metrics and losses beside the model; torch's average counts itself; others nest their entries."""
    beside = {"criterion.weight": torch.ones(3), "n_averaged": torch.tensor(3)}
    for prefix in ("model.", "module."):
        path = saved(tmp_path / "file.pth", {"state_dict": beside | official(RAW, prefix), "epoch": 3})
        assert same(loaded(path), RAW)
    nested = {"checkpoint": {"weights": official(RAW), "rng": {"cpu": torch.get_rng_state()}}, "scores": torch.ones(3)}
    assert same(loaded(saved(tmp_path / "nested.pth", nested)), RAW)


@pytest.mark.parametrize(
    ("raw", "average"), [("model.", "ema_model.module."), ("net.", "ema."), ("model.", "swa_model.")]
)
def test_an_average_beside_the_model_under_one_wrapper(tmp_path: Path, raw: str, average: str) -> None:
    path = saved(tmp_path / "file.ckpt", {"state_dict": official(RAW, raw) | official(AVERAGE, average)})
    assert same(loaded(path), RAW)
    assert same(loaded(path, ema=True), AVERAGE)


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ({"student": official(RAW), "teacher": official(AVERAGE)}, "student, teacher"),
        ({"student": official(RAW, "module.backbone."), "teacher": official(AVERAGE, "backbone.")},
         "student.backbone, teacher.backbone"),
        ({"model": official(RAW, "student.backbone.") | official(AVERAGE, "teacher.backbone.")},
         "model.student.backbone, model.teacher.backbone"),
        (official(RAW, "student.") | official(AVERAGE, "teacher."), "student, teacher"),
    ],
)  # fmt: skip
def test_student_and_teacher_are_for_the_user_to_choose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: dict, names: str
) -> None:
    monkeypatch.chdir(tmp_path)
    message = refusal(saved(Path("both.pth"), content | {"args": argparse.Namespace(out=Path("/out"))}))
    assert f"has the weights of several models ({names}): save one of them alone, as in: " in message
    follow(message.replace("FILE", "both.pth"))
    assert same(loaded(Path("tensors.pth")), RAW)


@pytest.mark.parametrize("name", ["deit_micro", "pvt_micro", "pvt_v2_micro", "swin_micro", "cswin_micro"])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_prefix_is_found_in_each_family(tmp_path: Path, name: str, suffix: str) -> None:
    spec = backbones.preset(name)
    state = filled(spec, 1)
    theirs = {f"model.backbone.{key}": value.contiguous() for key, value in backbones.to_official(state, spec).items()}
    path = tmp_path / f"file.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(theirs, path)
    assert same(loaded(path, spec), state)


def test_a_file_before_torch_1_6(tmp_path: Path) -> None:
    old = saved(tmp_path / "old.pth", {"model": official(RAW)}, _use_new_zipfile_serialization=False)
    assert same(loaded(old), RAW)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot read the weights .*none\.pth: No such file or directory"):
        weights_in(tmp_path / "none.pth")
    (tmp_path / "checkpoint-1.pt").touch()
    with pytest.raises(ValueError, match=r"has no checkpoint of a run \(checkpoint-<updates>\.pt\)"):
        weights_in(tmp_path)


def test_a_file_that_was_replaced_since_it_was_named(tmp_path: Path) -> None:
    named = weights_in(saved(tmp_path / "best.pt", {"model": official(RAW)}))
    saved(tmp_path / "best.pt", {"model": official(AVERAGE)})
    with pytest.raises(ValueError, match=r"best\.pt has changed since it was named"):
        load_weights(named, backbones.build(deit()), deit())


# Files of another model


def altered() -> dict[str, Tensor]:
    state = official(RAW)
    del state["head.bias"], state["norm.weight"]
    return state | {"head_dist.weight": torch.zeros(3, 16), "head.weight": torch.zeros(1000, 16)}


def test_what_does_not_fit_is_refused_by_name(tmp_path: Path) -> None:
    message = refusal(saved(tmp_path / "other.pth", {"model": altered()}))
    assert "2 missing (norm.weight, head.bias); 1 unexpected (head_dist.weight); 1 of another shape" in message
    assert "head.weight (1000, 16) for (3, 16)" in message
    assert "--allow-partial-weights" in message


def test_a_head_of_other_classes_is_told_with_both_ways_out(tmp_path: Path) -> None:
    other = deit(num_classes=21)
    state = filled(other, 1)
    path = saved(tmp_path / "other.pth", {"model": backbones.to_official(state, other)})
    assert "head.weight (21, 16) for (3, 16), head.bias (21,) for (3,)); --set num_classes=21 takes its head; " in (
        refusal(path)
    )
    assert same(loaded(path, other), state)


def test_the_distilled_deit_is_called_by_its_name(tmp_path: Path) -> None:
    spec = backbones.preset("deit_micro", num_classes=3)
    theirs = timm.create_model(
        "deit_tiny_distilled_patch16_224", img_size=32, patch_size=4, embed_dim=48, depth=2, num_heads=2, num_classes=3
    ).state_dict()
    path = saved(tmp_path / "distilled.pth", {"model": theirs})
    message = refusal(path, spec=spec)
    assert message == (
        "FILE does not fit deit_micro: these are the weights of a distilled DeiT (dist_token, head_dist), but "
        "deit_micro has no distillation token; take those of the DeiT trained without"
    )


def test_what_fits_is_taken_if_allowed(tmp_path: Path) -> None:
    path = saved(tmp_path / "other.pth", {"model": altered()})
    model = backbones.build(deit())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = load_weights(weights_in(path, strict=False), model, deit())
    assert report.missing == ["norm.weight", "head.bias"]
    assert report.unexpected == ["head_dist.weight"]
    assert report.reshaped == ["head.weight (1000, 16) for (3, 16)"]
    for name, value in model.state_dict().items():
        left = name in ("norm.weight", "head.bias", "head.weight")
        assert torch.equal(value, before[name] if left else RAW[name]), name


def test_a_strict_report_is_empty(tmp_path: Path) -> None:
    report = load_weights(weights_in(saved(tmp_path / "own.pth", RAW)), backbones.build(deit()), deit())
    assert not any(report)
    assert str(report) == "every tensor fits"


@pytest.mark.parametrize(
    "table", [torch.zeros(1, 17, 24), torch.zeros(1, 12, 16), torch.zeros(7)], ids=lambda t: str(t.shape)
)
def test_a_position_table_that_cannot_be_resized(tmp_path: Path, table: Tensor) -> None:
    path = saved(tmp_path / "other.pth", {"model": official(RAW) | {"pos_embed": table}})
    assert refusal(path).startswith("FILE does not fit deit_micro: cannot resize pos_embed from ")
    model = backbones.build(deit())
    report = load_weights(weights_in(path, strict=False), model, deit())
    assert report.reshaped == [f"pos_embed {tuple(table.shape)} for {tuple(RAW['pos_embed'].shape)}"]
    assert torch.equal(model.state_dict()["head.weight"], RAW["head.weight"])


def test_a_file_of_which_nothing_fits_is_refused_even_so(tmp_path: Path) -> None:
    path = saved(tmp_path / "other.pth", {"model": {"layer.weight": torch.zeros(3)}})
    assert "none of its tensors does" in refusal(path, strict=False)


# What a file is called


def test_a_file_is_known_by_its_content(tmp_path: Path) -> None:
    one = weights_in(saved(tmp_path / "one.pth", {"model": official(RAW)}))
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy/two.pth").write_bytes((tmp_path / "one.pth").read_bytes())
    other = weights_in(tmp_path / "copy/two.pth")
    assert one == other
    assert (one.name, other.name) == ("one.pth", "two.pth")
    assert one != weights_in(saved(tmp_path / "three.pth", {"model": official(AVERAGE)}))
    assert one != weights_in(tmp_path / "one.pth", ema=True)
    assert one != weights_in(tmp_path / "one.pth", strict=False)


# Other resolutions


@pytest.mark.parametrize(
    ("preset", "attention", "before", "after", "tables"),
    [
        ("swin_micro", "softmax", {"window": 7}, {"window": 12}, "relative_position_bias_table"),
        ("swin_micro", "focused", {"window": 56}, {"window": 96}, "positional_encoding"),
        ("pvt_micro", "focused", {}, {}, "positional_encoding"),
        ("pvt_micro", "softmax", {}, {}, "pos_embed"),
        ("deit_micro", "softmax", {}, {}, "pos_embed"),
        ("deit_micro", "focused", {}, {}, "positional_encoding"),
    ],
)
def test_weights_for_224_pixels_in_a_model_for_384(
    tmp_path: Path, preset: str, attention: str, before: dict, after: dict, tables: str
) -> None:
    small, large = (
        backbones.preset(preset, attention=attention, image_size=size, **values)
        for size, values in ((224, before), (384, after))
    )
    state = filled(small, 3)
    path = saved(tmp_path / "224.pth", {"model": backbones.to_official(state, small)})
    found = loaded(path, large)
    wanted = backbones.from_official(backbones.to_official(state, small), large)
    assert same(found, {name: wanted[name] for name in found})
    resized = {name for name in found if found[name].shape != state[name].shape}
    assert any(tables in name for name in resized)
    assert all(torch.equal(found[name], state[name]) for name in found.keys() - resized)
    assert same(loaded(saved(tmp_path / "own.pth", state), large), found), "under our names as well"


# Our own runs


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two epochs, with a moving average."""
    root = coloured(tmp_path_factory.mktemp("own"), train=4, val=4)
    recipe = replace(MICRO, epochs=2, batch=4, warmup_epochs=0.5, lr=2e-3 * LR_BATCH / 4, ema_decay=0.9)
    train(Train(recipe, DataSource.folder(root)), deit(), root / "run", lambda line: None)
    return root / "run"


@pytest.mark.parametrize("ema", [False, True])
@pytest.mark.parametrize("name", ["checkpoint-00000003.pt", "checkpoint-00000006.pt", "best.pt"])
def test_a_checkpoint_of_a_run(run: Path, name: str, ema: bool) -> None:
    model, own = backbones.build(deit()), backbones.build(deit())
    load_weights(weights_in(run / name, ema=ema), model, deit())
    own.load_state_dict(torch.load(run / name, weights_only=True)["ema" if ema else "model"])
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(model.eval()(images), own.eval()(images))
    assert not torch.equal(model(images), nn.Module.eval(backbones.build(deit()))(images))


def test_raw_and_average_of_a_run_differ(run: Path) -> None:
    assert not same(loaded(run), loaded(run, ema=True))


def test_a_run_folder_means_its_newest_checkpoint(run: Path) -> None:
    assert weights_in(run) == weights_in(run / "checkpoint-00000006.pt") != weights_in(run / "checkpoint-00000003.pt")
    assert checkpoints.all_of(run)[0].name == "checkpoint-00000006.pt"


def test_a_checkpoint_says_what_it_is_of(run: Path, tmp_path: Path) -> None:
    about = loading.read_about(weights_in(run))
    assert about is not None
    assert backbones.from_json(about["backbone"]) == deit()
    assert about["task"]["recipe"]["batch"] == 4
    assert loading.read_about(weights_in(saved(tmp_path / "official.pth", {"model": official(RAW)}))) is None

"""Weights from files: every wrapper, damaged, hostile and unfitting files, other resolutions, own runs."""

import argparse
import io
import os
import pickle
import sys
import types
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch import _weights_only_unpickler as unpickler

import backbones
from harness.cells import MICRO, DataSource, Train
from harness.cells.recipe import LR_BATCH
from harness.training import checkpoints, loading
from harness.training.loading import load_weights, weights_in
from harness.training.loop import train
from tests.harness.image_sets import coloured


def deit(**changes: Any) -> backbones.BackboneSpec:
    size: dict[str, Any] = {"dim": 16, "depth": 2, "heads": 2, "image_size": (16, 16), "num_classes": 3}
    return replace(backbones.preset("deit_micro", attention="focused"), **(size | changes))


def filled(spec: backbones.BackboneSpec, seed: int) -> dict[str, Tensor]:
    """Another number in every place, so that nothing can be taken for something else."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(value.shape, generator=generator)
        for name, value in backbones.build(spec).state_dict().items()
    }


RAW, AVERAGE = filled(deit(), 1), filled(deit(), 2)


def official(state: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    return {prefix + name: value for name, value in backbones.to_official(state, deit()).items()}


def saved(path: Path, content: object, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def loaded(path: Path, spec: backbones.BackboneSpec | None = None, **options: bool) -> dict[str, Tensor]:
    model = backbones.build(spec or deit())
    load_weights(weights_in(path, **options), model, spec or deit())
    return model.state_dict()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(ValueError) as error:
        loaded(path, **options)
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    return message.replace(str(path), "FILE")


# What files wrap their tensors in


@pytest.mark.parametrize("wrapper", ["model", "state_dict", "module", "net", None])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
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


def test_a_file_before_torch_1_6(tmp_path: Path) -> None:
    old = saved(tmp_path / "old.pth", {"model": official(RAW)}, _use_new_zipfile_serialization=False)
    assert same(loaded(old), RAW)


# What lies beside the tensors


def config_node() -> type:
    """yacs's class as far as files show it: dictionaries in dictionaries, with attributes of their own."""

    class CfgNode(dict):
        def __init__(self, values: dict[str, Any]) -> None:
            super().__init__({k: CfgNode(v) if isinstance(v, dict) else v for k, v in values.items()})
            self.__dict__ |= {"__immutable__": False, "__deprecated_keys__": set(), "__renamed_keys__": {}}

    CfgNode.__module__, CfgNode.__qualname__ = "yacs.config", "CfgNode"
    return CfgNode


def test_the_configuration_of_official_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    yacs, config = types.ModuleType("yacs"), types.ModuleType("yacs.config")
    config.CfgNode = config_node()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "yacs", yacs)
    monkeypatch.setitem(sys.modules, "yacs.config", config)
    node = config.CfgNode({"DATA": {"IMG_SIZE": 224}, "MODEL": {"NAME": "swin", "SWIN": {"DEPTHS": [2, 2]}}})
    path = saved(tmp_path / "swin.pth", {"model": official(RAW), "config": node})
    monkeypatch.undo()
    assert same(loaded(path), RAW)
    assert loading.read_file(path)["config"]["MODEL"]["SWIN"]["DEPTHS"] == [2, 2]


def test_the_real_configuration_class(tmp_path: Path) -> None:
    config = pytest.importorskip("yacs.config", reason="needs the package yacs")
    path = saved(tmp_path / "swin.pth", {"model": official(RAW), "config": config.CfgNode({"A": {"B": (1, 2)}})})
    assert same(loaded(path), RAW)


def test_the_arguments_of_official_files(tmp_path: Path) -> None:
    arguments = argparse.Namespace(lr=1e-3, model="deit", betas=None)
    path = saved(tmp_path / "deit.pth", {"model": official(RAW), "args": arguments})
    assert same(loaded(path), RAW)
    assert loading.read_file(path)["args"].model == "deit"


@pytest.mark.parametrize("value", [np.float64(81.25), np.float32(0.5), np.int64(-299), np.bool_(True)], ids=repr)
def test_numbers_of_numpy(tmp_path: Path, value: np.generic) -> None:
    path = saved(tmp_path / "file.pth", {"model": official(RAW), "max_accuracy": value})
    assert loading.read_file(path)["max_accuracy"] == value
    # as NumPy 1 named its module
    content = pickle.dumps({"max_accuracy": value}, protocol=2).replace(b"cnumpy._core.multi", b"cnumpy.core.multi")
    assert _through_torch(content)["max_accuracy"] == value


def test_other_scalars_of_numpy_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "file.pth", {"model": official(RAW), "when": np.datetime64("2026-01-01")})
    assert "cannot read the weights FILE" in refusal(path)


def _through_torch(content: bytes) -> Any:
    """A pickle, read as torch reads one within a file."""
    with torch.serialization.safe_globals(loading.SAFE):
        return unpickler.load(io.BytesIO(content), encoding="utf-8")


class Hostile:
    def __init__(self, function: Callable, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(("function", "named"), [(os.system, "posix.system"), (eval, "eval"), (exec, "exec")])
def test_a_file_that_would_run_code_is_refused(tmp_path: Path, function: Callable, named: str) -> None:
    trace = tmp_path / "trace"
    text = f"touch {trace}" if function is os.system else f"open({str(trace)!r}, 'w')"
    content = {"model": official(RAW), "args": Hostile(function, text)}
    for name, zipped in (("new.pth", True), ("old.pth", False)):
        path = saved(tmp_path / name, content, _use_new_zipfile_serialization=zipped)
        message = refusal(path)
        assert message == f"cannot read the weights FILE: it contains more than tensors and plain values ({named})"
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists(), "the file is as hostile as it should be"


def test_what_is_allowed_in_a_file_is_not_allowed_elsewhere(tmp_path: Path) -> None:
    path = saved(tmp_path / "deit.pth", {"model": official(RAW), "args": argparse.Namespace(lr=1)})
    loading.read_file(path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)


# Files that cannot be read


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.7, 0.999])
def test_a_torn_file(tmp_path: Path, share: float, zipped: bool) -> None:
    path = saved(tmp_path / "torn.pth", {"model": official(RAW)}, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert refusal(path).startswith("cannot read the weights FILE: damaged, or not a file of torch.save")


def test_a_damaged_file(tmp_path: Path) -> None:
    path = saved(tmp_path / "damaged.pth", {"model": official(RAW)})
    damage(path, RAW["head.weight"])
    assert "does not match" in refusal(path)


def damage(path: Path, tensor: Tensor) -> None:
    """Flips a bit of one number in a file."""
    content = bytearray(path.read_bytes())
    content[content.index(tensor.numpy().tobytes()) + 5] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("text", ["", "a text\nof two lines\n", "\x80\x04." * 10, "PK\x03\x04 no zip"])
def test_a_text_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "text.pth"
    path.write_text(text)
    assert refusal(path).startswith("cannot read the weights FILE: ")


@pytest.mark.parametrize("content", [3, [torch.zeros(1)], None, torch.zeros(3)], ids=repr)
def test_a_file_of_something_else(tmp_path: Path, content: object) -> None:
    held = type(content).__name__
    message = refusal(saved(tmp_path / "other.pth", content))
    assert message == f"cannot read the weights FILE: it is a {held} and no tensors by name"


def test_a_file_without_tensors(tmp_path: Path) -> None:
    path = saved(tmp_path / "other.pth", {"epoch": 3, "args": {"lr": 1}, "model": {}})
    assert refusal(path) == "FILE has no tensors by name; at the top: epoch, args, model"


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

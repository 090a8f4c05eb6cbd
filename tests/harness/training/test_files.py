"""What a file contains: values beside the tensors, damaged and hostile files."""

import argparse
import array
import collections
import datetime
import decimal
import fractions
import io
import os
import pathlib
import pickle
import random
import re
import sys
import types
import uuid
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch import _weights_only_unpickler as unpickler

from harness.training import files
from tests.harness.weight_files import RAW, follow, loaded, official, refusal, same, saved

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
    assert files.read_file(path)["config"]["MODEL"]["SWIN"]["DEPTHS"] == [2, 2]


def test_the_real_configuration_class(tmp_path: Path) -> None:
    config = pytest.importorskip("yacs.config", reason="needs the package yacs")
    path = saved(tmp_path / "swin.pth", {"model": official(RAW), "config": config.CfgNode({"A": {"B": (1, 2)}})})
    assert same(loaded(path), RAW)


def test_the_arguments_of_official_files(tmp_path: Path) -> None:
    arguments = argparse.Namespace(lr=1e-3, model="deit", betas=None)
    path = saved(tmp_path / "deit.pth", {"model": official(RAW), "args": arguments})
    assert same(loaded(path), RAW)
    assert files.read_file(path)["args"].model == "deit"


@pytest.mark.parametrize("value", [np.float64(81.25), np.float32(0.5), np.int64(-299), np.bool_(True)], ids=repr)
def test_numbers_of_numpy(tmp_path: Path, value: np.generic) -> None:
    path = saved(tmp_path / "file.pth", {"model": official(RAW), "max_accuracy": value})
    assert files.read_file(path)["max_accuracy"] == value
    # as NumPy 1 named its module
    content = pickle.dumps({"max_accuracy": value}, protocol=2).replace(b"cnumpy._core.multi", b"cnumpy.core.multi")
    assert _through_torch(content)["max_accuracy"] == value


def plain_values() -> dict[str, object]:
    """What people keep beside their tensors, by what it is."""
    generator = np.random.default_rng(1)
    history = collections.defaultdict(list, loss=[1.0, np.float32(0.5)], seen=collections.deque([1, 2], maxlen=3))
    return {
        "path": argparse.Namespace(out=pathlib.PosixPath("/out"), data=pathlib.PureWindowsPath("C:/data")),
        "array": np.array([81.2, 79.5]),
        "array of texts": np.array(["a", "b"]),
        "array of objects": np.array([{"a": 1}, None], dtype=object),
        "dates of numpy": [np.datetime64("2026-01-01"), np.array(["2026-01-01"], dtype="datetime64[D]")],
        "text of numpy": np.str_("best"),
        "type of numpy": [np.dtype("float32"), np.float32],
        "random states": [random.getstate(), np.random.get_state(), torch.get_rng_state()],
        "more arrays": [array.array("d", [1.0]), np.ma.array([1]), np.zeros(2, dtype=[("a", "f4")])],
        "patterns": re.compile("x"),
        "random generators": [
            torch.Generator(),
            generator,
            generator.bit_generator,
            random.Random(1),
            np.random.RandomState(1),
        ],
        "dictionaries": [history, OrderedDict(a=1), collections.Counter("aab")],
        "dates": [
            datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
            datetime.date(2026, 1, 1),
            pd.Timestamp("2026-01-01"),
            pd.Timedelta(days=1),
            datetime.timedelta(hours=3),
            datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=1))),
        ],
        "numbers": [fractions.Fraction(1, 3), decimal.Decimal("0.1"), 1 + 2j, 2**70, range(3), slice(1, 2)],
        "sets": [{1, 2}, frozenset({3}), b"bytes", bytearray(b"more")],
        "names": [uuid.UUID(int=3), types.SimpleNamespace(lr=0.1, steps=[1])],
        "versions": torch.__version__,
        "settings of torch": [torch.device("cpu"), torch.float32, torch.Size([2, 3])],
    }


@pytest.mark.parametrize("kind", plain_values())
def test_values_beside_the_tensors_do_no_harm(tmp_path: Path, kind: str) -> None:
    content = {"model": official(RAW), "beside": plain_values()[kind], "list": [plain_values()[kind]]}
    for name, zipped in (("new.pth", True), ("old.pth", False)):
        assert same(loaded(saved(tmp_path / name, content, _use_new_zipfile_serialization=zipped)), RAW)


@pytest.mark.parametrize("name", [*files.DICTIONARIES, "omegaconf.dictconfig.DictConfig"])
def test_configurations_of_libraries_that_are_not_here(tmp_path: Path, name: str) -> None:
    module, _, called = name.rpartition(".")
    kind = type(called, (dict if name in files.DICTIONARIES else object,), {})
    kind.__module__ = module
    value = kind()
    value.__dict__["own"] = 1
    if isinstance(value, dict):
        value["lr"] = 0.1
    with pytest.MonkeyPatch.context() as patch:
        parts = module.split(".")
        for depth in range(1, len(parts) + 1):
            patch.setitem(sys.modules, ".".join(parts[:depth]), types.ModuleType(parts[depth - 1]))
        setattr(sys.modules[module], called, kind)
        path = saved(tmp_path / "file.pth", {"model": official(RAW), "hyper_parameters": value})
    assert same(loaded(path), RAW)


def test_a_value_beside_the_tensors_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The types in a file are read as names: none of them is called."""
    path = saved(tmp_path / "file.pth", {"model": official(RAW), "args": [np.array([1]), uuid.UUID(int=3)]})
    monkeypatch.setattr(uuid, "UUID", lambda *values: pytest.fail("was called"))
    assert [type(value) for value in files.read_file(path)["args"]] == [files.Unread] * 2


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_another_protocol_of_pickle_says_what_to_do(tmp_path: Path) -> None:
    path = saved(tmp_path / "file.pth", {"model": official(RAW)}, pickle_protocol=4)
    assert "its pickle protocol is not 2; " in refusal(path)
    assert "torch.save(torch.load('FILE', weights_only=False)['model'], 'tensors.pth')" in refusal(path)


class OfTheirs:
    """A type of somebody's own code."""


def test_what_a_refusal_says_makes_a_file_that_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    message = refusal(saved(Path("theirs.pth"), {"model": official(RAW), "args": OfTheirs()}))
    assert "(tests.harness.training.test_files.OfTheirs)" in message
    follow(message.replace("FILE", "theirs.pth"))
    assert same(loaded(Path("tensors.pth")), RAW)


def _through_torch(content: bytes) -> Any:
    """A pickle, read as torch reads one within a file."""
    with torch.serialization.safe_globals(files.SAFE):
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
        assert message == (
            f"cannot read the weights FILE: it contains more than tensors and plain values ({named}); reading that may "
            "run any code, but if you trust whoever made it, save the tensors alone: torch.save(torch.load('FILE', "
            "weights_only=False)['model'], 'tensors.pth'), with the entry that has them, or .state_dict() of a whole "
            "model"
        )
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists(), "the file is as hostile as it should be"


def test_what_is_allowed_in_a_file_is_not_allowed_elsewhere(tmp_path: Path) -> None:
    path = saved(tmp_path / "deit.pth", {"model": official(RAW), "args": argparse.Namespace(lr=1)})
    files.read_file(path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)


# Files that cannot be read


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.7, 0.999])
def test_a_torn_file(tmp_path: Path, share: float, zipped: bool) -> None:
    path = saved(tmp_path / "torn.pth", {"model": official(RAW)}, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    expected = "damaged, or not a file of torch.save" if share else "the file is empty"
    assert refusal(path).startswith(f"cannot read the weights FILE: {expected}")


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


@pytest.mark.parametrize("content", [[official(RAW), 3], ({"epoch": 3}, {"model": official(RAW)}, None)])
def test_tensors_in_a_list(tmp_path: Path, content: object) -> None:
    assert same(loaded(saved(tmp_path / "listed.pth", content)), RAW)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_a_file_is_read_by_its_content_and_not_its_suffix(tmp_path: Path, name: str) -> None:
    save_file({key: value.contiguous() for key, value in official(RAW).items()}, tmp_path / name)
    assert same(loaded(tmp_path / name), RAW)
    assert same(loaded(saved(tmp_path / name, official(RAW))), RAW)


@pytest.mark.filterwarnings("ignore:'torch.load' received a zip file that looks like a TorchScript archive")
@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_an_archive_of_torchscript_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = torch.nn.Module()
    for name, value in official(RAW).items():
        module.register_buffer(name.replace(".", "_"), value)
    torch.jit.save(torch.jit.script(module), "script.pt")
    message = refusal(Path("script.pt"))
    assert "it is an archive of TorchScript" in message
    follow(message.replace("FILE", "script.pt"))
    assert len(torch.load("tensors.pth")) == len(official(RAW))


def test_a_pointer_in_place_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert "it is a pointer of Git LFS in place of the file, which `git lfs pull` fetches" in refusal(path)


def test_whole_numbers_are_no_weights(tmp_path: Path) -> None:
    """Those of a quantised model would be loaded as they are."""
    state = {name: value.to(torch.int8) for name, value in official(RAW).items()}
    assert "holds int8 and no fractions, as in a quantised model" in refusal(saved(tmp_path / "int8.pth", state))


def test_a_file_without_tensors(tmp_path: Path) -> None:
    path = saved(tmp_path / "other.pth", {"epoch": 3, "args": {"lr": 1}, "model": {}})
    assert refusal(path) == "FILE has no tensors by name; at the top: epoch, args, model"

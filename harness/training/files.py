"""What a file of weights contains: read without running any code of the file.

torch reads tensors and plain values with `weights_only`. Files of other projects have more beside their tensors:
arguments, configurations, paths, dates, arrays, states of random generators. None of it is needed here, so an inert
value takes the place of each type that is listed below: neither the file's code nor that of a library runs. A type that
is not listed is refused by its name, since it may be anything.
"""

import argparse
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from harness.training import checkpoints

LOOKED_AT = 64
"""Bytes of a file by which its kind is known."""
LFS_POINTER = b"version https://git-lfs"
NUMBER = re.compile(r"[biuf]\d")


class Unread:
    """Takes the place of a value of which nothing is read; neither its arguments nor its state are looked at."""

    def __new__(cls, *values: object) -> "Unread":
        return object.__new__(cls)

    def __init__(self, *values: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _NumpyType:
    """Replaces numpy.dtype, whose own `__setstate__` is not safe for untrusted files."""

    def __init__(self, code: object, *rest: object) -> None:
        self.code, self.order = str(code), "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = str(state[1])


def _numpy_scalar(kind: object, data: object = b"") -> Any:
    """Return a number; any other scalar of NumPy (a text, a date) is not read."""
    if not (isinstance(kind, _NumpyType) and NUMBER.fullmatch(kind.code) and kind.order in ("<", ">", "|")):
        return Unread()
    if not isinstance(data, bytes):
        raise pickle.UnpicklingError("a number of NumPy without its bytes")
    return np.frombuffer(data, kind.order + kind.code, count=1)[0].item()


# torch fills nothing but lists, and plain and ordered dictionaries: for what is filled item by item, one of these.
def _empty_list(*values: object) -> list[Any]:
    return []


def _empty_dict(*values: object) -> dict[Any, Any]:
    return {}


UNREAD = {
    "array": "array",
    "builtins": "bool bytes dict float frozenset int list object range slice str tuple",
    "datetime": "date datetime time timedelta timezone",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "pathlib": "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath",
    "pathlib._local": "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath",
    "random": "Random",
    "re": "_compile",
    "time": "struct_time",
    "types": "SimpleNamespace",
    "typing": "Any",
    "uuid": "SafeUUID UUID",
    "numpy": (
        "bool bool_ float16 float32 float64 int16 int32 int64 int8 ndarray str_ uint16 uint32 uint64 uint8"
    ),
    "numpy.core.multiarray": "_reconstruct",
    "numpy._core.multiarray": "_reconstruct",
    "numpy._core.numeric": "_frombuffer",
    "numpy.core.numeric": "_frombuffer",
    "numpy.ma": "MaskedArray",
    "numpy.ma.core": "MaskedArray _mareconstruct",
    "numpy.random": "Generator MT19937 PCG64 PCG64DXSM Philox RandomState SFC64",
    "numpy.random._mt19937": "MT19937",
    "numpy.random._pcg64": "PCG64 PCG64DXSM",
    "numpy.random._philox": "Philox",
    "numpy.random._sfc64": "SFC64",
    "numpy.random._pickle": "__bit_generator_ctor __generator_ctor __randomstate_ctor",
    "numpy.random.bit_generator": "SeedSequence __pyx_unpickle_SeedSequence",
    "pandas._libs.tslibs.timedeltas": "_timedelta_unpickle",
    "pandas._libs.tslibs.timestamps": "_unpickle_timestamp",
    "torch._C": "Generator",
    "torch.torch_version": "TorchVersion",
    "packaging.version": "Version",
    "mmengine.logging.history_buffer": "HistoryBuffer",
    "omegaconf.base": "ContainerMetadata Metadata",
    "omegaconf.dictconfig": "DictConfig",
    "omegaconf.listconfig": "ListConfig",
    "omegaconf.nodes": "AnyNode BooleanNode BytesNode EnumNode FloatNode IntegerNode PathNode StringNode",
}  # fmt: skip
"""Types of plain data by their modules, written apart by spaces."""

DICTIONARIES = (
    "addict.addict.Dict",
    "detectron2.config.config.CfgNode",
    "easydict.EasyDict",
    "fvcore.common.config.CfgNode",
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "mmcv.utils.config.ConfigDict",
    "mmengine.config.config.ConfigDict",
    "munch.Munch",
    "yacs.config.CfgNode",
)
"""Configurations that are dictionaries of their own class."""

SAFE: list[Any] = [
    argparse.Namespace,
    *((Unread, f"{module}.{name}") for module, names in UNREAD.items() for name in names.split()),
    *((OrderedDict, name) for name in DICTIONARIES),
    (_empty_dict, "collections.defaultdict"),
    (_empty_list, "collections.deque"),
    (_NumpyType, "numpy.dtype"),
    (_numpy_scalar, "numpy.core.multiarray.scalar"),
    (_numpy_scalar, "numpy._core.multiarray.scalar"),
]
"""What files contain besides tensors, and what it is read as; none of it runs code of the file."""


def read_file(path: str | Path) -> dict[str, Any]:
    """Return what a file contains. Raises ValueError, in one line, if it is damaged or has more than plain values."""
    try:
        with open(path, "rb") as file:
            begin = file.read(LOOKED_AT)
        if begin[8:9] == b"{":  # safetensors, whatever its suffix: the length of a header in JSON, and that header
            return dict(load_file(path))
        if zipfile.is_zipfile(path):  # otherwise it was saved by torch before 1.6, and has no checksums
            checkpoints.verify(path)
        # An open file, as torch.load goes by the suffix as well.
        with torch.serialization.safe_globals(SAFE), open(path, "rb") as file:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except (*checkpoints.UNREADABLE, SafetensorError) as problem:
        raise ValueError(f"cannot read the weights {path}: {_reason(problem, path)}") from problem
    if isinstance(content, list | tuple) and any(isinstance(value, Mapping) for value in content):
        content = {str(index): value for index, value in enumerate(content)}
    if not isinstance(content, Mapping):
        raise ValueError(f"cannot read the weights {path}: it is a {type(content).__name__} and no tensors by name")
    return dict(content)


def _reason(problem: Exception, path: str | Path) -> str:
    """Return why a file cannot be read, and what to do about it if something can be done."""
    text = " ".join(str(problem).split())
    held = text.partition("GLOBAL ")[2].split(" ")[0]
    if "TorchScript" in text:
        return (
            "it is an archive of TorchScript; save its tensors alone: "
            f"torch.save(torch.jit.load({str(path)!r}).state_dict(), 'tensors.pth')"
        )
    newer = "Unsupported operand" in text and zipfile.is_zipfile(path)
    if held or newer:
        why = f"it contains more than tensors and plain values ({held})" if held else "its pickle protocol is not 2"
        return (
            f"{why}; reading that may run any code, but if you trust whoever made it, save the tensors alone: "
            f"torch.save(torch.load({str(path)!r}, weights_only=False)['model'], 'tensors.pth'), "
            "with the entry that has them, or .state_dict() of a whole model"
        )
    if isinstance(problem, OSError) and problem.filename is not None:  # not what seeking in a torn file raises
        return str(problem.strerror)
    with open(path, "rb") as file:
        begin = file.read(LOOKED_AT)
    if begin.startswith(LFS_POINTER):
        return "it is a pointer of Git LFS in place of the file, which `git lfs pull` fetches"
    if not begin:
        return "the file is empty"
    # torch's own text for a file that is no pickle at all is a page about one of its options, or a number.
    said = not text.startswith("Weights only load failed") and not text.isdecimal()
    return f"damaged, or not a file of torch.save{f': {text[:80]}' if said else ''}"

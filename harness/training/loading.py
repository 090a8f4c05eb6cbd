"""Weights from a file: official releases, and checkpoints of our own runs.

    weights = weights_in("flatten_swin_t.pth")
    report = load_weights(weights, model, spec)    # strict: a missing or unexpected tensor is an error that names it

Files of other projects wrap their tensors in many ways: {"model": ...}, {"state_dict_ema": ...}, names with the prefix
`module.` (DistributedDataParallel) or `_orig_mod.` (torch.compile), along with the configuration of the run. They are
read with `weights_only`, which runs no code of the file; safetensors, as timm publishes them, are read as well.
"""

import argparse
import hashlib
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

import results
from backbones import BackboneSpec, from_official
from harness.cells import RunWeights, Weights
from harness.training import checkpoints
from results.wording import and_more

RAW_WRAPPERS = ("model", "state_dict", "module", "net")
EMA_WRAPPERS = ("ema", "model_ema", "state_dict_ema", "ema_state_dict")
PREFIXES = ("module.", "_orig_mod.")
ABOUT = {"backbone", "task"}


NUMBER = re.compile(r"[biuf]\d")


class _NumpyType:
    """Replaces numpy.dtype, whose own `__setstate__` is not safe for untrusted files."""

    def __init__(self, code: str, *rest: object) -> None:
        self.code, self.order = str(code), "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = str(state[1])


def _numpy_scalar(kind: _NumpyType, data: bytes) -> Any:
    if not (isinstance(kind, _NumpyType) and NUMBER.fullmatch(kind.code) and kind.order in ("<", ">", "|")):
        raise pickle.UnpicklingError("a NumPy scalar that is not a number")
    return np.frombuffer(data, kind.order + kind.code, count=1)[0].item()


# torch fills only plain and ordered dictionaries.
SAFE: list[Any] = [
    argparse.Namespace,
    (OrderedDict, "yacs.config.CfgNode"),
    (_NumpyType, "numpy.dtype"),
    (_numpy_scalar, "numpy.core.multiarray.scalar"),
    (_numpy_scalar, "numpy._core.multiarray.scalar"),
]
"""What official files contain besides tensors, and what it is read as; none of it runs code."""


def weights_in(path: str | Path, *, ema: bool = False, strict: bool = True) -> Weights:
    """Return the weights in a file, or in a run folder's newest checkpoint. Raises ValueError if there are none."""
    path = Path(path)
    if path.is_dir():
        found = checkpoints.all_of(path)
        if not found:
            raise ValueError(f"the folder {path} has no checkpoint of a run (checkpoint-<updates>.pt)")
        path = found[0]
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as problem:
        raise ValueError(f"cannot read the weights {path}: {problem.strerror}") from problem
    return Weights(digest=digest, ema=ema, strict=strict, path=str(path.resolve()))


def located(weights: Weights | RunWeights, out: Path) -> Weights:
    """Return the weights in a file; those of a run are below `out`, the folder in which the training is recorded.

    Raises ValueError, in one line that names the training and its state, unless it is recorded as done.
    """
    if isinstance(weights, Weights):
        return weights
    needed = f"needs the training {weights.label} ({weights.run}), which"
    folder = out / weights.run
    if not (out / f"{weights.run}.json").exists():
        begun = "has begun and is not done yet" if checkpoints.all_of(folder) else "is not recorded"
        raise ValueError(f"{needed} {begun} in {out}")
    try:
        record = results.read(out / f"{weights.run}.json")
    except ValueError as problem:
        raise ValueError(f"{needed} has no intact record: {problem}") from problem
    if record.status != "done":
        how = {"failed": "failed", "oom": "ran out of memory"}[record.status]
        raise ValueError(f"{needed} {how}: {record.reason or 'no error was recorded'}")
    found = [folder / checkpoints.BEST] if weights.which == "best" else checkpoints.all_of(folder)[:1]
    if not found or not found[0].exists():
        raise ValueError(f"{needed} is done, but its {weights.which} weights are no longer in {folder}")
    return weights_in(found[0], ema=weights.ema, strict=weights.strict)


class LoadReport(NamedTuple):
    """The names of tensors that did not fit; all lists are empty after a strict load."""

    missing: list[str]  # in the model, not in the file
    unexpected: list[str]  # in the file, not in the model
    reshaped: list[str]  # in both, with different shapes

    def __str__(self) -> str:
        parts = (("missing", self.missing), ("unexpected", self.unexpected), ("of another shape", self.reshaped))
        texts = [f"{len(names)} {label} ({and_more(names)})" for label, names in parts if names]
        return "; ".join(texts) or "every tensor fits"


def load_weights(weights: Weights, model: nn.Module, spec: BackboneSpec) -> LoadReport:
    """Load a file into the model of `spec`; position tables are resized where the resolution differs.

    Raises ValueError, in one line, for a file that cannot be read or has changed since it was named, and if `strict`
    for one that does not fit.
    """
    return load_as(weights, model, spec.name, lambda state: from_official(state, spec, strict=weights.strict))


def load_as(
    weights: Weights, model: nn.Module, name: str, convert: Callable[[dict[str, Tensor]], dict[str, Tensor]]
) -> LoadReport:
    """Load a file into a model, which errors call `name`; `convert` renames the file's tensors to the model's names.

    Raises ValueError as `load_weights` does, and where `convert` does.
    """
    if weights_in(weights.path).digest != weights.digest:
        raise ValueError(f"{weights.path} has changed since it was named: its hash was {weights.digest}")
    content = tensors_in(read_file(weights.path), weights)
    try:
        state = convert(content)
    except ValueError as problem:
        raise ValueError(f"{weights.path} does not fit {name}: {problem}") from problem
    ours = model.state_dict()
    report = LoadReport(
        missing=[key for key in ours if key not in state],
        unexpected=[key for key in state if key not in ours],
        reshaped=[
            f"{key} {tuple(state[key].shape)} for {tuple(value.shape)}"
            for key, value in ours.items()
            if key in state and state[key].shape != value.shape
        ],
    )
    if any(report) and weights.strict:
        raise ValueError(
            f"{weights.path} does not fit {name}: {report}; "
            "--allow-partial-weights loads what fits and leaves the rest as initialised"
        )
    fitting = {key: value for key, value in state.items() if key in ours and value.shape == ours[key].shape}
    if not fitting:
        raise ValueError(f"{weights.path} does not fit {name}: none of its tensors does ({report})")
    model.load_state_dict(ours | fitting)
    return report


def read_file(path: str | Path) -> dict[str, Any]:
    """Return what a file contains. Raises ValueError, in one line, if it is damaged or has more than plain values."""
    try:
        if Path(path).suffix == ".safetensors":
            return dict(load_file(path))
        if zipfile.is_zipfile(path):  # otherwise it was saved by torch before 1.6, and has no checksums
            checkpoints.verify(path)
        with torch.serialization.safe_globals(SAFE):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (*checkpoints.UNREADABLE, SafetensorError) as problem:
        text = " ".join(str(problem).split())
        held = text.partition("GLOBAL ")[2].split(" ")[0]
        if held:
            why = f"it contains more than tensors and plain values ({held})"
        elif isinstance(problem, OSError) and problem.filename is not None:  # not what seeking in a torn file raises
            why = str(problem.strerror)
        else:
            # torch's own text for a file that is no pickle at all is a page about one of its options, or a number.
            said = not text.startswith("Weights only load failed") and not text.isdecimal()
            detail = f": {text[:80]}" if said else ""
            why = f"damaged, or not a file of torch.save{detail}"
        raise ValueError(f"cannot read the weights {path}: {why}") from problem
    if not isinstance(content, Mapping):
        raise ValueError(f"cannot read the weights {path}: it is a {type(content).__name__} and no tensors by name")
    return dict(content)


def read_about(weights: Weights) -> dict[str, Any] | None:
    """Return `backbone` and `task` of a run's checkpoint, as plain JSON; None for other files."""
    content = read_file(weights.path)
    return {name: content[name] for name in ABOUT} if content.keys() >= ABOUT else None


def tensors_in(content: Mapping[str, Any], weights: Weights) -> dict[str, Tensor]:
    """Return the tensors by name, from whatever a file wraps them in, without the prefixes of wrapped modules.

    Raises ValueError where the file does not have the requested kind of weights.
    """
    raw, average = ([name for name in names if _is_state(content.get(name))] for names in (RAW_WRAPPERS, EMA_WRAPPERS))
    if weights.ema and not average:
        raise ValueError(
            f"{weights.path} has no moving average of weights ({', '.join(EMA_WRAPPERS)}): leave out --ema"
        )
    if not weights.ema and not raw and average:
        raise ValueError(f"{weights.path} has weights as a moving average only ({average[0]}): pass --ema")
    wrapper = (average if weights.ema else raw)[:1]
    state = content[wrapper[0]] if wrapper else content
    if not _is_state(state):
        raise ValueError(f"{weights.path} has no tensors by name; at the top: {and_more(list(map(str, content)))}")
    return {_without_prefixes(name): value for name, value in state.items() if isinstance(value, Tensor)}


def _is_state(value: object) -> bool:
    return isinstance(value, Mapping) and any(isinstance(each, Tensor) for each in value.values())


def _without_prefixes(name: str) -> str:
    while name.startswith(PREFIXES):
        name = name.partition(".")[2]
    return name

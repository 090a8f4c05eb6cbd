"""Exports of models and attentions, each made once by a process of its own, and kept in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attentions import AttentionSpec, loaded_files, source_digest
from backbones import BackboneSpec
from harness.process.children import run_module
from harness.process.environment import ROOT
from harness.runtimes import child
from harness.runtimes.formats import INT8, format_named

LIMIT = 600.0
"""Seconds that an export may take."""

ABOUT = "about.json"


class ExportError(ValueError):
    """Something that does not export, or not in time; one line says why."""


@dataclass(frozen=True)
class Exportable:
    """A module in evaluation mode with example inputs, in float32 on the CPU; those that are None stay None.

    `spec` is what it was built from, and `at` where it is mounted, if it is an attention.
    """

    module: nn.Module
    args: tuple[Tensor | None, ...]
    spec: AttentionSpec | BackboneSpec
    kwargs: dict[str, Tensor | None] = field(default_factory=dict)
    at: str = ""


@dataclass(frozen=True)
class Export:
    """An exported graph.

    `about`: its format, exporter, opset and options, the versions of the packages that made it, the seconds that it
    took, and how often the graph has each operator.
    """

    file: Path
    about: dict[str, Any]

    @property
    def files(self) -> list[Path]:
        """The file of the graph, and that of its weights where the format has one."""
        return [each for each in (self.file, self.file.with_suffix(".bin")) if each.exists()]


def exported(subject: Exportable, format: str, *, dynamic: bool = False, limit: float = LIMIT) -> Export:
    """Return the graph of a module, from the cache if the same was exported before.

    The same is: the same spec and place, weights, shapes, format and options, package versions, and code of this
    project and of the attention. `dynamic`: leave the first size of all inputs open.

    Raises:
        ValueError: in one line, for an unknown format or a missing package, and ExportError where the export fails, or
            takes more than `limit` seconds.
    """
    kind = format_named(format)
    about: dict[str, Any] = {
        "format": format,
        "exporter": kind.exporter,
        "opset": kind.opset,
        "options": {"dynamic_batch": dynamic} | ({"sdpa": "math"} if kind.opset else {}),
        "versions": kind.versions(),
    }
    folder = cache_folder() / _key(subject, about)
    if not (folder / ABOUT).is_file():
        _make(subject, about, kind.ending, folder, limit)
    return Export(folder / f"{child.GRAPH}{kind.ending}", json.loads((folder / ABOUT).read_text()))


def quantised(export: Export, images: np.ndarray | None, source: str, *, limit: float = LIMIT) -> Export:
    """Return a graph in int8, made of one in float32, from the cache if the same was made before.

    The key is of its own: that of the graph in float32, with the precision, the options, the versions of packages and
    the images. `images`: batches (K, B, C, H, W) as the graph takes them, for a format that is calibrated on images;
    `source` says what they are.

    Raises:
        ValueError: in one line, for a format that has no int8 or a missing package, and ExportError where it fails, or
            takes more than `limit` seconds.
    """
    kind = format_named(export.about["format"])
    if kind.int8 is None:
        raise ValueError(f"--format {export.about['format']} has no int8; allowed: {', '.join(INT8)}")
    about: dict[str, Any] = export.about | {
        "precision": "int8",
        "quantiser": kind.int8.quantiser,
        "quantisation": kind.int8.options,
        "versions": kind.versions(int8=True),
    }
    if kind.int8.calibrated:
        assert images is not None
        about["calibration"] = {"images": images.shape[0] * images.shape[1], "source": source}
        about["calibration"]["digest"] = hashlib.sha256(images.tobytes()).hexdigest()[:16]
    else:
        images = None
    known = {name: each for name, each in about.items() if name not in ("operators", "seconds")}
    plain = json.dumps([export.file.parent.name, known], sort_keys=True)
    folder = cache_folder() / hashlib.sha256(plain.encode()).hexdigest()[:16]
    if not (folder / ABOUT).is_file():
        _quantise(export.file, images, about, folder, limit)
    return Export(folder / export.file.name, json.loads((folder / ABOUT).read_text()))


def cache_folder() -> Path:
    """Return the folder of exports, which may be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "attention-bench" / "exports"


def _key(subject: Exportable, about: dict[str, Any]) -> str:
    inputs = {**{str(at): x for at, x in enumerate(subject.args)}, **subject.kwargs}
    plain = {
        **about,
        "spec": repr(subject.spec),
        "at": subject.at,
        "module": repr(subject.module),
        "weights": _digest(subject.module),
        "inputs": {name: None if x is None else [str(x.dtype), *x.shape] for name, x in inputs.items()},
        "code": [project_digest(), source_digest(_attention(subject.spec).name)],
    }
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def _attention(spec: AttentionSpec | BackboneSpec) -> AttentionSpec:
    return spec.attention if isinstance(spec, BackboneSpec) else spec


def _digest(module: nn.Module) -> str:
    """Return the hash of all parameters and buffers."""
    found = hashlib.sha256()
    for name, x in sorted([*module.named_parameters(), *module.named_buffers()]):
        found.update(f"{name} {x.dtype} {tuple(x.shape)} ".encode())
        found.update(x.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


@cache
def project_digest() -> str:
    """Return the hash of the code that models, and the graphs of them, are made by."""
    found = hashlib.sha256()
    for room in ("attentions", "backbones", "harness/runtimes"):
        for path in sorted((ROOT / room).glob("*.py")):
            found.update(path.name.encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:16]


def _make(subject: Exportable, about: dict[str, Any], ending: str, folder: Path, limit: float) -> None:
    """Export into a folder, which is there completely or not at all."""

    def prepare(own: Path) -> dict[str, Any]:
        given = {"module": subject.module, "args": subject.args, "kwargs": subject.kwargs}
        torch.save(given, own / child.MODULE)
        return {
            "opset": about["opset"],
            "dynamic": about["options"]["dynamic_batch"],
            "files": [str(path) for path in loaded_files()],
        }

    _make_graph(prepare, about, ending, folder, limit, f"does not export to {about['format']}")


def _quantise(source: Path, images: np.ndarray | None, about: dict[str, Any], folder: Path, limit: float) -> None:
    """Quantise the graph of a file into a folder, which is there completely or not at all."""

    def prepare(own: Path) -> dict[str, Any]:
        if images is not None:
            np.save(own / child.IMAGES, images)
        return {"source": str(source)}

    _make_graph(prepare, about, source.suffix, folder, limit, f"does not become int8 for {about['format']}")


def _make_graph(
    prepare: Callable[[Path], dict[str, Any]],
    about: dict[str, Any],
    ending: str,
    folder: Path,
    limit: float,
    what: str,
) -> None:
    """Have a process of its own write a graph into a folder, which is there completely or not at all.

    `prepare` writes what the process reads, and returns what it must know; `what` begins the line on why it failed.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Its name is another one in the end, and then there is nothing to clean up.
        with tempfile.TemporaryDirectory(
            dir=folder.parent, prefix=f".{folder.name}.", ignore_cleanup_errors=True
        ) as name:
            own = Path(name)
            task = {"format": about["format"], "file": f"{child.GRAPH}{ending}", **prepare(own)}
            (own / child.TASK).write_text(json.dumps(task))
            began = time.perf_counter()
            status = run_module("harness.runtimes.child", [str(own)], own / "log", limit)
            if status:
                raise ExportError(f"{what}: {_why(own, status)}")
            operators = json.loads((own / child.OPERATORS).read_text())
            for given in (child.MODULE, child.IMAGES):
                (own / given).unlink(missing_ok=True)
            found = about | {"seconds": time.perf_counter() - began, "operators": operators}
            (own / ABOUT).write_text(json.dumps(found, indent=2) + "\n")
            # If another process has made the same meanwhile, either will do.
            if not folder.exists():
                os.rename(own, folder)
    except TimeoutError:
        raise ExportError(f"{what}: it was not done within {limit:g} s") from None
    except OSError as problem:
        raise ValueError(f"cannot write the cache of exports {folder.parent}: {problem.strerror}") from problem


def _why(folder: Path, status: int) -> str:
    """Return in one line why the exporting process has failed."""
    if (folder / child.PROBLEM).is_file():
        return (folder / child.PROBLEM).read_text()
    if status < 0:
        return f"the exporting process was ended by {signal.Signals(-status).name}"
    lines = (folder / "log").read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"the exporting process ended with status {status}"

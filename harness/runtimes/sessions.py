"""Exported graphs in the runtimes that run them: one interface, and the same number of threads as torch has.

session = open_session(exported(subject, "onnx"))
logits = session(images)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from harness.cells.runtime import RuntimeName
from harness.process.errors import first_line
from harness.runtimes.exports import LIMIT, Export, Exportable, exported
from harness.runtimes.formats import FORMATS, RUNTIMES, format_named

Run = Callable[[tuple[Tensor | None, ...], dict[str, Tensor | None]], Tensor]


@dataclass(frozen=True)
class Session:
    """A graph that a runtime has loaded: it takes the inputs of the module, on the CPU, and returns a new tensor.

    `about`: the runtime, its version, where it runs, its threads and the precision that it is told to compute in.
    """

    run: Run
    about: dict[str, Any]

    def __call__(self, *args: Tensor | None, **kwargs: Tensor | None) -> Tensor:
        return self.run(args, kwargs)

    def __str__(self) -> str:
        of = self.about
        threads = f"{of['threads']} thread{'s' * (of['threads'] != 1)}"
        return f"{of['runtime']} {of['version']} ({of['device']}, {threads}, {of['precision']})"


def open_session(export: Export) -> Session:
    """Load an exported graph into the runtime of its format.

    Raises:
        ValueError: in one line, for a missing package, and what the runtime says of a graph that it does not take.
    """
    kind = format_named(export.about["format"])
    versions = kind.versions()
    threads = torch.get_num_threads()
    about = {"runtime": kind.runtime, "version": versions[kind.runtime], "threads": threads, "precision": "fp32"}
    try:
        run, device = _OPEN[kind.runtime](export.file, threads)
    except Exception as problem:
        # Each runtime has errors of its own.
        raise ValueError(f"{kind.runtime} does not take {export.file.name}: {first_line(problem)}") from problem
    return Session(run, about | {"device": device})


def _open_torch(file: Path, threads: int) -> tuple[Run, str]:
    module = torch.export.load(file).module()

    def run(args: tuple[Tensor | None, ...], kwargs: dict[str, Tensor | None]) -> Tensor:
        out: Tensor = module(*args, **kwargs)
        return out

    return run, "cpu"


def _open_onnxruntime(file: Path, threads: int) -> tuple[Run, str]:
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # Its threads would spin on, and take the cores from the candidate that is timed next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def run(args: tuple[Tensor | None, ...], kwargs: dict[str, Tensor | None]) -> Tensor:
        given = dict(zip(names, _arrays(args, kwargs), strict=True))
        return torch.from_numpy(session.run(None, given)[0])

    return run, session.get_providers()[0]


def _open_openvino(file: Path, threads: int) -> tuple[Run, str]:
    import openvino

    options = {
        "PERFORMANCE_HINT": "LATENCY",
        # Where a CPU has bfloat16, it would compute in that.
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        # As torch's threads, its own run where the system puts them.
        "ENABLE_CPU_PINNING": False,
    }
    request = openvino.Core().compile_model(file, "CPU", options).create_infer_request()

    def run(args: tuple[Tensor | None, ...], kwargs: dict[str, Tensor | None]) -> Tensor:
        # Inputs are read where they are; the output is copied, as the next call writes to the same place.
        return torch.from_numpy(request.infer(_arrays(args, kwargs), share_inputs=True)[0])

    return run, "CPU"


_OPEN: dict[str, Callable[[Path, int], tuple[Run, str]]] = {
    "torch": _open_torch,
    "onnxruntime": _open_onnxruntime,
    "openvino": _open_openvino,
}
assert _OPEN.keys() == RUNTIMES.keys() == {each.runtime for each in FORMATS.values()} == set(get_args(RuntimeName))


def _arrays(args: tuple[Tensor | None, ...], kwargs: dict[str, Tensor | None]) -> list[Any]:
    """Return the inputs of a graph as arrays, in its order: that of the call."""
    return [x.detach().contiguous().numpy() for x in (*args, *kwargs.values()) if x is not None]


class Deployed(nn.Module):
    """A module as a runtime runs it; `own` is the module itself, whose parameters it has, and `about` is all of it."""

    def __init__(self, subject: Exportable, runtime: str, *, limit: float = LIMIT) -> None:
        """Export the module, or find it in the cache, and load it. Raises ValueError where `exported` does."""
        super().__init__()
        export = exported(subject, RUNTIMES[runtime], limit=limit)
        self.own, self.session = subject.module, open_session(export)
        self.about = {**self.session.about, "export": export.about}

    def forward(self, *args: Tensor | None, **kwargs: Tensor | None) -> Tensor:
        return self.session(*args, **kwargs)

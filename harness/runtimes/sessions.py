"""Exported graphs in the runtimes that run them: one interface, and the same number of threads as torch has.

session = open_session(exported(subject, "onnx"))
logits = session(images)
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from harness.cells.runtime import RuntimeName
from harness.process.errors import first_line
from harness.runtimes.exports import LIMIT, Export, Exportable, exported
from harness.runtimes.formats import FORMATS, RUNTIMES, format_named
from harness.runtimes.profiles import Counters, Profile, Trace

Run = Callable[[tuple[Tensor | None, ...], dict[str, Tensor | None]], Tensor]


@dataclass(frozen=True)
class Session:
    """A graph that a runtime has loaded: it takes the inputs of the module, on the CPU, and returns a new tensor.

    `about`: the runtime, its version, where it runs, its threads and the precision that it is told to compute in.
    `profile`: what it notes of its nodes, if it was told to.
    """

    run: Run
    about: dict[str, Any]
    profile: Profile | None = None

    def __call__(self, *args: Tensor | None, **kwargs: Tensor | None) -> Tensor:
        return self.run(args, kwargs)

    def __str__(self) -> str:
        of = self.about
        threads = f"{of['threads']} thread{'s' * (of['threads'] != 1)}"
        return f"{of['runtime']} {of['version']} ({of['device']}, {threads}, {of['precision']})"


def open_session(export: Export, *, profiled: bool = False) -> Session:
    """Load an exported graph into the runtime of its format.

    `profiled`: note what its nodes take, which costs time; torch does not (see harness/measures/parts.py).

    Raises:
        ValueError: in one line, for a missing package, and what the runtime says of a graph that it does not take.
    """
    kind = format_named(export.about["format"])
    versions = kind.versions()
    threads = torch.get_num_threads()
    precision = "int8" if "quantiser" in export.about else "fp32"
    about = {"runtime": kind.runtime, "version": versions[kind.runtime], "threads": threads, "precision": precision}
    profile = None
    try:
        if profiled:
            run, device, profile = _OPEN_PROFILED[kind.runtime](export.file, threads)
        else:
            run, device = _OPEN[kind.runtime](export.file, threads)
    except Exception as problem:
        # Each runtime has errors of its own.
        raise ValueError(f"{kind.runtime} does not take {export.file.name}: {first_line(problem)}") from problem
    return Session(run, about | {"device": device}, profile)


def _open_torch(file: Path, threads: int) -> tuple[Run, str]:
    module = torch.export.load(file).module()

    def run(args: tuple[Tensor | None, ...], kwargs: dict[str, Tensor | None]) -> Tensor:
        out: Tensor = module(*args, **kwargs)
        return out

    return run, "cpu"


def _open_onnxruntime(file: Path, threads: int) -> tuple[Run, str]:
    session = _onnxruntime(file, threads)
    return _run_onnxruntime(session), session.get_providers()[0]


def _profile_onnxruntime(file: Path, threads: int) -> tuple[Run, str, Profile]:
    trace = Trace()
    session = _onnxruntime(file, threads, trace.prefix)
    trace.end = session.end_profiling
    return _counted(_run_onnxruntime(session), trace), session.get_providers()[0], trace


def _onnxruntime(file: Path, threads: int, trace: str | None = None) -> Any:
    """Return the session of a file; it writes a trace into a file whose path begins with `trace`."""
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # Its threads would spin on, and take the cores from the candidate that is timed next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if trace is not None:
        options.enable_profiling, options.profile_file_prefix = True, trace
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def _run_onnxruntime(session: Any) -> Run:
    names = [each.name for each in session.get_inputs()]

    def run(args: tuple[Tensor | None, ...], kwargs: dict[str, Tensor | None]) -> Tensor:
        given = dict(zip(names, _arrays(args, kwargs), strict=True))
        return torch.from_numpy(session.run(None, given)[0])

    return run


def _open_openvino(file: Path, threads: int) -> tuple[Run, str]:
    return _run_openvino(_openvino(file, threads)), "CPU"


def _profile_openvino(file: Path, threads: int) -> tuple[Run, str, Profile]:
    request = _openvino(file, threads, PERF_COUNT=True)
    counters = Counters(request.get_profiling_info)
    return _counted(_run_openvino(request), counters), "CPU", counters


@cache
def _core() -> Any:
    """Return OpenVINO's core, one for the process.

    Where the last one goes, its plugins are unloaded, and the process ends in a segmentation fault at a later fork, if
    a graph had counters or was in int8 (version 2026.4.1).
    """
    import openvino

    return openvino.Core()


def _openvino(file: Path, threads: int, **further: bool) -> Any:
    """Return a request of a file, compiled with further options of OpenVINO."""
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        # Where a CPU has bfloat16, it would compute in that.
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        # As torch's threads, its own run where the system puts them.
        "ENABLE_CPU_PINNING": False,
    }
    return _core().compile_model(file, "CPU", options | further).create_infer_request()


def _run_openvino(request: Any) -> Run:
    def run(args: tuple[Tensor | None, ...], kwargs: dict[str, Tensor | None]) -> Tensor:
        # Inputs are read where they are; the output is copied, as the next call writes to the same place.
        return torch.from_numpy(request.infer(_arrays(args, kwargs), share_inputs=True)[0])

    return run


def _counted(run: Run, profile: Profile) -> Run:
    """Return a run that tells a profile of its passes."""

    def counted(args: tuple[Tensor | None, ...], kwargs: dict[str, Tensor | None]) -> Tensor:
        out = run(args, kwargs)
        profile.passes += 1
        return out

    return counted


_OPEN: dict[str, Callable[[Path, int], tuple[Run, str]]] = {
    "torch": _open_torch,
    "onnxruntime": _open_onnxruntime,
    "openvino": _open_openvino,
}
assert _OPEN.keys() == RUNTIMES.keys() == {each.runtime for each in FORMATS.values()} == set(get_args(RuntimeName))

_OPEN_PROFILED: dict[str, Callable[[Path, int], tuple[Run, str, Profile]]] = {
    "onnxruntime": _profile_onnxruntime,
    "openvino": _profile_openvino,
}


def _arrays(args: tuple[Tensor | None, ...], kwargs: dict[str, Tensor | None]) -> list[Any]:
    """Return the inputs of a graph as arrays, in its order: that of the call."""
    return [x.detach().contiguous().numpy() for x in (*args, *kwargs.values()) if x is not None]


class Deployed(nn.Module):
    """A module as a runtime runs it; `own` is the module itself, whose parameters it has, and `about` is all of it."""

    def __init__(self, subject: Exportable, runtime: str, *, limit: float = LIMIT) -> None:
        """Export the module, or find it in the cache, and load it. Raises ValueError where `exported` does."""
        super().__init__()
        self.export = exported(subject, RUNTIMES[runtime], limit=limit)
        self.own, self.session = subject.module, open_session(self.export)
        self.about = {**self.session.about, "export": self.export.about}

    def forward(self, *args: Tensor | None, **kwargs: Tensor | None) -> Tensor:
        return self.session(*args, **kwargs)

    def profiled(self) -> Deployed:
        """Return the same in a session that notes what its nodes take."""
        other = copy(self)
        other.session = open_session(self.export, profiled=True)
        return other

"""The laws of runtimes: an attention exports to ONNX, and ONNX Runtime and OpenVINO give what eager float32 gives.

All sites are exported as one graph, by one process, which is ended when its time is over: most of an export is the
start of that process. Each site is compared by itself. Where that graph is not made, the sites are exported one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from harness.certificate.subject import REGIONS, Broken, Case, Exempt, Inputs, Subject, at, require, shown_sites
from harness.runtimes.exports import Export, Exportable, ExportError, exported
from harness.runtimes.formats import FORMATS, RUNTIMES
from harness.runtimes.gate import Agreement, agreement
from harness.runtimes.sessions import Session, open_session

FAMILIES = ("horizontal stripe", "windows", "class token", "reduced keys, class token", "pooled keys", REGIONS.name)
"""A site per family: those of CSWin, Swin, DeiT, PVT and PVTv2, and the shifted windows of Swin."""

QUICK = ("windows", "class token")

LIMIT = 120.0
"""Seconds that an export may take."""


class Together(nn.Module):
    """Attentions at several sites as one module: their inputs one after the other, their outputs in one row."""

    def __init__(self, attentions: Sequence[nn.Module], names: Sequence[tuple[str, ...]]) -> None:
        super().__init__()
        self.attentions, self.names = nn.ModuleList(attentions), tuple(names)

    def forward(self, *inputs: Tensor) -> Tensor:
        left = iter(inputs)
        outs = []
        for attention, names in zip(self.attentions, self.names, strict=True):
            outs.append(attention(**{name: next(left) for name in names}).flatten())
        return torch.cat(outs)


@dataclass(frozen=True)
class Graph:
    """The attention in float32 at some sites, its inputs there, and the graph of all of these."""

    cases: tuple[Case, ...]
    modules: tuple[nn.Module, ...]
    inputs: tuple[Inputs, ...]
    export: Export

    def agreements(self, runtime: str) -> list[Agreement]:
        """Return how far a runtime is from eager PyTorch at each site.

        Raises:
            ValueError: what the runtime says of a graph that it does not take.
        """
        # OpenVINO reads the file that ONNX Runtime reads, so that one of them can be held against the other.
        session = open_session(Export(self.export.file, self.export.about | {"format": RUNTIMES[runtime]}))
        found = []
        for number, (case, module, inputs) in enumerate(zip(self.cases, self.modules, self.inputs, strict=True)):
            with at(case):
                found.append(agreement(module, partial(self._run, session, number), (), dict(inputs)))
        return found

    def _run(self, session: Session, number: int, **given: Tensor) -> Tensor:
        """Return the output at one site; the others get their own inputs."""
        every = [given if each == number else inputs for each, inputs in enumerate(self.inputs)]
        row = session(*(x for inputs in every for x in inputs.values()))
        sizes = [inputs["q"].numel() for inputs in self.inputs]
        if row.shape != (sum(sizes),):
            return row
        return row.split(sizes)[number].view(self.inputs[number]["q"].shape)


def onnx(subject: Subject) -> str:
    """It exports to ONNX, and ONNX Runtime gives the outputs of eager float32."""
    _check_testable(subject, "onnxruntime")
    graph = _graph(subject)
    found = _agreements(graph, "onnxruntime")
    for case, each in zip(graph.cases, found, strict=True):
        require(each.right, case, f"ONNX Runtime {_version('onnxruntime')} is {each}")
    return _said(graph, found)


def openvino(subject: Subject) -> str:
    """OpenVINO gives the outputs of eager float32 on the same graph."""
    _check_testable(subject, "openvino", "onnxruntime")
    try:
        graph = _graph(subject)
        checked = _agreements(graph, "onnxruntime")
    except Broken:
        raise Exempt("not tested: there is no graph that ONNX Runtime takes (see onnx)") from None
    if not all(each.right for each in checked):
        raise Exempt("not tested: the graph is wrong in ONNX Runtime too (see onnx)")
    found = _agreements(graph, "openvino")
    version = _version("openvino")
    for case, each, right in zip(graph.cases, found, checked, strict=True):
        if not each.right:
            seen = f"ONNX Runtime {_version('onnxruntime')} is right on the same graph, to {right.worst:.1e}"
            raise Broken(f"{case}: OpenVINO {version} is {each}; {seen}")
    return _said(graph, found)


def _said(graph: Graph, found: Sequence[Agreement]) -> str:
    return f"{shown_sites(graph.cases)}, largest difference {max(each.worst for each in found):.1e}"


def _version(runtime: str) -> str:
    return FORMATS[RUNTIMES[runtime]].versions()[runtime]


def _check_testable(subject: Subject, *runtimes: str) -> None:
    """Raise Exempt, with a sentence, where the law cannot be tested here."""
    if subject.device != "cpu":
        raise Exempt("graphs are run on a CPU: see its certificate there")
    cls = subject.attention
    if cls.__module__ == "__main__" or "<locals>" in cls.__qualname__:
        raise Exempt("not tested: exports are made by another process, which finds no class that is not in a file")
    for runtime in runtimes:
        try:
            _version(runtime)
        except ValueError as missing:
            raise Exempt(f"not tested: {missing}") from None


def _agreements(graph: Graph, runtime: str) -> list[Agreement]:
    try:
        return graph.agreements(runtime)
    except ValueError as problem:
        raise Broken(f"{', '.join(case.name for case in graph.cases)}: {problem}") from problem


def _graph(subject: Subject) -> Graph:
    """Export it at all sites at once; raises Broken with the first site where it does not export."""
    if problem := subject.found.get("onnx"):
        raise Broken(problem)
    names = QUICK if subject.quick else FAMILIES
    cases = tuple(case for case in subject.cases if case.name in names) or subject.cases[-1:]
    try:
        try:
            return _exported(subject, cases)
        except Broken:
            for case in cases if len(cases) > 1 else ():
                _exported(subject, (case,))
            raise
    except Broken as problem:
        subject.found["onnx"] = str(problem)
        raise


def _exported(subject: Subject, cases: tuple[Case, ...]) -> Graph:
    modules = tuple(subject.randomised(case.site).float() for case in cases)
    inputs = tuple(
        {name: x.detach().float() if x.is_floating_point() else x for name, x in subject.inputs(case).items()}
        for case in cases
    )
    module = Together(modules, [tuple(each) for each in inputs]).eval()
    args = tuple(x for each in inputs for x in each.values())
    where = ", ".join(map(str, cases))
    try:
        export = exported(Exportable(module, args, subject.spec, at=where), "onnx", limit=LIMIT)
    except ExportError as problem:
        raise Broken(f"{where}: it {problem}") from problem
    except ValueError as problem:
        raise Exempt(f"not tested: {problem}") from None
    return Graph(cases, modules, inputs, export)

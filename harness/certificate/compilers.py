"""The laws of compilers: `torch.compile` and `torch.export` turn an attention into the same function."""

from __future__ import annotations

import shutil

import torch

from harness.certificate.subject import Case, Subject, at, difference, gradients, leaves, require, shown_sites

SAME = 1e-8
"""Largest relative l2 difference, in float64, of an output or gradient that is summed in another order."""


def compiled(subject: Subject) -> str:
    """`torch.compile` captures it as one graph, with the outputs and gradients of eager mode."""
    # Graphs are captured and differentiated at all of these sites. One is also compiled to code, which takes most of
    # the time: none in the quick form, or on the CPU without a C++ compiler.
    has_compiler = subject.device != "cpu" or any(map(shutil.which, ("c++", "g++", "clang++")))
    to_code = not subject.quick and has_compiler
    for number, case in enumerate(subject.few):
        backend = "inductor" if to_code and number == 0 else "aot_eager"
        with at(case):
            torch._dynamo.reset()
            module, inputs = subject.randomised(case.site), subject.inputs(case)
            wanted = module(**inputs)
            # Elsewhere in the certificate, what is under `torch.compile` runs as it is written.
            with torch.compiler.set_stance("default"):
                ours = torch.compile(module, fullgraph=True, backend=backend, dynamic=False)(**inputs)
            _compare(case, ours, wanted, "compiled, the output")
            every = [*leaves(inputs), *module.parameters()]
            for a, b in zip(gradients(ours, every), gradients(wanted, every), strict=True):
                _compare(case, a, b, "compiled, a gradient")
    torch._dynamo.reset()
    return f"one graph at {shown_sites(subject.few)}" + (", compiled to code at the first" if to_code else "")


def exported(subject: Subject) -> str:
    """`torch.export` accepts it, and the exported program gives the same output."""
    for case in subject.few:
        with at(case), torch.no_grad():
            module, inputs = subject.randomised(case.site), subject.inputs(case)
            with torch.compiler.set_stance("default"):
                program = torch.export.export(module, (), kwargs=inputs)
            _compare(case, program.module()(**inputs), module(**inputs), "exported, the output")
    return shown_sites(subject.few)


def _compare(case: Case, ours: torch.Tensor, wanted: torch.Tensor, what: str) -> None:
    if not float(wanted.norm()) and not float(ours.norm()):
        return
    gap = difference(ours, wanted)
    # A gradient that is zero up to rounding has no meaningful direction.
    require(gap < SAME or float((ours - wanted).norm()) < 1e-12, case, f"{what} differs by {gap:.1e} of its norm")

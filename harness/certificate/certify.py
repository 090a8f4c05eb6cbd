"""The certificate of an attention: the laws by which it is tested, whether it is the project's or a user's own.

* `subject`: the attention under test, the small sites and the inputs.
* `mounting`: where it can be built, and the shape that it returns.
* `definition`: output and gradients, in float64; `dependence`: batch, permutation, mask, inputs, parameters.
* `maps`: linearity in the values, and the map that is implied.
* `state`: the state dict, determinism, inputs and memory.
* `precision`, `compilers`, `costs`: half precision; torch.compile and torch.export; multiply-adds and growth.
* `runtimes`: ONNX Runtime and OpenVINO.
* `random_sites`: the definition at sites that nobody chose.
"""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable

import torch

from attentions import AttentionSpec, source_digest
from harness.certificate import (
    compilers,
    costs,
    definition,
    dependence,
    maps,
    mounting,
    precision,
    random_sites,
    runtimes,
    state,
)
from harness.certificate.subject import Broken, Exempt, Subject
from harness.process.determinism import one_thread
from harness.process.environment import check_device, environment
from harness.process.errors import first_line
from results import Certificate, Verdict

Law = Callable[[Subject], str]

LAWS: dict[str, Law] = {
    "builds": mounting.builds,
    "shape": mounting.shape,
    "reference": definition.reference,
    "gradient": definition.gradient,
    "paths": definition.paths,
    "batch": dependence.batch,
    "permutation": dependence.permutation,
    "mask": dependence.mask,
    "reads": dependence.reads,
    "parameters": dependence.parameters,
    "map": maps.implied,
    "state": state.state,
    "deterministic": state.deterministic,
    "inputs": state.inputs,
    "memory": state.memory,
    "finite": precision.finite,
    "near": precision.near,
    "macs": costs.macs,
    "growth of macs": costs.growth_of_macs,
    "growth of time": costs.growth_of_time,
    "compile": compilers.compiled,
    "export": compilers.exported,
    "onnx": runtimes.onnx,
    "openvino": runtimes.openvino,
    "random sites": random_sites.random_sites,
}
"""By name, in the order of the table. The first sentence of each function is what the law demands."""

SLOW = ("growth of time",)
"""Skipped in the quick form: a measured time says little while other tests run."""


def certify(
    spec: AttentionSpec,
    *,
    quick: bool = False,
    device: str = "cpu",
    report: Callable[[Verdict], None] = lambda verdict: None,
) -> Certificate:
    """Test an attention by all laws on a device; call `report` with each verdict as soon as it is known.

    `quick` is the form for a test suite: fewer sites, no measured time, graphs captured but not compiled to code.

    Raises:
        ValueError: if there is no such device here, the attention asks for a GPU and is to be tested on the CPU, or it
            declares itself exempt from a law that does not exist.
    """
    check_device(device)
    subject = Subject(spec, quick, device)
    if unknown := set(subject.attention.exempt) - set(LAWS):
        raise ValueError(f"{spec.name} is exempt from {sorted(unknown)}, which are not laws ({', '.join(LAWS)})")
    verdicts = []
    # The sites are so small that threads would mostly wait for each other; and where more threads join in on larger
    # maps, time does not grow as the work does. The random state of the caller's program stays as it was.
    with torch.random.fork_rng(), warnings.catch_warnings(), one_thread(), torch.compiler.set_stance("force_eager"):
        warnings.simplefilter("ignore")
        problem = subject.runs()
        if device == "cpu" and problem is not None and ASKS_FOR_GPU.search(problem):
            raise ValueError(
                f"{spec.name} asks for a GPU, and cannot be tested on the CPU ({problem}): check it with "
                "--device cuda, on a machine that has one"
            )
        for name, law in LAWS.items():
            if not (quick and name in SLOW):
                verdicts.append(_verdict(name, law, subject, problem))
                report(verdicts[-1])
    form = "quick" if quick else "full"
    return Certificate(str(spec), source_digest(spec.name), form, tuple(verdicts), environment(device))


ASKS_FOR_GPU = re.compile(
    r"active driver|accessed from triton|nvidia|libcuda|is_cuda|\bcuda\b|\bgpu\b",
    re.IGNORECASE,
)
"""What torch and Triton say to code that needs a GPU where there is none, or on tensors of the CPU."""

WITHOUT_RUNNING = ("builds", "shape")
"""Laws that say what is wrong with an attention that does not run; the others would repeat it."""


def _verdict(name: str, law: Law, subject: Subject, problem: str | None) -> Verdict:
    began = time.perf_counter()
    reason = subject.attention.exempt.get(name)
    if not subject.cases and name != "builds":
        reason = "it cannot be mounted at any of the small sites"
    elif problem is not None and name not in WITHOUT_RUNNING:
        reason = "not tested: it does not run at every small site (see shape)"
    try:
        verdict, detail = ("exempt", reason) if reason else ("pass", law(subject))
    except Broken as broken:
        verdict, detail = "fail", str(broken)
    except Exempt as exempt:
        verdict, detail = "exempt", str(exempt)
    except Exception as error:
        # An attention may return or raise anything, and what is wrong with it belongs in its certificate.
        verdict, detail = "fail", f"{type(error).__name__}: {first_line(error)}"
    return Verdict(name, verdict, detail, round(time.perf_counter() - began, 3))

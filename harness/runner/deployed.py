"""The speed of a backbone in another runtime than torch: exported, compared with eager PyTorch, and then measured."""

from __future__ import annotations

import json
from collections.abc import Callable

from backbones import BackboneSpec
from harness.cells import Metrics, Speed
from harness.measures.quiet import Watch, watch
from harness.measures.speed import measure_work
from harness.process.determinism import numerics
from harness.racing.candidates import Candidate
from harness.racing.entries import entered
from harness.runtimes.gate import KINDS, Agreement, agreement
from harness.runtimes.sessions import Deployed

DIFFERENCES = dict(zip(KINDS, ("normal", "zeros", "scaled"), strict=True))
"""How a metric is called that has the difference on a kind of inputs."""


def measure_deployed(
    spec: BackboneSpec, task: Speed, report: Callable[[str], None], watching: Watch | None = None
) -> Metrics:
    """Measure the inference of `spec` in the runtime of `task`, if its outputs are right there.

    The model, its weights and its images are those of a race, and the calls are timed as those of torch. Returns what
    `about` does and, where the outputs are right, the metrics of inference of `measure_speed`: a wrong runtime has no
    time.

    Raises:
        ValueError: what does not export, or not in time (ExportError), and a graph that the runtime does not take.
        FloatingPointError: outputs that are not finite.
    """
    runtime = task.runtime
    with numerics(compiled=False):
        report(f"exporting to {runtime.runtime}")
        entry = entered(Candidate(spec.name, spec, runtime=runtime.runtime), None, "forward", runtime)
        deployed = entry.module
        assert isinstance(deployed, Deployed)
        verdict = agreement(entry.own, deployed, entry.args, entry.kwargs, runtime.precision)
        report(f"{deployed.session}: {verdict}")
        metrics = about(deployed, verdict)
        if not verdict.right:
            return metrics
        watching = watching or watch(runtime.device)
        call = entry.call("forward")
        return metrics | measure_work(call, "infer", runtime, task.min_seconds, report, watching)


def about(deployed: Deployed, verdict: Agreement) -> Metrics:
    """Return what a record holds of a model in a runtime: how it is run, its graph, and how right it is.

    A difference that is infinite, as of another shape, is None; what is no number is JSON as a text.
    """
    found, export = deployed.about, deployed.about["export"]
    differences = verdict.plain()["differences"]
    return {
        "runtime_outputs": str(verdict),
        **{f"runtime_difference_{name}": differences[kind] for kind, name in DIFFERENCES.items()},
        "runtime_provider": found["device"],
        "runtime_threads": found["threads"],
        "runtime_precision": found["precision"],
        "graph_exporter": export["exporter"],
        "graph_opset": export["opset"],
        "graph_options": json.dumps(export["options"]),
        "graph_versions": json.dumps(export["versions"]),
        "graph_operators": json.dumps(export["operators"]),
    }

"""What the exporting process does: `python -m harness.runtimes.child FOLDER` reads a task there, and writes the graph.

It exports a module, or makes a graph int8 that was exported before.
Beside the graph it writes how often it has each operator; where the export fails, one line on why.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from harness.process.waiting import set_wait_policy

if __name__ == "__main__":
    set_wait_policy()  # before torch

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from attentions import load_file
from harness.process.errors import first_line
from harness.runtimes.graphs import operators_of
from harness.runtimes.quantise import dynamic, post_training

TASK = "task.json"
"""The format, the name of the file to write, and either the graph to make int8 (`source`) or how a module is exported:
opset, whether the batch is left open, and the user's files that the classes of the module are defined in."""

MODULE = "module.pt"
"""The module with its example inputs, by the names of its classes."""

IMAGES = "images.npy"
"""What a graph in int8 is calibrated on: batches as it takes them, (K, B, C, H, W)."""

GRAPH = "graph"
"""The name of the graph, before its format's ending."""

OPERATORS = "operators.json"
PROBLEM = "problem"


def export_graph(task: dict[str, Any], module: torch.nn.Module, args: Any, kwargs: Any, file: Path) -> Counter[str]:
    """Write the graph of a module, and return how often it has each operator."""
    shapes = None
    if task["dynamic"]:
        batch = torch.export.Dim("batch", min=1, max=2**20)
        shapes = tuple({0: batch} for _ in args)
    with torch.no_grad():
        if task["format"] == "torch-export":
            program = torch.export.export(module, args, kwargs=kwargs, dynamic_shapes=shapes)
            torch.export.save(program, file)
            return Counter(str(node.target) for node in program.graph.nodes if node.op == "call_function")
        # torch's fused kernel leaves strides behind that the views after it do not take once the graph is decomposed.
        with sdpa_kernel(SDPBackend.MATH):
            made = torch.onnx.export(
                module,
                args,
                kwargs=kwargs,
                dynamo=True,
                opset_version=task["opset"],
                dynamic_shapes=shapes,
                verbose=False,
            )
    assert made is not None
    onnx_file = file.with_suffix(".onnx")
    made.save(onnx_file, external_data=False)
    if task["format"] == "openvino":
        _to_openvino(onnx_file, file)
    return operators_of(file)


def _to_openvino(source: Path, file: Path) -> None:
    import openvino

    # Unless told otherwise it halves the weights.
    openvino.save_model(openvino.Core().read_model(source), file, compress_to_fp16=False)
    source.unlink()


def quantise_graph(task: dict[str, Any], images: Path, file: Path) -> Counter[str]:
    """Write a graph in int8, and return how often it has each operator."""
    source = Path(task["source"])
    if task["format"] == "openvino":
        post_training(source, file, images)
    else:
        dynamic(source, file)
    return operators_of(file)


def _cause(problem: BaseException) -> str:
    """Return one line on the error that an exporter's own errors are wrapped around."""
    while problem.__cause__ is not None:
        problem = problem.__cause__
    return f"{type(problem).__name__}: {first_line(problem)}"


def main(folder: Path) -> int:
    """Carry out the task of a folder; return the exit status."""
    task = json.loads((folder / TASK).read_text())
    try:
        file = folder / task["file"]
        if "source" in task:
            operators = quantise_graph(task, folder / IMAGES, file)
        else:
            for path in task["files"]:
                load_file(Path(path))
            # Our own file, of a moment ago.
            found = torch.load(folder / MODULE, weights_only=False)
            operators = export_graph(task, found["module"], found["args"], found["kwargs"], file)
    except Exception as problem:
        # Exporters raise anything.
        (folder / PROBLEM).write_text(_cause(problem))
        return 1
    (folder / OPERATORS).write_text(json.dumps(dict(operators.most_common())))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

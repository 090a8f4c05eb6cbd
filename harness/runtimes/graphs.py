"""What a graph in a file consists of."""

from __future__ import annotations

from collections import Counter
from pathlib import Path


def operators_of(file: Path) -> Counter[str]:
    """Return how often a graph, in a file of ONNX or OpenVINO, has each operator."""
    if file.suffix == ".onnx":
        import onnx

        return Counter(node.op_type for node in onnx.load(file).graph.node)
    import openvino

    kinds = (each.get_type_name() for each in openvino.Core().read_model(file).get_ops())
    return Counter(kind for kind in kinds if kind not in ("Constant", "Parameter", "Result"))

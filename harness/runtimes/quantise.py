"""A graph in a file, made int8: by ONNX Runtime's dynamic quantisation, or by NNCF's post-training one for OpenVINO."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from harness.runtimes.formats import DYNAMIC, POST_TRAINING


def dynamic(source: Path, file: Path) -> None:
    """Write the graph of a file with the weights of its matrix products in int8."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(source, file, weight_type=QuantType.QInt8, **DYNAMIC.options)


def post_training(source: Path, file: Path, images: Path) -> None:
    """Write the graph of a file with products and convolutions in int8, whose ranges are those on batches of images."""
    # Only so it tells its makers nothing of this run; it is read when it is imported.
    os.environ["NNCF_CI"] = "1"
    import nncf
    import openvino

    batches = list(np.load(images))
    model = nncf.quantize(
        openvino.Core().read_model(source),
        nncf.Dataset(batches),
        preset=nncf.QuantizationPreset(POST_TRAINING.options["preset"]),
        model_type=nncf.ModelType(POST_TRAINING.options["model_type"]),
        subset_size=len(batches),
    )
    openvino.save_model(model, file, compress_to_fp16=False)

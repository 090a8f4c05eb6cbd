"""Tasks: values that are not allowed are refused, each in one line."""

import pytest

from harness.cells import MICRO, DataSource, Train


@pytest.mark.parametrize(
    ("changes", "message"), [({"device": "tpu"}, "allowed: cpu, cuda"), ({"precision": "fp8"}, "fp32, bf16, fp16")]
)
def test_unknown_device_or_precision(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Train(MICRO, DataSource("fashion_mnist_14k"), **changes)

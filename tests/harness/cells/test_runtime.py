"""Runtimes: values that are not allowed are refused, with what is."""

import pytest

from harness.cells import Runtime


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("device", "tpu", "unknown device 'tpu'; allowed are cpu, cuda"),
        ("precision", "float32", "unknown precision 'float32'; allowed are fp32, bf16, fp16"),
        ("mode", "jit", "unknown mode 'jit'; allowed are eager, compiled"),
        ("channels_last", "yes", "channels_last is 'yes'; allowed are True, False"),
        ("batch", 0, "batch is 0; allowed are whole numbers from 1 up"),
        ("batch", 2.0, "batch is 2.0; allowed are whole numbers from 1 up"),
        ("batch", True, "batch is True; allowed are whole numbers from 1 up"),
    ],
)
def test_what_is_not_allowed_is_named_with_what_is(field: str, value: object, message: str) -> None:
    with pytest.raises(ValueError) as error:
        Runtime(**{field: value})  # type: ignore[arg-type]
    assert str(error.value) == message

"""The roof: what is counted of a copy and a product, and which of the two bounds a computation."""

from collections.abc import Callable

import pytest

from harness.cells.runtime import Device
from harness.measures import roofline
from harness.measures.roofline import COPIED, SIDE, Needed, Roof, measure_roof
from tests.on_a_gpu import DEVICES


def test_the_slower_of_the_two_is_the_bound() -> None:
    roof = Roof(bytes_per_s=100.0, operations_per_s=1000.0)
    assert (roof.seconds(Needed(200, 100)), roof.bound(Needed(200, 100))) == (2.0, "memory")
    assert (roof.seconds(Needed(1, 4000)), roof.bound(Needed(1, 4000))) == (4.0, "products")


def test_the_fastest_samples_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def timer(device: Device) -> Callable[[Callable[[], object]], float]:
        slower = iter(range(100))

        def timed(call: Callable[[], object]) -> float:
            call()
            return (2.0 if call.__name__ == "copy" else 4.0) + next(slower)

        return timed

    monkeypatch.setattr(roofline, "timer", timer)
    roofline._measured.cache_clear()
    roof = measure_roof("cpu", "fp32")
    roofline._measured.cache_clear()
    assert roof == Roof(2 * COPIED["cpu"] / 2.0, 2 * SIDE["cpu"] ** 3 / 5.0)


@pytest.mark.parametrize("device", DEVICES)
def test_a_device_has_a_roof(device: Device) -> None:
    roof = measure_roof(device, "fp32")
    assert roof.bytes_per_s > 0
    assert roof.operations_per_s > 0
    assert measure_roof(device, "fp32") is roof

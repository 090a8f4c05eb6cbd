"""Labels cover neither each other nor a point, and stay inside."""

import itertools
import random

import pytest

from results.figures.labels import Box, in_a_column, placed, text_width

WIDTH, HEIGHT, SIZE, RADIUS = 330.0, 260.0, 10.0, 5.0


def cloud(number: int, kind: str) -> list[tuple[float, float]]:
    rng = random.Random(number)
    if kind == "one place":
        return [(100.0, 100.0)] * number
    if kind == "a line":
        return [(20 + 280 * index / number, 130.0) for index in range(number)]
    width, height = (60, 40) if kind == "dense" else (300, 230)
    return [(10 + width * rng.random(), 10 + height * rng.random()) for _ in range(number)]


@pytest.mark.parametrize("kind", ["spread", "dense", "a line", "one place"])
@pytest.mark.parametrize("number", [2, 3, 8, 21, 40, 60])
def test_nothing_overlaps(number: int, kind: str) -> None:
    points = cloud(number, kind)
    texts = [f"focused(focusing_factor={index})" for index in range(number)]
    labels = None
    for step in range(12):
        factor = 1.25**step
        scaled = [(x * factor, y * factor) for x, y in points]
        labels = placed(scaled, texts, WIDTH * factor, HEIGHT * factor, size=SIZE, radius=RADIUS)
        if labels is not None:
            break
    assert labels is not None
    assert [label.text for label in labels] == texts
    assert not any(one.box.meets(two.box) for one, two in itertools.combinations(labels, 2))
    marks = [Box(x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS) for x, y in scaled]
    assert not any(label.box.meets(mark) for label in labels for mark in marks)
    for label in labels:
        assert label.box.left >= 0
        assert label.box.top >= 0
        assert label.box.right <= WIDTH * factor
        assert label.box.bottom <= HEIGHT * factor


def test_a_label_is_beside_its_point_where_it_can_be() -> None:
    (label,) = placed([(100, 100)], ["softmax"], WIDTH, HEIGHT, size=SIZE, radius=RADIUS) or []
    assert label.leader is None
    assert label.box.left == pytest.approx(107)
    assert label.middle == pytest.approx(100)
    bar = Box(107, 50, 109, 150)
    (label,) = placed([(100, 100)], ["softmax"], WIDTH, HEIGHT, size=SIZE, radius=RADIUS, avoid=[bar]) or []
    assert not label.box.meets(bar)


def test_no_room_is_said() -> None:
    assert placed([(5, 5)], ["softmax"], 20, 10, size=SIZE, radius=RADIUS) is None


def test_a_line_cuts_a_box() -> None:
    box = Box(10, 10, 20, 20)
    assert box.is_cut_by((0, 15), (30, 15))
    assert box.is_cut_by((12, 12), (30, 30))
    assert not box.is_cut_by((0, 0), (30, 5))
    assert not box.is_cut_by((0, 25), (25, 50))


@pytest.mark.parametrize("number", [1, 2, 10, 30])
def test_a_column_is_in_order_and_apart(number: int) -> None:
    rng = random.Random(number)
    middles = [100 * rng.random() ** 3 for _ in range(number)]
    found = in_a_column(middles, 100, size=SIZE)
    order = sorted(range(number), key=lambda index: middles[index])
    gaps = [found[two] - found[one] for one, two in itertools.pairwise(order)]
    assert all(gap >= 1.15 * SIZE - 1e-9 for gap in gaps)
    assert min(found) > 0


def test_widths_are_about_those_of_the_font() -> None:
    assert text_width("softmax", 1000) == 500 + 556 + 278 + 278 + 833 + 556 + 500
    assert text_width("注意", 10) == 20

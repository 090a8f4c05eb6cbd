"""Labels beside points, of which none covers another label or a point."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

# Widths of Arial's characters, and of the fonts made to its measure, in thousandths of the size; others are 556.
_WIDTHS = {
    **dict.fromkeys("ijl'|", 222),
    **dict.fromkeys("ftI!,./:;[] ", 278),
    **dict.fromkeys("r()-`", 333),
    **dict.fromkeys("cksvxyzJ", 500),
    **dict.fromkeys("=+<>~±−", 584),
    **dict.fromkeys("FTZ", 611),
    **dict.fromkeys("ABEKPSVXY&", 667),
    **dict.fromkeys("CDHNRUw", 722),
    **dict.fromkeys("GOQ", 778),
    **dict.fromkeys("mM", 833),
    "W": 944,
    "%": 889,
    "@": 1015,
}
_OTHER = 556
_WIDEST = 1000  # of scripts that Arial does not have

_HEIGHT = 1.15
"""Of a line, in sizes."""

_FAULT = 40.0
"""What it costs a label to cover an interval; that its line crosses one costs twice that, six pixels of distance 10."""


def text_width(text: str, size: float) -> float:
    """Return about how many pixels wide a text is."""
    return size / 1000 * sum(_WIDTHS.get(each, _OTHER if each < "\u0250" else _WIDEST) for each in text)


class Box(NamedTuple):
    """A rectangle, in pixels from the top left."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "Box") -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def is_cut_by(self, start: tuple[float, float], end: tuple[float, float]) -> bool:
        """Whether a line from start to end passes through (L. Y.-D. Liang, B. A. Barsky, 1984)."""
        first, last = 0.0, 1.0
        for axis, (low, high) in enumerate(((self.left, self.right), (self.top, self.bottom))):
            step = end[axis] - start[axis]
            if step == 0:
                if not low < start[axis] < high:
                    return False
                continue
            enter, leave = sorted(((low - start[axis]) / step, (high - start[axis]) / step))
            first, last = max(first, enter), min(last, leave)
        return first < last


class Label(NamedTuple):
    """A placed text, its box, and where a line to its point ends, if it is not beside the point."""

    text: str
    box: Box
    leader: tuple[float, float] | None

    @property
    def middle(self) -> float:
        return (self.box.top + self.box.bottom) / 2


def placed(
    points: Sequence[tuple[float, float]],
    texts: Sequence[str],
    width: float,
    height: float,
    *,
    size: float,
    radius: float,
    avoid: Sequence[Box] = (),
) -> list[Label] | None:
    """Return a label per point, inside a panel of this size; None if there is no room for one.

    Points are discs of `radius`. Boxes in `avoid` (of intervals, say) are covered only where nothing else is free.
    """
    marks = [Box(x - radius, y - radius, x + radius, y + radius) for x, y in points]
    crowd = [sum(math.dist(one, other) < 60 for other in points) for one in points]
    found: dict[int, Label] = {}
    lines: list[tuple[tuple[float, float], tuple[float, float]]] = []
    for index in sorted(range(len(points)), key=lambda each: (-crowd[each], points[each], each)):
        best: tuple[float, Label] | None = None
        boxes = [label.box for label in found.values()]
        for cost, label in _candidates(points[index], texts[index], size, radius):
            if best is not None and cost >= best[0]:
                break  # costs without faults only grow
            box = label.box
            if box.left < 0 or box.top < 0 or box.right > width or box.bottom > height:
                continue
            if any(box.meets(other) for other in (*boxes, *marks)):
                continue
            cost += _FAULT * sum(box.meets(other) for other in avoid)
            if best is None or cost < best[0]:
                cost += 2 * _FAULT * sum(box.is_cut_by(*line) for line in lines)
            if label.leader is not None and (best is None or cost < best[0]):
                others = [*boxes, *(mark for at, mark in enumerate(marks) if at != index)]
                cost += 2 * _FAULT * sum(other.is_cut_by(points[index], label.leader) for other in others)
            if best is None or cost < best[0]:
                best = cost, label
        if best is None:
            return None
        found[index] = best[1]
        if best[1].leader is not None:
            lines.append((points[index], best[1].leader))
    return [found[index] for index in range(len(points))]


def _candidates(point: tuple[float, float], text: str, size: float, radius: float) -> Iterator[tuple[float, Label]]:
    """Yield places for a label with their costs, the best first: beside, above and below the point, then further."""
    x, y = point
    wide, high = text_width(text, size) + 2, _HEIGHT * size
    for ring in range(60):
        gap = radius + 2 + 6 * ring
        for cost, angle in enumerate(range(0, 360, 45 if ring < 2 else 15)):
            across, down = math.cos(math.radians(angle)), -math.sin(math.radians(angle))
            left = x + gap * across - wide * (1 - across) / 2
            top = y + gap * down - high * (1 - down) / 2
            box = Box(left, top, left + wide, top + high)
            leader = None
            if ring > 1:
                leader = (min(max(x, box.left), box.right), min(max(y, box.top), box.bottom))
            yield 10 * ring + cost / 4, Label(text, box, leader)


def in_a_column(middles: Sequence[float], height: float, *, size: float) -> list[float]:
    """Return the middles of lines of text that are beside these heights, as near as they fit without overlap.

    The column may become longer than `height`.
    """
    line = _HEIGHT * size
    order = sorted(range(len(middles)), key=lambda each: (middles[each], each))
    # Neighbours that overlap become a block around their mean.
    blocks: list[tuple[list[int], float]] = []
    for index in order:
        blocks.append(([index], min(max(middles[index], line / 2), height - line / 2)))
        while len(blocks) > 1 and blocks[-1][1] - blocks[-2][1] < line * (len(blocks[-1][0]) + len(blocks[-2][0])) / 2:
            (one, a), (two, b) = blocks[-2:]
            members = one + two
            middle = (len(one) * a + len(two) * b) / len(members)
            half = line * len(members) / 2
            blocks[-2:] = [(members, max(min(middle, height - half), half))]
    result = [0.0] * len(middles)
    for members, middle in blocks:
        for position, index in enumerate(members):
            result[index] = middle + line * (position - (len(members) - 1) / 2)
    return result

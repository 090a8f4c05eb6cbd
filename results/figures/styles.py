"""One colour, mark and dash per attention, the same in every figure; readable in grey and by the colour-blind.

Where two colours are near each other, to anyone or in grey, the marks and dashes differ. Variants of one attention
share its colour and dash; the second is hollow, further ones have other marks.
"""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from results.tables.naming import name_and_options
from results.wording import natural

INK, GREY, PALE = "#333333", "#767676", "#e4e4e4"
"""Of text, of notes and what is in the background, and of lines of a grid."""

# Marks by the names that Vega has for them, or as paths within about one unit around (0, 0).
MARKS: dict[str, str] = {
    "circle": "circle",
    "square": "square",
    "diamond": "diamond",
    "triangle-up": "triangle-up",
    "triangle-down": "triangle-down",
    "cross": "cross",
    "hexagon": "M1,0L0.5,0.87L-0.5,0.87L-1,0L-0.5,-0.87L0.5,-0.87Z",
    "star": "M0,-1.2L0.28,-0.38L1.14,-0.37L0.45,0.15L0.7,0.97L0,0.48L-0.7,0.97L-0.45,0.15L-1.14,-0.37L-0.28,-0.38Z",
    # These are of users' own attentions.
    "pentagon": "M0,-1L0.95,-0.31L0.59,0.81L-0.59,0.81L-0.95,-0.31Z",
    "x": "M-1,-0.6L-0.6,-1L0,-0.4L0.6,-1L1,-0.6L0.4,0L1,0.6L0.6,1L0,0.4L-0.6,1L-1,0.6L-0.4,0Z",
    "house": "M0,-1L0.8,-0.2L0.8,0.9L-0.8,0.9L-0.8,-0.2Z",
}
_DASHES: dict[str, tuple[int, ...]] = {
    "circle": (1, 0),
    "square": (8, 3),
    "diamond": (2, 2),
    "triangle-up": (8, 2, 2, 2),
    "triangle-down": (4, 2),
    "cross": (12, 3),
    "hexagon": (6, 2, 1, 2, 1, 2),
    "star": (1, 3),
    "pentagon": (14, 2, 2, 2),
    "x": (5, 5),
    "house": (10, 2, 4, 2),
}


class Style(NamedTuple):
    """How an attention is drawn; `mark` is a name in MARKS."""

    colour: str
    mark: str
    filled: bool = True

    @property
    def shape(self) -> str:
        """The mark as Vega takes it."""
        return MARKS[self.mark]

    @property
    def dash(self) -> list[int]:
        """Lengths of strokes and gaps, in pixels."""
        return list(_DASHES[self.mark])


STYLES: dict[str, Style] = {
    "softmax": Style("#1a1a1a", "circle"),
    "linear": Style("#0072b2", "square"),
    "focused": Style("#d55e00", "diamond"),
    "agent": Style("#009e73", "triangle-up"),
    "inline": Style("#cc79a7", "triangle-down"),
    "polaformer": Style("#a6761d", "cross"),
    "mlla": Style("#772211", "hexagon"),
    "performer": Style("#661166", "star"),
    "linformer": Style("#9988ff", "circle"),
    "cosformer": Style("#003399", "square"),
    "efficient": Style("#664455", "diamond"),
    "nystromformer": Style("#999955", "cross"),
    "soft": Style("#446644", "triangle-up"),
    "sigmoid": Style("#aa4488", "triangle-down"),
    "hydra": Style("#ff6688", "hexagon"),
    "xca": Style("#227733", "star"),
    "enhanced": Style("#aa88cc", "square"),
    "rala": Style("#993300", "circle"),
    "angular": Style("#554488", "triangle-up"),
    "external": Style("#7788dd", "star"),
    "dwc": Style("#004433", "diamond"),
}
"""The attentions that come with the project."""

_OWN = [
    Style(colour, mark)
    for colour in ("#c2185b", "#00695c", "#5d4037", "#3949ab", "#ef6c00", "#558b2f", "#6a1b9a", "#0288d1")
    for mark in ("pentagon", "x", "house")
]


def styles(attentions: Iterable[str]) -> dict[str, Style]:
    """Return the style of each attention, given with its options as in the frame of a table.

    That of a user's own attention follows from its name alone, unless another one in the figure has the same.
    """
    variants: dict[str, list[str]] = {}
    for text in sorted(set(attentions), key=natural):
        variants.setdefault(name_and_options(text)[0], []).append(text)
    base: dict[str, Style] = {}
    for name in sorted(variants):
        base[name] = STYLES[name] if name in STYLES else _own(name, set(base.values()))
    marks = [style.mark for style in base.values()]
    return {
        text: style
        for name, texts in variants.items()
        for text, style in zip(texts, _variants(base[name], marks, len(texts)), strict=True)
    }


def _own(name: str, taken: set[Style]) -> Style:
    start = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    around = [_OWN[(start + step) % len(_OWN)] for step in range(len(_OWN))]
    return next((style for style in around if style not in taken), around[0])


def _variants(base: Style, marks: list[str], number: int) -> list[Style]:
    """Return a style per variant: the base, the base hollow, then marks that no other attention of the figure has."""
    order = sorted((mark for mark in MARKS if mark != base.mark), key=lambda mark: mark in marks)
    all_of_them = [Style(base.colour, mark, filled) for mark in (base.mark, *order) for filled in (True, False)]
    return [all_of_them[position % len(all_of_them)] for position in range(number)]

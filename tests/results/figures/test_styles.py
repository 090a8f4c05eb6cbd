"""Each attention looks the same in all figures, and unlike the others: to all eyes, in grey, or by its mark."""

import itertools

import numpy as np
import pytest

import attentions
from results.figures.styles import _OWN, MARKS, STYLES, Style, styles

# G. M. Machado, M. M. Oliveira, L. A. F. Fernandes, "A physiologically-based model for simulation of color vision
# deficiency", IEEE TVCG 15, 2009: of linear RGB, where one kind of cone is missing.
EYES = {
    "all cones": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]]
    ),
}
XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]])


def lab(colour: str, eyes: str) -> np.ndarray:
    """CIE L*a*b* of a colour as these eyes see it: lightness, red against green, yellow against blue."""
    rgb = np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    ratio = XYZ @ np.clip(EYES[eyes] @ linear, 0, 1) / XYZ.sum(axis=1)
    root = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    return np.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])


def told_apart(one: Style, two: Style) -> bool:
    """By the mark, or by the colour in all eyes and in grey. A distance of 2.3 is just noticed side by side."""
    if one.mark != two.mark:
        return one.dash != two.dash
    by_colour = min(np.linalg.norm(lab(one.colour, eyes) - lab(two.colour, eyes)) for eyes in EYES)
    in_grey = abs(lab(one.colour, "all cones")[0] - lab(two.colour, "all cones")[0])
    return bool(by_colour > 10 and in_grey > 6)


def test_all_attentions_have_a_style() -> None:
    assert set(STYLES) == {name for name in attentions.names() if name in STYLES or not name.startswith("my_")}


def test_attentions_are_told_apart() -> None:
    alike = [(a, b) for a, b in itertools.combinations(STYLES, 2) if not told_apart(STYLES[a], STYLES[b])]
    assert alike == []


def test_two_of_one_colour_would_be_found() -> None:
    assert not told_apart(Style("#0072b2", "circle"), Style("#0075b5", "circle"))
    assert not told_apart(Style("#d55e00", "circle"), Style("#009e73", "circle")), "as bright as each other"


@pytest.mark.parametrize("style", [*STYLES.values(), *_OWN], ids=str)
def test_each_is_seen_on_white(style: Style) -> None:
    assert lab(style.colour, "all cones")[0] < 70


def test_marks_have_a_path_and_a_dash_of_their_own() -> None:
    dashes = [tuple(Style("#000000", mark).dash) for mark in MARKS]
    assert len(set(dashes)) == len(MARKS)


def test_options_share_the_colour_and_differ_in_the_mark() -> None:
    texts = [f"focused(focusing_factor={factor})" for factor in (2, 3, 4, 8, 32)]
    found = styles([*texts, "linear", "softmax"])
    assert {found[text].colour for text in texts} == {STYLES["focused"].colour}
    assert len({(found[text].mark, found[text].filled) for text in texts}) == 5
    assert found[texts[0]] == STYLES["focused"]
    assert found["linear"] == STYLES["linear"]
    for text in texts[2:]:
        assert found[text].mark not in ("square", "circle"), "those of linear and softmax"


def test_a_users_own_keeps_its_style() -> None:
    alone = styles(["my_attention"])["my_attention"]
    assert alone in _OWN
    assert styles(["softmax", "my_attention(width=3)", "zebra"])["my_attention(width=3)"] == alone
    many = styles([f"own{number}" for number in range(len(_OWN))])
    assert len(set(many.values())) == len(_OWN), "no two of a figure are alike"


def test_own_marks_are_unlike_those_of_the_project() -> None:
    assert not {style.mark for style in _OWN} & {style.mark for style in STYLES.values()}

"""Panels part what may not be compared, under titles that are short and unlike each other."""

from typing import Any

import pandas as pd

from results.figures import accuracy
from results.figures.panels import panel_notes, parted
from tests.results.figures.test_accuracy import ONE, TWO, Records
from tests.results.figures.test_accuracy import records as records


def test_titles_say_what_differs_and_notes_the_rest() -> None:
    points = pd.DataFrame({"at": range(4)})
    names = [f"train.recipe.{name}" for name in ("batch", "clip", "epochs", "lr", "warmup")]
    said = [{name: str(value) for name in names} | {"train.mode": "eager"} for value in (1, 1, 2)]
    found = parted(points, ["swin_t", "swin_t", "swin_t", "pvt_t"], [*said, said[0]])
    assert [(panel.title, list(panel.points["at"])) for panel in found] == [
        ("pvt_t", [3]),
        ("swin_t, batch 1, clip 1, epochs 1", [0, 1]),
        ("swin_t, batch 2, clip 2, epochs 2", [2]),
    ]
    assert panel_notes(found) == [
        "swin_t, batch 1, clip 1, epochs 1, moreover: lr 1, warmup 1.",
        "swin_t, batch 2, clip 2, epochs 2, moreover: lr 2, warmup 2.",
    ]


def test_no_two_titles_are_alike() -> None:
    points = pd.DataFrame({"at": range(2)})
    said = [{"a.x": "1", "a.y": "1", "a.z": "1", "a.w": str(value)} for value in range(2)]
    said = [{**each, "a.x": "1"} for each in said]
    found = parted(points, ["", ""], [{**said[0], "b.x": "1"}, {**said[1], "b.x": "1"}])
    assert [panel.title for panel in found] == ["w 0", "w 1"]
    same = [{f"a{number}.x": str(value) for number in range(5)} | {"a0.x": "1"} for value in (1, 2)]
    assert len({panel.title for panel in parted(points, ["", ""], same)}) == 2


def test_trained_and_evaluated_models_are_told_apart(records: Records, make: Any) -> None:
    for attention in (ONE, TWO):
        records.costs(attention, 4.0)
    records.train(ONE, 80.0)
    records.add(TWO, make.evaluate("two.pth"), {"top1": 81.3, "n_images": 50000})
    figure = accuracy(records.frame)
    assert sorted(figure.data["panel"]) == ["swin_t, evaluated", "swin_t, trained here"]

"""Given models on the same images: won and lost, by class; and what cannot be compared."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import results
from results import Record
from results.statistics import paired_shares
from results.tables import evaluated_sheet, evaluations, to_plain

IMAGES = 300


class Evaluated:
    def __init__(self, make: Any, folder: Path) -> None:
        self.make, self.folder = make, folder
        self.records: list[Record] = []

    def add(self, name: str, attention: str, bits: np.ndarray, kind: str = "short_side", **metrics: Any) -> Record:
        key = f"k{len(self.records)}"
        cell = self.make.cell(name, attention, self.make.evaluate(f"{name}.pth", kind), family=name)
        values = {"top1": 100 * float(bits.mean()), "n_images": len(bits), "val_list": "abc", **metrics}
        results.write_correct(self.folder / key / "correct.npy", bits)
        record: Record = self.make.record(key, cell, values, folder=self.folder)
        self.records.append(record)
        return record


@pytest.fixture
def given(make: Any, tmp_path: Path) -> Evaluated:
    found = Evaluated(make, tmp_path)
    rng = np.random.default_rng(0)
    base = rng.random(IMAGES) < 0.7
    better = base | (rng.random(IMAGES) < 0.3)
    found.add("swin_t", "softmax", base)
    found.add("flatten_swin_t", "focused", better, kind="squash")
    found.add("other", "linear", base ^ (rng.random(IMAGES) < 0.05))
    results.write_image_list(tmp_path, "abc", ["cat", "dog", "rat"], [index % 3 for index in range(IMAGES)])
    return found


def test_images_won_and_lost(given: Evaluated) -> None:
    frame = evaluations(given.records, "swin_t").set_index("backbone")
    row = frame.loc["flatten_swin_t"]
    first, second = (
        results.read_correct(given.folder / record.key / "correct.npy", IMAGES) for record in given.records[:2]
    )
    won, lost = int((second & ~first).sum()), int((first & ~second).sum())
    assert (row["won"], row["lost"]) == (won, lost)
    pair = paired_shares(won, lost, IMAGES)
    assert (row["low"], row["high"], row["p"]) == (100 * pair.low, 100 * pair.high, pair.p)
    assert row["verdict"] == "better"
    assert frame.loc["other", "verdict"] == "not distinguishable"
    assert frame.loc["swin_t", "verdict"] == "baseline"
    by_class = {
        name: int((second & ~first)[number::3].sum() - (first & ~second)[number::3].sum())
        for number, name in enumerate(("cat", "dog", "rat"))
    }
    found = dict(part.split(" ") for part in row["classes_won"].split(", "))
    assert {name: int(number) for name, number in found.items()} == by_class
    assert row["classes_lost"] == ""
    assert row["differs"] == "preprocessing (squash, short_side)"
    text = to_plain(evaluated_sheet(frame.reset_index()))
    assert "most images won, on balance, in " in text
    assert "evaluated differently from the baseline: preprocessing (squash, short_side)" in text


@pytest.mark.parametrize("baseline", ["swin_t", "swin_t.pth", "softmax", "swin_t (swin_t.pth)"])
def test_a_baseline_by_backbone_weights_or_attention(given: Evaluated, baseline: str) -> None:
    frame = evaluations(given.records, baseline)
    assert frame.loc[frame["verdict"] == "baseline", "backbone"].tolist() == ["swin_t"]


def test_practically_equal(given: Evaluated) -> None:
    frame = evaluations(given.records, "swin_t", rope=20.0).set_index("backbone")
    assert frame.loc["other", "verdict"] == "practically equal within 20 points"


def test_without_the_list_of_classes_there_are_no_classes(given: Evaluated) -> None:
    (given.folder / "image_lists" / "abc.json").unlink()
    assert set(evaluations(given.records, "swin_t")["classes_won"]) == {""}


@pytest.mark.parametrize("content", ["{", "[]", '{"classes": ["cat"], "targets": [1]}'])
def test_a_damaged_list_of_classes_is_named_and_left_out(given: Evaluated, content: str) -> None:
    whole = evaluations(given.records, "swin_t")
    (given.folder / "image_lists" / "abc.json").write_text(content)
    frame = evaluations(given.records, "swin_t")
    assert set(frame["classes_won"]) == set(frame["classes_lost"]) == {""}
    assert frame["difference"].dropna().tolist() == whole["difference"].dropna().tolist() != []
    text = to_plain(evaluated_sheet(frame))
    assert text.count("The classes of the images are not known: image_lists/abc.json: ") == 1
    assert str(given.folder) not in text


def test_other_images_are_not_compared(given: Evaluated) -> None:
    given.add("apart", "softmax", np.ones(50, dtype=bool), val_list="xyz")
    frame = evaluations(given.records, "swin_t").set_index("backbone")
    assert frame.loc["apart", "verdict"] == "no baseline"


@pytest.mark.parametrize(
    ("baseline", "said"),
    [
        ("deit", "no evaluation here is of 'deit'; there are: flatten_swin_t"),
        (
            "twice",
            r"'twice' fits several: twice \(twice.pth\) of .*/k3.json, twice \(twice.pth\) of .*/k4.json; "
            "name one of them, or choose with compare --where",
        ),
    ],
)
def test_baselines_that_are_refused(given: Evaluated, baseline: str, said: str) -> None:
    for kind in ("short_side", "squash"):
        given.add("twice", "softmax", np.ones(IMAGES, dtype=bool), kind)
    with pytest.raises(ValueError, match=said):
        evaluations(given.records, baseline)


def test_nothing_to_compare(make: Any) -> None:
    with pytest.raises(ValueError, match="no evaluation of given weights here"):
        evaluations([make.record("a", make.cell("a", "softmax", make.train()), {"top1": 1.0})])


def test_bits_of_another_run_are_not_compared(given: Evaluated) -> None:
    results.write_correct(given.folder / "k1" / "correct.npy", np.zeros(IMAGES, dtype=bool))
    frame = evaluations(given.records, "swin_t")
    assert frame.set_index("backbone")["verdict"].to_dict() == {
        "swin_t": "baseline", "flatten_swin_t": "images not known", "other": "not distinguishable"
    }  # fmt: skip
    assert "flatten_swin_t, focused: not compared, as it is not known which images were right: k1/correct.npy: " in (
        to_plain(evaluated_sheet(frame))
    )


def test_without_the_bits_of_the_baseline_nothing_is_compared(given: Evaluated) -> None:
    (given.folder / "k0" / "correct.npy").unlink()
    with pytest.raises(ValueError, match=r"nothing to compare, .* were right: k0/correct\.npy: cannot be read"):
        evaluations(given.records, "swin_t")

"""Mean ranks over backbones: the numbers of `rank_over`, and what a few backbones cannot say."""

import itertools
from typing import Any

import pandas as pd
import pytest

from results.figures import ranks
from results.statistics import rank_over
from results.tables import table
from tests.results.figures.common import check, texts_of, values

SCORES = {
    "swin": {"softmax": 81.0, "linear": 79.0, "mine": 82.0},
    "pvt": {"softmax": 78.0, "linear": 77.0, "mine": 79.0},
    "deit": {"softmax": 72.0, "linear": 73.0, "mine": 74.0},
}


def frame_of(make: Any, scores: dict[str, dict[str, float]], seeds: int = 2) -> pd.DataFrame:
    records = []
    for backbone, found in scores.items():
        for attention, top1 in found.items():
            for seed in range(seeds):
                cell = make.cell(backbone, attention, make.train(seed=seed), family=backbone)
                metrics = {"top1": top1 + (seed - (seeds - 1) / 2) / 10, "n_images": 100}
                records.append(make.record(f"{backbone}{attention}{seed}", cell, metrics))
    return table(records)


def test_it_draws_the_mean_ranks(make: Any, capfd: Any) -> None:
    figure = ranks(frame_of(make, SCORES), title="Ranks")
    check(figure, capfd)
    assert figure.data["attention"].tolist() == ["mine", "softmax", "linear"]
    found = rank_over([[row[name] for name in ("linear", "mine", "softmax")] for row in SCORES.values()])
    assert figure.data["mean_rank"].tolist() == pytest.approx(sorted(found.mean))
    assert figure.data["critical_difference"].tolist() == pytest.approx([found.critical] * 3)
    assert [point["mean_rank"] for point in values(figure, "point")] == figure.data["mean_rank"].tolist()
    assert {"mine", "softmax", "linear", "Ranks"} <= set(texts_of(figure))
    assert any("3 backbones are few" in line for line in figure.notes)


def test_what_costs_less_is_first(make: Any) -> None:
    records = [
        make.record(
            f"{backbone}{attention}", make.cell(backbone, attention, make.costs, family=backbone), {"gmacs": gmacs}
        )
        for backbone in ("a", "b")
        for attention, gmacs in (("softmax", 4.0), ("linear", 3.0))
    ]
    assert ranks(table(records), "gmacs").data["attention"].tolist() == ["linear", "softmax"]


def test_unlike_numbers_of_one_run_are_named_as_what_ranks_lacks(make: Any) -> None:
    cells = [make.cell(*names, make.train(seed=0)) for names in itertools.product(("a", "b"), ("softmax", "linear"))]
    records = [make.record(f"{number}", cell, {"top1": 80.0}) for number, cell in enumerate([*cells, cells[0]])]
    records[-1].metrics["top1"] = 70.0
    with pytest.raises(ValueError, match=r"^ranks: a and softmax has unlike numbers of one run, 80\.0 and 70\.0"):
        ranks(table(records))


def test_an_attention_that_a_backbone_lacks_is_left_out_by_name(make: Any) -> None:
    scores = {name: dict(found) for name, found in SCORES.items()}
    del scores["pvt"]["linear"]
    figure = ranks(frame_of(make, scores))
    assert "linear" not in set(figure.data["attention"])
    assert "Left out, as a backbone has none: linear." in figure.notes


def test_a_backbone_without_any_number_leaves_no_attention_out(make: Any) -> None:
    frame = frame_of(make, SCORES)
    counted = table([make.record("x", make.cell("cswin", "softmax", make.costs), {"gmacs": 4.0})])
    both = ranks(pd.concat([frame, counted], ignore_index=True))
    assert both.data.equals(ranks(frame).data)


def speeds(make: Any, **changes: Any) -> pd.DataFrame:
    """Speeds of two attentions in three backbones; `changes` are those of linear in the last one."""
    records = []
    for backbone in ("a", "b", "c"):
        for attention, speed in (("softmax", 10.0), ("linear", 20.0)):
            own = changes if (backbone, attention) == ("c", "linear") else {}
            metrics = {"images_per_s": speed, "infer_disturbed": own.get("disturbed")}
            cell = make.cell(backbone, attention, make.speed(**own.get("runtime", {})), family=backbone)
            records.append(make.record(f"{backbone}{attention}", cell, metrics))
    return table(records)


def test_numbers_of_unlike_circumstances_rank_nothing(make: Any) -> None:
    assert ranks(speeds(make), "images_per_s").data["backbones"].tolist() == [3, 3]
    figure = ranks(speeds(make, runtime={"batch": 8}), "images_per_s")
    assert figure.data["backbones"].tolist() == [2, 2]
    assert "Left out, as its numbers are of unlike circumstances: c." in figure.notes


def test_a_disturbed_number_ranks_nothing(make: Any) -> None:
    with pytest.raises(ValueError, match="here are 1 such attentions"):
        ranks(speeds(make, disturbed="a neighbour"), "images_per_s")


@pytest.mark.parametrize(
    ("scores", "metric", "said"),
    [
        ({"swin": SCORES["swin"]}, "top1", "ranks need 2 attentions that have a top1 in each of at least 2 backbones"),
        (SCORES, "n_images", "n_images has no better end, so it ranks nothing"),
        (SCORES, "gmacs", "^no row has a gmacs"),
    ],
)
def test_what_cannot_be_ranked_is_refused(make: Any, scores: Any, metric: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ranks(frame_of(make, scores), metric)

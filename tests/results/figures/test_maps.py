"""Maps over an image, blocks over depth: one scale of colours, weights where they are, nothing where there is none."""

import io
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from results.figures import Seen, analysis, maps, queries, rendered
from results.tables import analysis_sheet, to_plain
from results.tables.analyzed import MEASURES
from tests.results.figures.common import check, layers, texts_of


def jpeg() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 80, 80)).save(stream, "JPEG")
    return stream.getvalue()


def seen(weights: np.ndarray, label: str = "one", **changes: Any) -> Seen:
    cells = weights.shape[2:]
    given: dict[str, Any] = {"queries": (5,), "windows": (None,) * weights.shape[1]} | changes
    return Seen(label, jpeg(), cells, weights=weights, **given)


def heats(figure: Any) -> list[dict[str, Any]]:
    return [each for each in layers(figure.spec) if "flatten" in str(each.get("transform"))]


def test_all_panels_share_a_scale_and_the_mean_is_first(capfd: Any) -> None:
    weights = np.linspace(0, 1, 32).reshape(1, 2, 4, 4)
    figure = maps([seen(weights), seen(weights / 2, "two")])
    check(figure, capfd)
    domains = [each["encoding"]["color"]["scale"]["domain"] for each in heats(figure)]
    assert domains == [[0, 1.0]] * 6
    assert texts_of(figure).count("weight") == 1, "one legend for all"
    mean = heats(figure)[0]["data"]["values"][0]["weights"]
    assert mean == pytest.approx(weights.mean(axis=1).ravel().tolist(), rel=1e-3)
    assert {"one", "two", "mean of the heads", "head 1", "head 2", "Marked: the query."} <= set(texts_of(figure))
    row = figure.data[(figure.data["model"] == "two") & (figure.data["head"] == 2)].iloc[5]
    assert (row["key"], row["row"], row["column"], row["weight"]) == (5, 1, 1, weights[0, 1, 1, 1] / 2)


def test_no_image_is_read_out_as_its_bytes() -> None:
    drawn = rendered(maps([seen(np.ones((1, 1, 4, 4)))]), ".svg").decode()
    assert "data:image/jpeg" in drawn
    assert 'aria-label="url' not in drawn


def test_negative_weights_have_another_colour_and_one_large_weight_does_not_hide_the_rest() -> None:
    weights = np.full((1, 1, 4, 4), -0.5)
    weights[..., 0, 0] = 1
    scale = heats(maps([seen(weights)]))[0]["encoding"]["color"]["scale"]
    assert (scale["domain"], scale["domainMid"]) == ([-1, 1], 0)
    many = np.full((1, 1, 40, 40), 0.001)
    many[..., 0, 0] = 1
    figure = maps([seen(many)])
    assert heats(figure)[0]["encoding"]["color"]["scale"]["domain"] == [0, pytest.approx(0.001)]
    assert "The scale of colours ends at a weight that 0.5 % exceed." in figure.notes


def test_cells_without_a_key_are_left_out_and_windows_lie_where_the_shift_has_put_them(capfd: Any) -> None:
    weights = np.full((1, 1, 4, 4), np.nan)
    weights[..., 1:3, 1:3] = 0.25
    figure = maps([seen(weights, windows=((2, 2),), shift=1)])
    check(figure, capfd)
    assert len(figure.data) == 4
    assert heats(figure)[1]["data"]["values"][0]["weights"].count(None) == 12
    (borders,) = [each for each in layers(figure.spec) if each["mark"].get("color") == "white"]
    lines = borders["data"]["values"]
    assert sorted({line["top"] for line in lines if line["top"] == line["bottom"]}) == [1, 3]
    assert sorted({line["left"] for line in lines if line["left"] == line["right"]}) == [1, 3]


def test_a_head_that_does_not_meet_a_cell_counts_as_zero_in_the_mean() -> None:
    weights = np.full((1, 2, 1, 2), np.nan)
    weights[0, 0, 0, 0], weights[0, 1, 0] = 1.0, 0.5
    assert heats(maps([seen(weights, queries=(0,))]))[0]["data"]["values"][0]["weights"] == [0.75, 0.25]


def test_a_class_token_has_no_mark_and_several_queries_a_slider(capfd: Any) -> None:
    weights = np.random.default_rng(0).random((3, 1, 2, 2))
    figure = maps([seen(weights, queries=(None, 0, 3))])
    check(figure, capfd)
    (slider,) = figure.spec["params"]
    assert slider["bind"] == {"input": "range", "min": 0, "max": 2, "step": 1, "name": "query "}
    marks = [each for each in layers(figure.spec) if each["mark"].get("filled") is False]
    assert [value["query"] for value in marks[0]["data"]["values"]] == [1, 2]
    assert figure.data["query"].unique().tolist() == ["class", 0, 3]
    assert "NaN" not in json.dumps(figure.spec)


def blocks() -> pd.DataFrame:
    rows = []
    for model, attention in (("a softmax", "softmax(fused=True)"), ("a xca", "xca()")):
        for block in range(3):
            row: dict[str, Any] = {"model": model, "stage": 1, "block": block, "attention": attention, "images": 9}
            row["kind"] = "jacobian" if "xca" in model else "per head"
            for name in MEASURES:
                known = name != "convolution_share"
                row |= {name: 2.0 + block if known else None}
                row |= {f"{name}_low": 1.5 + block if known else None, f"{name}_high": 2.5 + block if known else None}
            rows.append(row)
    return pd.DataFrame(rows)


def test_blocks_are_drawn_and_printed_with_their_intervals(capfd: Any) -> None:
    figure = analysis(blocks())
    check(figure, capfd)
    written = texts_of(figure)
    assert MEASURES["rank"] in written
    assert MEASURES["convolution_share"] not in written
    assert {"a softmax", "a xca"} <= set(written)
    text = to_plain(analysis_sheet(blocks()))
    assert "2.0 ± 0.5" in text
    assert "convolution" not in text
    assert "xca(): not linear in the values channel by channel; measures are of norms of its Jacobian." in text
    assert "Means over 9 images" in text


def test_no_measure_is_no_figure() -> None:
    frame = blocks()
    frame[list(MEASURES)] = float("nan")
    with pytest.raises(ValueError, match="no block has any measure"):
        analysis(frame)


def test_queries_are_drawn_side_by_side(capfd: Any) -> None:
    rows = np.array([[0.2, 0.8], [0.5, 0.5]])
    figure = queries({"one": rows, "other": rows[::-1]}, ["q", "3 q"])
    check(figure, capfd)
    assert {"one", "other", "q", "3 q", "weight", "key"} <= set(texts_of(figure))
    assert figure.data[(figure.data["attention"] == "other") & (figure.data["query"] == "q")]["weight"].tolist() == [
        0.5,
        0.5,
    ]
    with pytest.raises(ValueError, match="4 queries are too many to tell apart; allowed: up to 3"):
        queries({"one": np.ones((4, 2))}, list("abcd"))

"""Times over the number of tokens: what a file of `scaling` holds is what is drawn."""

import json
from pathlib import Path
from typing import Any

import pytest

from results.figures import read_figure, rendered, scaling
from results.figures.scaling import looks
from results.figures.styles import STYLES
from tests.results.figures.common import check, layers, texts_of, values

SIZES = (49, 100, 196, 400)


def result(name: str, ms: float | None, ratio: float | None, problem: str | None = None) -> dict[str, Any]:
    numbers = {"ms_p25": ms and 0.9 * ms, "ms_p50": ms, "ms_p75": ms and 1.1 * ms, "ratio": ratio, "peak_mib": ms}
    numbers |= {"ratio_low": ratio and 0.9 * ratio, "ratio_high": ratio and 1.1 * ratio, "saved_mib": ms}
    return {"candidate": name, "problem": problem, "decided": True, "disturbed": None, **numbers}


def plain(image_sizes: bool = False) -> dict[str, Any]:
    """Softmax grows with the square, linear with the number; agent runs out of memory at the last two sizes."""
    sizes: list[dict[str, Any]] = []
    for at, n in enumerate(SIZES):
        agent = result("agent", n / 50, 100 / n) if at < 2 else result("agent", None, None, "out of memory")
        found = [result("softmax", n * n / 1e4, None), result("linear@bf16", n / 100, 100 / n), agent]
        of_a_model = {"image_size": 32 * (at + 1), "windows": "8x8 of 16x16"} if image_sizes else {}
        sizes.append(
            {"tokens": n, "place": str(n), "results": found, "disturbed": "noise" if at == 1 else None, **of_a_model}
        )
    fitted = {
        "softmax": {"exponent_of_seconds": {"value": 2.0, "low": 1.9, "high": 2.1}, "faster_from": None},
        "linear@bf16": {
            "exponent_of_seconds": {"value": 1.0, "low": 0.9, "high": 1.1},
            "faster_from": {"at": 100.0, "low": 49, "high": 196, "decided": True},
        },
        "agent": {
            "exponent_of_seconds": None,
            "faster_from": {"at": 110.0, "low": None, "high": None, "decided": False},
        },
    }
    about = {"device": "cpu", "device_name": "A processor", "threads": 2, "torch": "2"}
    values = {"kind": "scaling", "work": "both", "batch": 1, "backbone": "swin_micro" if image_sizes else None}
    return {**values, "environment": about, "fitted": fitted, "sizes": sizes}


def drawn(folder: Path, content: dict[str, Any]) -> Any:
    path = folder / "scaling.json"
    path.write_text(json.dumps(content))
    return scaling(path, "Growth")


def test_it_draws_what_was_measured(tmp_path: Path, capfd: Any) -> None:
    figure = drawn(tmp_path, plain())
    check(figure, capfd)
    assert figure.data["tokens"].tolist() == [n for n in SIZES for _ in range(3)]
    points = [value for value in values(figure, "point") if "ms_p50" in value]
    assert [value["ms_p50"] for value in points if value["label"] == "softmax"] == [n * n / 1e4 for n in SIZES]
    texts = set(texts_of(figure))
    assert {"softmax, exponent 2.00 (1.90 to 2.10)", "time over that of softmax", "peak memory (MiB)"} <= texts
    scales = {
        each["encoding"]["x"]["scale"]["type"] for each in layers(figure.spec) if "tokens" in str(each["encoding"])
    }
    assert scales == {"log"}
    assert any("nothing is decided there: 100" in line for line in figure.notes)


def test_a_crossover_is_marked_and_hollow_where_it_is_not_decided(tmp_path: Path) -> None:
    figure = drawn(tmp_path, plain())
    marks = {value["label"]: value for value in values(figure, "point") if "at" in value}
    assert {name: value["at"] for name, value in marks.items()} == {"linear@bf16": 100.0, "agent": 110.0}
    assert marks["linear@bf16"]["fill"] == STYLES["linear"].colour
    assert marks["agent"]["fill"] == "white"
    between = [(each["low"], each["high"]) for each in values(figure, "rule") if "one" in each]
    assert between == [(49, 196)]


def test_what_ran_out_of_memory_is_a_cross_at_the_top(tmp_path: Path) -> None:
    figure = drawn(tmp_path, plain())
    crosses = [value for value in values(figure, "point") if "top" in value]
    assert [(value["label"], value["tokens"]) for value in crosses] == [("agent", 196)]
    assert "Crosses at the top: where agent ran out of memory." in figure.notes


def test_images_have_their_windows_said(tmp_path: Path, capfd: Any) -> None:
    figure = drawn(tmp_path, plain(image_sizes=True))
    check(figure, capfd)
    assert "side of the image (pixels)" in texts_of(figure)
    assert "swin_micro at 64: tokens meet in 8x8 of 16x16." in figure.notes


def test_a_page_takes_it(tmp_path: Path) -> None:
    path = tmp_path / "figure.json"
    path.write_bytes(rendered(drawn(tmp_path, plain()), ".json"))
    assert read_figure(path).title == "Growth"


def test_an_attention_has_its_colour_however_it_is_run() -> None:
    found = looks(["softmax", "softmax@explicit", "softmax #2", "focused(kernel_size=3)@bf16", "mine.py:attention"])
    assert found["softmax"] == STYLES["softmax"]
    assert {found[name].colour for name in ("softmax@explicit", "softmax #2")} == {STYLES["softmax"].colour}
    assert found["focused(kernel_size=3)@bf16"] == STYLES["focused"]
    assert len(set(found.values())) == 5


@pytest.mark.parametrize("content", ["{}", '{"kind": "scaling"}', '{"kind": "scaling", "fitted": 3, "sizes": [1]}'])
def test_another_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"other\.json: no file that `attention-bench scaling") as problem:
        scaling(path)
    assert "\n" not in str(problem.value)


def test_nothing_measured_is_nothing_drawn(tmp_path: Path) -> None:
    content = plain()
    for size in content["sizes"]:
        size["results"] = [result(name, None, None, "out of memory") for name in content["fitted"]]
    with pytest.raises(ValueError, match="nothing was measured: out of memory"):
        drawn(tmp_path, content)

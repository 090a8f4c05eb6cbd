"""Figures from files: those of our commands are read, and what is none or would load anything is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from results.figures import accuracy, breakdown, read_figure, render
from tests.results.figures.common import QUICKSTART, frame_of

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
POINTS: dict[str, Any] = {
    "$schema": SCHEMA,
    "data": {"values": [{"a": 1}]},
    "mark": "point",
    "encoding": {"x": {"field": "a", "type": "quantitative"}},
}
IMAGE = {"mark": {"type": "image", "width": 5, "height": 5}}


@pytest.mark.parametrize("notes", [True, False])
def test_what_is_written_is_read(tmp_path: Path, notes: bool) -> None:
    figure = accuracy(frame_of(QUICKSTART), title="A title")
    found = read_figure(render(figure, tmp_path / "a.json", notes=notes))
    assert found.title == "A title"
    assert found.description == " ".join(figure.notes)
    own = json.loads(json.dumps(figure.spec))
    for said_elsewhere in ("$schema", "title", "usermeta"):
        del own[said_elsewhere]
    assert found.spec == own, "notes are text of the page, not lines of the picture"


def test_without_a_title_it_is_headed_by_the_name_of_its_file(tmp_path: Path) -> None:
    assert read_figure(render(breakdown(frame_of(QUICKSTART)), tmp_path / "parts.json")).title == "parts"
    (tmp_path / "b.json").write_text(json.dumps(POINTS | {"title": ["Two", "lines"]}))
    assert read_figure(tmp_path / "b.json").title == "Two lines"


def test_a_photograph_within_the_file_is_allowed(tmp_path: Path) -> None:
    values = {"values": [{"a": 1, "photo": "data:image/png;base64,iVBORw0KGgo="}]}
    encoding = POINTS["encoding"] | {"url": {"field": "photo"}}
    (tmp_path / "a.json").write_text(json.dumps(POINTS | IMAGE | {"data": values, "encoding": encoding}))
    assert read_figure(tmp_path / "a.json").spec["data"] == values


def calculated(text: str) -> dict[str, Any]:
    """Images whose addresses no text of the file holds."""
    transform = [{"calculate": text, "as": "place"}]
    return POINTS | IMAGE | {"transform": transform, "encoding": POINTS["encoding"] | {"url": {"field": "place"}}}


NONE = "no specification of Vega-Lite 6, as `attention-bench figure ... -o x.json` writes it: "
LOADS = "a figure of a page loads nothing, and this would load "
REFUSED: list[tuple[Any, str]] = [
    ({"key": "a record"}, f"{NONE}it has no $schema"),
    (POINTS | {"$schema": SCHEMA.replace("v6", "v5")}, f"{NONE}it is of https://vega.github.io/schema/vega-lite/v5"),
    (POINTS | {"$schema": SCHEMA.replace("vega-lite", "vega")}, f"{NONE}it is of https://vega.github.io/schema/vega/"),
    (POINTS | {"$schema": 3}, f"{NONE}it is of 3"),
    ([POINTS], "does not hold a JSON object"),
    ({"$schema": SCHEMA}, "it cannot be drawn: Error: Invalid specification"),
    (POINTS | {"mark": "hay"}, "it cannot be drawn: "),
    (POINTS | {"transform": [{"filter": "((("}]}, "it cannot be drawn: "),
    (POINTS | {"data": {"url": "http://127.0.0.1/a.json"}}, f"{LOADS}http://127.0.0.1/a.json"),
    (POINTS | {"data": {"url": "a.json"}}, f"{LOADS}a.json"),
    (POINTS | {"data": {"url": "data:application/json,[]"}}, "it cannot be drawn: "),
    (POINTS | {"data": {"values": [{"a": 1, "b": "//host/a.png"}]}}, f"{LOADS}//host/a.png"),
    (POINTS | {"mark": {"type": "image", "url": "a.png"}}, f"{LOADS}a.png"),
    (POINTS | {"mark": {"type": "point", "href": "javascript:alert(1)"}}, f"{LOADS}javascript:alert(1)"),
    (calculated("'ht' + 'tp://127.0.0.1/' + datum.a"), f"{LOADS}http://127.0.0.1/1"),
    (calculated("datum.a + '.png'"), LOADS),
]


@pytest.mark.parametrize(("content", "said"), REFUSED)
def test_what_is_none_or_loads_anything_is_refused_in_one_line(tmp_path: Path, content: Any, said: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"^[^\n]*\Z") as problem:
        read_figure(path)
    assert str(problem.value).startswith(f"{path}: {said}")


def test_options_of_programs_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(POINTS | {"usermeta": {"embedOptions": {"patch": "a.json"}}}))
    assert "usermeta" not in read_figure(tmp_path / "a.json").spec

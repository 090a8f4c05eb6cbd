"""Files of each format are what they say, the same bytes each time, and need no network."""

import json
import re
import struct
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from results.figures import ENDINGS, Figure, accuracy, render, rendered
from tests.results.figures.common import QUICKSTART, frame_of, texts_in, texts_of


@pytest.fixture(scope="module")
def figure() -> Figure:
    return accuracy(frame_of(QUICKSTART), title="A title with <markup> & more")


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_same_bytes_each_time(figure: Figure, ending: str, tmp_path: Path) -> None:
    path = render(figure, tmp_path / f"figure{ending}")
    assert {rendered(figure, ending) for _ in range(5)} == {path.read_bytes()}


def test_svg(figure: Figure) -> None:
    root = ET.fromstring(rendered(figure, ".svg"))
    assert root.tag.endswith("svg")
    texts = texts_of(figure)
    assert "A title with <markup> & more" in texts
    assert "Top-1 of 2,000 images." in texts
    assert "Top-1 of 2,000 images." not in texts_in(rendered(figure, ".svg", notes=False))


def test_nothing_is_drawn_outside(figure: Figure) -> None:
    root = ET.fromstring(rendered(figure, ".svg"))
    width, height = (float(root.attrib[side]) for side in ("width", "height"))
    assert 500 < width < 1000
    assert 300 < height < 700


def test_pdf(figure: Figure) -> None:
    content = rendered(figure, ".pdf")
    assert content.startswith(b"%PDF-1.")
    assert content.rstrip().endswith(b"%%EOF")
    assert len(re.findall(rb"/Type\s*/Page\b", content)) == 1


def test_png(figure: Figure) -> None:
    content = rendered(figure, ".png")
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    root = ET.fromstring(rendered(figure, ".svg"))
    for pixels, side in ((width, "width"), (height, "height")):
        assert pixels == pytest.approx(float(root.attrib[side]) * 300 / 72, abs=3)


def test_html_needs_no_network(figure: Figure) -> None:
    content = rendered(figure, ".html").decode()
    assert "<html" in content
    assert not re.search(r"<(script|link)\b[^>]*\b(src|href)=", content)


def test_json_is_the_specification(figure: Figure) -> None:
    assert json.loads(rendered(figure, ".json")) == figure.captioned
    assert json.loads(rendered(figure, ".json", notes=False)) == figure.spec


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("figure.gif", "no format for '.gif'; a figure ends in .svg"),
        ("figure", "it has no ending; a figure ends in .svg"),
        ("folder.pdf", "Is a directory"),
        ("file/figure.pdf", "File exists"),
    ],
)
def test_what_cannot_be_written_is_one_line(figure: Figure, name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "folder.pdf").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError) as refusal:
        render(figure, tmp_path / name)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_name_with_characters_that_xml_has_none_of_is_drawn(ending: str) -> None:
    drawn = accuracy(frame_of(QUICKSTART), title="\x1b[31m \x00 \ud83d")
    assert rendered(drawn, ending)
    if ending == ".svg":
        assert "\\x1b[31m \\x00 \\ud83d" in texts_of(drawn)

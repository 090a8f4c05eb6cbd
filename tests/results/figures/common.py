"""What several of these tests look at: the committed records, and what is wrong with a figure."""

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import vl_convert

import results
from results import tables
from results.figures import VEGA_LITE, Figure, rendered

ROOT = Path(__file__).parents[3]
FASHION = ROOT / "results" / "fashion_mnist"
QUICKSTART = ROOT / "tests" / "compatibility" / "a089b83" / "quickstart"
"""Costs, speeds and trainings of four attentions in two backbones."""


def frame_of(folder: Path) -> pd.DataFrame:
    records, problems = results.read_all(folder)
    assert problems == []
    return tables.table(records)


def texts_of(figure: Figure) -> list[str]:
    """Everything that is written in the picture, line by line."""
    return texts_in(rendered(figure, ".svg"))


def texts_in(svg: bytes) -> list[str]:
    names = ("{http://www.w3.org/2000/svg}text", "{http://www.w3.org/2000/svg}tspan")
    return [node.text for node in ET.fromstring(svg).iter() if node.tag in names and node.text]


def layers(spec: Any) -> Iterator[dict[str, Any]]:
    """All layers of a specification, however deep."""
    if isinstance(spec, dict):
        if "mark" in spec:
            yield spec
        for value in spec.values():
            yield from layers(value)
    elif isinstance(spec, list):
        for value in spec:
            yield from layers(value)


def values(figure: Figure, mark: str) -> list[dict[str, Any]]:
    """The data of all layers with this mark."""
    return [value for each in layers(figure.spec) if each["mark"]["type"] == mark for value in each["data"]["values"]]


def check(figure: Figure, capfd: Any) -> None:
    """It is plain JSON with its data in it, and Vega-Lite compiles it without a warning."""
    for spec in (figure.spec, figure.captioned):
        assert json.loads(json.dumps(spec, allow_nan=False)) == spec
        assert all(url.startswith("data:image/jpeg;") for url in re.findall(r'"url": "([^"]*)"', json.dumps(spec)))
        capfd.readouterr()
        vega = vl_convert.vegalite_to_vega(spec, vl_version=VEGA_LITE, show_warnings=True)
        vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE, show_warnings=True)
        assert capfd.readouterr() == ("", ""), "no warning"
        assert vega["marks"]
    assert figure.spec["description"] == " ".join(figure.notes)
    assert len(figure.data)

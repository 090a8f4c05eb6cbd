"""Figures from files: the Vega-Lite specifications that commands write, checked before a page has them in it."""

import re
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from results.figures.figure import VEGA_LITE, Spec, uncaptioned
from results.figures.rendering import drawable
from results.records import read_json

_MAJOR = VEGA_LITE.partition(".")[0]
_ADDRESS = re.compile(r"\s*([a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)
_LINKS = ("url", "href")


class Given(NamedTuple):
    """A figure of a file: its heading, what is to be known about it, and the specification without the two."""

    title: str
    description: str
    spec: Spec


def read_figure(path: Path) -> Given:
    """Return the figure in a file, headed by its title, or else by the name of the file.

    Raises ValueError, in one line with the path, for a file that is no Vega-Lite specification of our version, that
    cannot be drawn, or that would load anything or lead anywhere: all that a figure needs is in its file.
    """
    spec = drawable(read_json(path))
    schema = str(spec.pop("$schema", ""))
    if f"/vega-lite/v{_MAJOR}" not in schema:
        is_other = f"it is of {schema}" if schema else "it has no $schema"
        raise ValueError(
            f"{path}: no specification of Vega-Lite {_MAJOR}, as `attention-bench figure ... -o x.json` writes it: "
            f"{is_other}"
        )
    spec.pop("usermeta", None)  # it may hold options of the page's programs
    for name, value in _texts(spec):
        if _ADDRESS.match(value) or (name in _LINKS and not value.startswith("data:")):
            raise ValueError(f"{path}: a figure of a page loads nothing, and this would load {_short(value)}")
    _check_drawn(path, spec)
    title, own = spec.get("title"), path.stem
    text: Any = title.get("text") if isinstance(title, dict) else title
    if isinstance(text, str | list) and text:
        own = text if isinstance(text, str) else " ".join(map(str, text))
        del spec["title"]
    return Given(own, str(spec.get("description", "")), uncaptioned(spec))


def _texts(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Return all texts in a specification, each with the name of its field."""
    if isinstance(value, dict):
        return [found for key, each in value.items() for found in _texts(each, key)]
    if isinstance(value, list):
        return [found for each in value for found in _texts(each, name)]
    return [(name, value)] if isinstance(value, str) else []


def _check_drawn(path: Path, spec: Spec) -> None:
    """Raise ValueError unless the specification can be drawn without anything from outside."""
    import vl_convert

    nowhere = list[str]()
    try:
        svg = vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE, allowed_base_urls=nowhere)
    except ValueError as error:
        reasons = [line for line in str(error).splitlines() if not line.endswith("failed:")]
        raise ValueError(f"{path}: it cannot be drawn: {_short(reasons[0] if reasons else str(error))}") from error
    # An address may also be calculated.
    for element in ElementTree.fromstring(svg).iter():
        for name, target in element.attrib.items():
            if name.rpartition("}")[2] == "href" and not target.startswith(("data:", "#")):
                raise ValueError(f"{path}: a figure of a page loads nothing, and this would load {_short(target)}")


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 100 else f"{text[:100]}..."

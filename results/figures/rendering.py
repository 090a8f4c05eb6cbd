"""A figure as a file, in the format of its ending; no browser, no network."""

import json
import re
from pathlib import Path
from typing import Any

from results.figures.figure import VEGA_LITE, Figure
from results.records import write_bytes

ENDINGS = (".svg", ".pdf", ".png", ".html", ".json")

PIXELS_PER_INCH = 300
"""Of a PNG, for print."""

# What XML has no character for ends the process in which an SVG is read.
_NO_CHARACTER = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def check_ending(path: Path) -> None:
    """Raise ValueError for a file whose ending is no format of figures."""
    if path.suffix not in ENDINGS:
        given = f"no format for {path.suffix!r}" if path.suffix else "it has no ending"
        raise ValueError(f"{path}: {given}; a figure ends in {', '.join(ENDINGS)}")


def render(figure: Figure, path: Path, *, notes: bool = True) -> Path:
    """Write the figure to a file, see `rendered`; return the path. Raises ValueError where that is not possible."""
    check_ending(path)
    return write_bytes(path, rendered(figure, path.suffix, notes=notes))


def rendered(figure: Figure, ending: str, *, notes: bool = True) -> bytes:
    """Return the content of a file with this ending; `notes`: with its notes below, or without them, for a caption."""
    import vl_convert

    spec = drawable(figure.captioned if notes else figure.spec)
    nowhere = list[str]()  # no network
    match ending:
        case ".svg":
            svg = vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE, allowed_base_urls=nowhere)
            return svg.encode()
        case ".pdf":
            return vl_convert.vegalite_to_pdf(spec, vl_version=VEGA_LITE, allowed_base_urls=nowhere)
        case ".png":
            return vl_convert.vegalite_to_png(
                spec, vl_version=VEGA_LITE, ppi=PIXELS_PER_INCH, allowed_base_urls=nowhere
            )
        case ".html":
            html = vl_convert.vegalite_to_html(spec, vl_version=VEGA_LITE, bundle=True, renderer="svg")
            return html.encode()
        case ".json":
            return (json.dumps(spec, indent=2, allow_nan=False) + "\n").encode()
    raise AssertionError(ending)


def drawable(value: Any) -> Any:
    """Return a specification in whose texts such characters are written out, as in the name of an attention."""
    if isinstance(value, dict):
        return {name: drawable(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [drawable(each) for each in value]
    if isinstance(value, str):
        return _NO_CHARACTER.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), value)
    return value

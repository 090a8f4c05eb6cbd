"""Where things are on the machine of a page's maker: as much of it as a reader needs, since pages are sent around."""

from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Any

import pandas as pd

from results.tables.columns import columns_of

_PLACES = ("root", "path", "cache")
"""Fields of tasks that hold a place."""


def short_places(folders: Iterable[Path]) -> dict[str, str]:
    """Return each folder as it was given, an absolute one by as many of its last parts as tell it from the others."""
    distinct = list(dict.fromkeys(folders))
    found = {str(folder): str(folder) for folder in distinct}
    for folder in (each for each in distinct if each.is_absolute()):
        parts = folder.parts[1:]
        tails = ["/".join(parts[-length:]) for length in range(1, len(parts) + 1)]
        others = [each.as_posix() for each in distinct if each != folder]
        own = (tail for tail in tails if not any(f"/{other}".endswith(f"/{tail}") for other in others))
        found[str(folder)] = next(own, "/".join(parts))
    return found


def without_places(value: Any) -> Any:
    """Return plain JSON of a task in which an absolute place is its last part."""
    if not isinstance(value, dict):
        return value
    return {name: _last_part(each) if name in _PLACES else without_places(each) for name, each in value.items()}


def frame_without_places(frame: pd.DataFrame, places: dict[str, str]) -> pd.DataFrame:
    """Return the frame of a table with places as the two functions above have them."""
    changed = {
        c.name: frame[c.name].map(_last_part) for c in columns_of(frame) if c.kind == "task" and c.path[-1] in _PLACES
    }
    if "folder" in frame:
        changed["folder"] = frame["folder"].map(lambda text: text_without_places(text, places))
    return frame.assign(**changed)


def text_without_places(text: Any, places: dict[str, str]) -> Any:
    """Return a text in which folders have their short names; what is no text as it is."""
    if isinstance(text, str):
        for folder, name in sorted(places.items(), key=lambda item: -len(item[0])):
            text = text if folder == name else text.replace(folder, name)
    return text


def _last_part(value: Any) -> Any:
    return PurePath(value).name if isinstance(value, str) and PurePath(value).is_absolute() else value

"""Values that many records have in common, each stored once and referred to by its number."""

import json
import math
from typing import Any


class Shared:
    """A list of values; equal ones have one number."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._numbers: dict[str, int] = {}
        self._known: dict[int, tuple[Any, int]] = {}

    def number(self, value: Any) -> int:
        """Return the number of a value of plain JSON."""
        # Records that were read together share equal values, so that most are known by identity.
        if id(value) in self._known:
            return self._known[id(value)][1]
        text = json.dumps(value, sort_keys=True)
        if text not in self._numbers:
            self._numbers[text] = len(self.values)
            self.values.append(value)
        self._known[id(value)] = (value, self._numbers[text])
        return self._numbers[text]


def coded(texts: list[str]) -> dict[str, Any]:
    """Return a column of texts: as they are, or as numbers of distinct ones where these are few."""
    distinct = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    if len(distinct) > len(texts) / 2:
        return {"texts": texts}
    return {"distinct": list(distinct), "numbers": [distinct[text] for text in texts]}


def plain(value: Any) -> Any:
    """Return a value as strict JSON has it: NaN and infinity are texts, scalars of NumPy numbers."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value

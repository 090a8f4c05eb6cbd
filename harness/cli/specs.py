"""From the texts of a command line to the models they mean; what only describes a model needs no more than this."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from backbones import BackboneSpec, preset


def settings(pairs: Sequence[str], option: str = "--set") -> dict[str, Any]:
    """Read values by name from texts such as `window=7`, `stages=LLSS`, `image_size=(192,256)`, as `option` takes them.

    A value is read as Python writes it (numbers, tuples, None, True), and stays text if it is not.

    Raises:
        ValueError: for a text without a name or a value, and a name given twice.
    """
    overrides = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name or not text:
            example = "window=7" if option == "--set" else "epochs=100"
            raise ValueError(f"cannot read {option} {pair!r}; write it as in {option} {example}")
        if name in overrides:
            raise ValueError(f"{option} gives {name} twice")
        try:
            overrides[name] = ast.literal_eval(text)
        except (SyntaxError, ValueError):
            overrides[name] = text
    return overrides


def specs_of(name: str, attentions: Sequence[str], overrides: dict[str, Any]) -> list[BackboneSpec]:
    """Return a preset with each of the attentions; if there are none, with its own.

    Raises:
        ValueError: as `preset`, and if the attention is given twice.
    """
    if not attentions:
        return [preset(name, **overrides)]
    if "attention" in overrides:
        raise ValueError("the attention is given twice, by --attention and by --set")
    return [preset(name, attention=attention, **overrides) for attention in attentions]

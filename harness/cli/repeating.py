"""Command lines that measure recorded cells again, as far as a command line can describe them."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import attentions
import results
from backbones import preset
from harness.cells import FOLDER, MICRO, Cell, Recipe, Runtime, Speed
from harness.cells.runtime import version_of
from harness.cells.source import EMBEDDED, FASHION_MNIST, IMAGENET
from harness.cli.selection import preprocessing
from harness.cli.specs import settings
from harness.published.recipes import RECIPES, recipe_of
from harness.sweeps.expand import SWEEPS, expand

AGAIN = "again"
"""The folder that the lines measure into: in the old one the cell is recorded, and nothing would be measured."""

Words = list[str]


def commands(records: Sequence[results.Record], sweeps: Iterable[str] = ()) -> dict[str, str]:
    """Return a command line for the key of each record that one can describe.

    Cells of the `sweeps` are named in them; others are described by their values, or found in the project's sweeps.
    """
    found: dict[str, str] = {}
    left = {record.key: record.cell for record in records}
    for name in sweeps:
        found |= _of_sweep(name, expand(name), left.keys() - found.keys())
    models: dict[str, Words | None] = {}
    for key, cell in left.items():
        if key in found:
            continue
        text = json.dumps(cell["backbone"], sort_keys=True)
        if text not in models:
            models[text] = _model(cell["backbone"])
        model = models[text]
        words = None if model is None else _described(cell["backbone"]["name"], model, cell["task"])
        if words is not None:
            found[key] = _line(words, cell)
    if left.keys() - found.keys():
        for name in SWEEPS:
            found |= _of_sweep(name, expand(name), left.keys() - found.keys())
    return found


def _of_sweep(name: str, cells: Sequence[Cell], wanted: Iterable[str]) -> dict[str, str]:
    """Return lines for the wanted cells of a sweep: those whose label no other label holds."""
    wanted = set(wanted)
    mine = [cell for cell in cells if cell.key in wanted] if wanted else []
    labels = [cell.label for cell in cells] if mine else []
    return {
        cell.key: _line(["run", name, "--only", cell.label], cell.to_json())
        for cell in mine
        if sum(cell.label in label for label in labels) == 1
    }


def _line(words: Words, cell: Mapping[str, Any]) -> str:
    return " ".join(map(_quoted, ["attention-bench", *words, *imports(cell["backbone"]["attention"]), "--out", AGAIN]))


def _quoted(word: str) -> str:
    """Return a word for a shell; options of attentions hold single quotes, which read badly inside single quotes."""
    plain = shlex.quote(word)
    return f'"{word}"' if "'" in word and not set(word) & set('"$`\\!\n') else plain


def imports(attention: str) -> Words:
    """Return the option that loads an attention of the user's own; nothing for one that comes with the project."""
    name = attention.partition("(")[0]
    if name not in attentions.names():
        return []
    file = getattr(sys.modules.get(attentions.lookup(name).__module__), "__file__", None)
    return next((["--import", str(path)] for path in attentions.loaded_files() if str(path) == str(file)), [])


def _model(backbone: Mapping[str, Any]) -> Words | None:
    """Return the options that make a preset this model; None if there are none."""
    fixed = ("name", "family", "attention")
    try:
        own = preset(backbone["name"]).to_json()
        replaced = {name: value for name, value in backbone.items() if name not in fixed and value != own.get(name)}
        pairs = [f"{name}={_written(value)}" for name, value in replaced.items()]
        spec = preset(backbone["name"], attention=backbone["attention"], **settings(pairs))
    except (ValueError, KeyError):
        return None
    if json.loads(json.dumps(spec.to_json())) != backbone:
        return None
    return ["--attention", backbone["attention"], *(["--set", *pairs] if pairs else [])]


def _written(value: Any) -> str:
    """Return a value as --set and --change read it."""
    return str(tuple(value)).replace(" ", "") if isinstance(value, list) else str(value)


def _described(name: str, model: Words, task: Mapping[str, Any]) -> Words | None:
    match task:
        case {"name": "costs"}:
            return ["run", "--backbone", name, *model, "--task", "costs"]
        case {"name": "speed", "runtime": dict(runtime), "min_seconds": seconds} if seconds == Speed().min_seconds:
            words = _runtime(runtime)
            return None if words is None else ["run", "--backbone", name, *model, "--task", "speed", *words]
        case {"name": "train", "weights": None, "recipe": dict(recipe), "data": dict(data)}:
            changes = _changes(name, recipe)
            return None if changes is None else ["train", name, *model, *_data(data), *changes, *_training(task)]
        case {"name": "evaluate", "weights": {"path": str(path)} as weights, "data": dict(data)} if path:
            view = task["preprocessing"]
            transform = f"{view['kind']}:{view['crop_pct']}"
            if asdict_of(preprocessing(transform)) != view:
                return None
            options = ["--ema"] if weights.get("ema") else []
            options += [] if weights.get("strict", True) else ["--allow-partial-weights"]
            options += ["--device", task["device"], "--precision", task["precision"], "--batch", str(task["batch"])]
            return ["evaluate", name, *model, "--checkpoint", path, *_data(data), "--transform", transform, *options]
    return None


def asdict_of(value: Any) -> dict[str, Any]:
    """Return a dataclass as plain JSON values."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(value)))
    return plain


def _runtime(runtime: Mapping[str, Any]) -> Words | None:
    """Return the options that make the defaults this runtime; None if there are none, as of another version."""
    own = asdict_of(Runtime())
    words: Words = []
    for name, value in runtime.items():
        if name == "version":
            try:
                if value != version_of(runtime["runtime"]):
                    return None
            except ValueError:
                return None
        elif value != own.get(name):
            option = f"--{name.replace('_', '-')}"
            words += [option] if value is True else [option, str(value)]
    return words


def _data(data: Mapping[str, Any]) -> Words:
    if data["name"] in (*EMBEDDED, FASHION_MNIST):
        return ["--data", data["name"]]
    root = data.get("root") or "/path/to/images"
    return ["--data", f"{IMAGENET}={root}" if data["name"] == IMAGENET else root]


def _changes(name: str, recipe: Mapping[str, Any]) -> Words | None:
    """Return the options that make a named recipe this one, from the nearest name; None if there are none."""
    known: dict[str, Recipe] = {"micro": MICRO, "folder": FOLDER}
    if name in RECIPES:
        known[name] = recipe_of(name)
    shortest: Words | None = None
    for label, base in known.items():
        own = asdict_of(base)
        pairs = []
        for field, value in recipe.items():
            if value == own.get(field):
                continue
            if field == "evaluation":
                text = f"{value['kind']}:{value['crop_pct']}"
                if asdict_of(preprocessing(text)) != value:
                    break
                pairs.append(f"evaluation={text}")
            else:
                pairs.append(f"{field}={_written(value)}")
        else:
            words = ["--recipe", label, *(["--change", *pairs] if pairs else [])]
            shortest = words if shortest is None or len(words) < len(shortest) else shortest
    return shortest


def _training(task: Mapping[str, Any]) -> Words:
    words = ["--seed", str(task["seed"])]
    for name, usual in (("device", "cpu"), ("precision", "fp32"), ("mode", "eager")):
        words += [f"--{name}", task[name]] if task.get(name, usual) != usual else []
    return words

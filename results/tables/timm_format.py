"""The columns of timm's results files (results-imagenet.csv and the like), for tools that read those."""

import json
from typing import Any

import pandas as pd

from results.tables.columns import is_figure, rows_of

COLUMNS = (
    "model", "img_size", "top1", "top1_err", "top5", "top5_err", "param_count", "crop_pct", "interpolation"
)  # fmt: skip
"""In timm's order: accuracies in percent with three decimals, parameters in millions with two."""

# The accuracy of a row, the first that it has: of given weights, of the moving average, of the weights as trained.
_ACCURACIES = ("evaluate_{}", "train_{}_ema", "train_{}", "{}_ema", "{}")
_PREPROCESSING = ("evaluate.preprocessing", "train.recipe.evaluation")


def to_timm(frame: pd.DataFrame) -> str:
    """Return CSV with a row for each row that has an accuracy, the best first, as timm's results files have them.

    `model` is backbone and attention with a dot between, as timm's names are of one attention each; of several seeds
    the seed is added. Raises ValueError where no row has an accuracy.
    """
    found = [row for row in map(_row, rows_of(frame)) if row is not None]
    if not found:
        raise ValueError("--format timm is for accuracies, and no row has one")
    table = pd.DataFrame(found).sort_values("top1", ascending=False, kind="stable")
    several = table["model"].duplicated(keep=False)
    table.loc[several, "model"] += table.loc[several, "seed"]
    for name in ("top1", "top1_err", "top5", "top5_err", "crop_pct"):
        table[name] = [_digits(value, 3) for value in table[name]]
    table["param_count"] = [_digits(value, 2) for value in table["param_count"]]
    return str(table[list(COLUMNS)].to_csv(index=False, lineterminator="\n"))


def _row(row: dict[str, Any]) -> dict[str, Any] | None:
    form = next((form for form in _ACCURACIES if _number(row, form.format("top1")) is not None), None)
    if form is None:
        return None
    top1, top5 = row[form.format("top1")], _number(row, form.format("top5"))
    size = json.loads(row["model.image_size"]) if isinstance(row.get("model.image_size"), str) else []
    return {
        "model": f"{row['backbone']}.{row['attention']}",
        "img_size": size[0] if len(set(size)) == 1 else "x".join(map(str, size)),
        "top1": top1,
        "top1_err": 100 - top1,
        "top5": top5,
        "top5_err": None if top5 is None else 100 - top5,
        "param_count": _number(row, "params_m"),
        "crop_pct": _preprocessing(row, "crop_pct"),
        "interpolation": _preprocessing(row, "interpolation"),
        "seed": "" if pd.isna(row.get("train.seed")) else f".seed{row['train.seed']}",
    }


def _number(row: dict[str, Any], name: str) -> Any:
    """Return a number of a row; None where it has none, or a text in its place."""
    return value if is_figure(value := row.get(name)) and not pd.isna(value) else None


def _preprocessing(row: dict[str, Any], name: str) -> Any:
    found = (row.get(f"{part}.{name}") for part in _PREPROCESSING)
    return next((value for value in found if not pd.isna(value)), None)


def _digits(value: Any, digits: int) -> str:
    return "" if pd.isna(value) else f"{value:.{digits}f}"

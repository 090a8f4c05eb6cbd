"""Paired comparison of accuracies: the same images and, seed by seed, the same seeds, with an honest interval.

Gains of attentions are near the noise of one training run on one list of images, and two accuracies with a standard
error each hide that most images are right or wrong for both models. Here every image is compared with itself.

    frame = comparisons(read_all(Path("runs"))[0])
    print(to_plain(paired_sheet(frame)))

`results.statistics` has the method.
"""

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pandas as pd

from results.records import Record
from results.statistics import holm, paired_difference
from results.tables.columns import flattened, is_figure
from results.tables.frames import in_natural_order, table
from results.tables.naming import name_and_options
from results.tables.notes import mixed_environments
from results.tables.verdicts import (
    BASELINE,
    METRIC_OF,
    NO_BASELINE,
    NO_COMMON_SEED,
    NO_IMAGES,
    ONE_SEED,
    Which,
    check_any_compared,
    check_rope,
    file_of,
    known_bits,
    run_name,
    verdict_of,
)
from results.wording import and_more, printable

# Fields of a task that change no result, and so do not split arms; the place of a file is one of them.
INCIDENTAL = ("workers", "root", "path", "label", "cache", "device_batch", "checkpoint_minutes", "tensorboard")
_OWN_COLUMNS = (
    "backbone",
    "attention",
    "seeds",
    "top1",
    "top1_sd",
    "baseline",
    "paired_seeds",
    "difference",
    "low",
    "high",
    "p",
    "p_holm",
    "verdict",
    "n_images",
    "val_list",
    "weights",
    "seeds_left_out",
    "images_unknown",
    "environments",
)

# The records of one attention by seed.
_Arm = dict[int, Record]


def comparisons(
    records: Sequence[Record],
    baseline: str = "softmax",
    weights: Which = "model",
    rope: float | None = None,
    origins: Sequence[Record] = (),
) -> pd.DataFrame:
    """Compare each attention with a baseline on the same images, one row per arm.

    An arm is the set of training records equal in all but the seed. Arms equal in all but the attention form a group,
    in which each is compared with the arm whose attention is `baseline`: its complete text, or a name with or without
    options ("softmax", "focused(focusing_factor=3)"). Only seeds that both arms have are compared. Trainings that start
    from other runs (of `records` or `origins`), each from one with its own seed and attention, are equal if those are.
    Which images were right is in the folder of each record, `<key>/correct.npy`; `weights` is "model" for the weights
    as trained or "ema" for their moving average. A training whose file cannot be read is not compared. Records of other
    tasks, including evaluations of given weights, have no seed to pair and are ignored, as are those not done.

    Columns: backbone, attention; seeds (how many), top1 (their mean, percent) and top1_sd (their standard deviation in
    points, NaN for one seed); baseline (its attention); paired_seeds (how many are compared), difference, low, high
    (points, of these seeds; the interval is of 95 %); p (two-sided: the level at which the interval just reaches 0) and
    p_holm (corrected for all comparisons of several seeds in the frame); verdict ("better" or "worse" if p_holm is
    below `LEVEL`, else "not distinguishable", and "practically equal within ..." if the interval lies within `rope`
    points of 0; "one seed" if only one is compared, "no common seed", "images not known", "no baseline" if the group
    has none, and "baseline" for the baseline itself); n_images, val_list, weights; seeds_left_out (those without a
    partner, as text); images_unknown (those whose file cannot be read, and why); environments (in what the compared
    records differ, as text); and the circumstances of the group as in `table`, `model.<field>` and `train.<field>`. A
    group's baseline comes first.

    Raises ValueError for unknown weights or weights that no record has, a `rope` that is not between 0 and 100, a
    baseline that no group has or that fits several arms of one, records of one group on different images, and where
    nothing is left to compare as files are missing, damaged or do not match the accuracies in their records.
    """
    if weights not in get_args(Which):
        raise ValueError(f"unknown weights {weights!r}; allowed: {', '.join(get_args(Which))}")
    check_rope(rope)
    groups = _groups(_with_origins(records, origins), METRIC_OF[weights])
    if not groups:
        given = any(record.cell["task"]["name"] == "evaluate" for record in records)
        hint = "; --evaluations compares those of given weights" if given else ""
        raise ValueError(f"no training record here has a {METRIC_OF[weights]}, so there is nothing to compare{hint}")
    chosen = [_chosen(arms, baseline) for arms in groups]
    if not any(chosen):
        texts = dict.fromkeys(text for arms in groups for text in arms)
        raise ValueError(f"no trained model here has the attention {baseline!r}; there are: {', '.join(texts)}")
    rows = [row for arms, base in zip(groups, chosen, strict=True) for row in _rows(arms, base, weights)]
    check_any_compared(rows)
    _judge([row for row in rows if row.get("paired_seeds", 0) > 1], rope)
    rows = [{name: printable(v) if isinstance(v, str) else v for name, v in row.items()} for row in rows]
    frame = pd.DataFrame(rows, columns=list(dict.fromkeys([*_OWN_COLUMNS, *itertools.chain(*rows)])))
    return frame.astype({"seeds": "Int64", "paired_seeds": "Int64", "n_images": "Int64"})


def _groups(records: Sequence[Record], metric: str) -> list[dict[str, _Arm]]:
    """Return the arms by attention for each group of arms that differ in nothing else."""
    groups: dict[str, dict[str, _Arm]] = {}
    for record in in_natural_order(records):
        task = record.cell["task"]
        if record.status != "done" or task["name"] != "train" or not is_figure(record.metrics.get(metric)):
            continue
        arm = groups.setdefault(_identity(record.cell), {}).setdefault(record.cell["backbone"]["attention"], {})
        if task["seed"] in arm:
            files = " and ".join(
                f"{file_of(each)} ({metric} {each.metrics[metric]})" for each in (arm[task["seed"]], record)
            )
            raise ValueError(
                f"{run_name(record)}: two records of one run, {files}; move one away, or show one folder only"
            )
        arm[task["seed"]] = record
    return list(groups.values())


def _with_origins(records: Sequence[Record], origins: Sequence[Record]) -> list[Record]:
    """Return the records with a description of the run from which a training started in place of its key.

    The key differs between seeds and attentions, which would split arms and groups; all that matters of those two is
    whether they are the training's own.
    """
    cells = {record.key: record.cell for record in (*origins, *records)}

    def described(cell: dict[str, Any]) -> dict[str, Any]:
        task = cell["task"]
        match task:
            case {"name": "train", "weights": {"run": str(key)}} if key in cells:
                run = described(cells[key])
                seed, attention = run["task"]["seed"], run["backbone"]["attention"]
                own = (seed == task["seed"] or seed, attention == cell["backbone"]["attention"] or attention)
                origin = hashlib.sha256(json.dumps([_identity(run), *own]).encode()).hexdigest()[:16]
                return {**cell, "task": {**task, "weights": {**task["weights"], "run": origin}}}
        return cell

    return [replace(record, cell=described(record.cell)) for record in records]


def _identity(cell: dict[str, Any]) -> str:
    """Return all that the arms of a group share, as text."""
    backbone = {name: value for name, value in cell["backbone"].items() if name not in ("name", "attention")}
    task = {name: value for name, value in cell["task"].items() if name != "seed"}
    return json.dumps([backbone, _without_incidental(task)], sort_keys=True)


def _without_incidental(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {name: _without_incidental(item) for name, item in value.items() if name not in INCIDENTAL}


def _chosen(arms: dict[str, _Arm], baseline: str) -> str | None:
    """Return the complete attention of the arm that is the baseline, or None."""
    if baseline in arms:
        return baseline
    wanted, options = name_and_options(baseline)
    parsed = {text: name_and_options(text) for text in arms}
    fitting = [t for t, (name, found) in parsed.items() if name == wanted and options.items() <= found.items()]
    if len(fitting) > 1:
        label = next(iter(arms[fitting[0]].values())).cell["backbone"]["name"]
        several = f"the baseline {baseline!r} fits several attentions of {label}"
        raise ValueError(f"{several}; name one: {', '.join(fitting)}")
    return fitting[0] if fitting else None


def _rows(arms: dict[str, _Arm], base: str | None, weights: Which) -> list[dict[str, Any]]:
    order = sorted(arms, key=lambda text: text != base)
    if base is None:
        return [_about(text, arms[text], weights) | {"verdict": NO_BASELINE} for text in order]
    found = {text: known_bits(arm, weights) for text, arm in arms.items()}
    _check_images([arms[text][seed] for text, (known, _) in found.items() for seed in known])
    reference, unknown = found[base]
    rows = []
    for text in order:
        ours, lacking = found[text]
        row = _about(text, arms[text], weights) | {"baseline": base}
        row |= {"images_unknown": and_more([f"seed {seed} ({why})" for seed, why in lacking.items()])}
        if text == base:
            rows.append(row | {"verdict": BASELINE})
            continue
        common = sorted(ours.keys() & reference.keys())
        row |= {"paired_seeds": len(common), "seeds_left_out": _left_out(arms[text], text, arms[base], base)}
        if common:
            pair = paired_difference(*(np.stack([bits[seed] for seed in common]) for bits in (ours, reference)))
            compared = [arm[seed] for arm in (arms[text], arms[base]) for seed in common]
            row |= {"difference": pair.points, "low": pair.low, "high": pair.high, "p": pair.p}
            row |= {"environments": ", ".join(mixed_environments(table(compared)))}
        without = NO_IMAGES if lacking or unknown else NO_COMMON_SEED
        rows.append(row | {"verdict": ONE_SEED if common else without})
    return rows


def _judge(rows: Sequence[dict[str, Any]], rope: float | None) -> None:
    """Give the rows of comparisons of several seeds their corrected p-values and verdicts."""
    for row, corrected in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row |= {"p_holm": corrected, "verdict": verdict_of(corrected, row, rope)}


def _about(attention: str, arm: _Arm, weights: Which) -> dict[str, Any]:
    """Return what a row says about its arm alone."""
    values = np.array([record.metrics[METRIC_OF[weights]] for record in arm.values()], dtype=float)
    record = next(iter(arm.values()))
    backbone, task = record.cell["backbone"], record.cell["task"]
    circumstances = flattened("model", "", {k: v for k, v in backbone.items() if k not in ("name", "attention")})
    fixed = {k: v for k, v in task.items() if k not in ("name", "seed")}
    circumstances |= flattened("task", "train", _without_incidental(fixed))
    return {
        "backbone": backbone["name"],
        "attention": attention,
        "seeds": len(arm),
        "top1": float(values.mean()),
        "top1_sd": float(values.std(ddof=1)) if len(values) > 1 else np.nan,
        "n_images": record.metrics.get("n_images"),
        "val_list": record.metrics.get("val_list"),
        "weights": weights,
        "seeds_left_out": "",
        "images_unknown": "",
        "environments": "",
    } | {column.name: value for column, value in circumstances.items()}


def _check_images(records: Sequence[Record]) -> None:
    """Raise ValueError unless the records of a group were evaluated on one list of images."""
    for other in records:
        first = records[0]
        one, two = ((r.metrics.get("n_images"), r.metrics.get("val_list")) for r in (first, other))
        if one != two or None in one:
            raise ValueError(
                f"{run_name(first)} and {run_name(other)} may have been evaluated on different images: n_images and "
                f"val_list are {one[0]} {one[1]} and {two[0]} {two[1]}; only runs on the same images are compared"
            )


def _left_out(arm: _Arm, text: str, base: _Arm, base_text: str) -> str:
    """Return the seeds without a partner, as "3, 4 of softmax(fused=True)"."""
    parts = ((sorted(arm.keys() - base.keys()), text), (sorted(base.keys() - arm.keys()), base_text))
    return " and ".join(f"{', '.join(map(str, seeds))} of {name}" for seeds, name in parts if seeds)

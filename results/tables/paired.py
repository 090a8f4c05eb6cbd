"""Paired comparison of accuracies: the same images and, seed by seed, the same seeds, with an honest interval.

Gains of attentions are near the noise of one training run on one list of images, and two accuracies with a standard
error each hide that most images are right or wrong for both models. Here every image is compared with itself.

    frame = comparisons(records, Path("runs"))
    print(to_plain(paired_sheet(frame)))

The statistics: let D[s, i] in {-1, 0, 1} be whether an arm has image i right with seed s, minus the same for the
baseline. Seeds and images are both samples (of all seeds, and of all images of this kind), and each seed meets each
image: crossed random effects without replication. With S seeds and N images and the mean squares of the two-way
analysis of variance (J. Cornfield, J. W. Tukey, "Average values of mean squares in factorials", Ann. Math. Statist. 27,
1956),

    E[MS_seed] = residual + N seed,  E[MS_image] = residual + S image,  E[MS_residual] = residual,

the grand mean of D has the variance (MS_seed + (MS_image - MS_residual)) / (S N). The first part is known from S - 1
degrees of freedom only, the second from about N - 1. Each gets its own quantile of Student's t, and the margins add as
squares (W. G. Howe, "Approximate confidence limits on the mean of X + Y", JASA 69, 1974):

    margin^2 = (t(S-1)^2 MS_seed + t(N-1)^2 max(MS_image - MS_residual, 0)) / (S N)

and never less than the margin over images alone, t(N-1)^2 MS_image / (S N), which a seed part that comes out small by
chance would undercut. In simulations these 95 % intervals cover the truth in 95 to 99 % of experiments with 2 seeds and
in 95 to 98 % with 5, whichever part dominates. One t with Satterthwaite's degrees of freedom covers 88 % with 2 seeds
and 92 % with 3 where the seed dominates, since a seed part that is small by chance also looks well known.

With one seed there is only the image part, (b + c - (b - c)^2 / N) / N^2 but for N - 1 in place of one N, where the arm
alone has b images right and the baseline alone c: the pairs that McNemar's test looks at (Psychometrika 12, 1947).
"""

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd

from results.correctness import read_correct
from results.records import Record
from results.tables.columns import columns_of, flattened, rows_of
from results.tables.frames import natural_order, table
from results.tables.sheets import Sheet
from results.tables.views import headers_of, mixed_environments, name_and_options, shortened

Which = Literal["model", "ema"]

BASELINE = "baseline"
BETTER, WORSE, NOT_RESOLVED = "better", "worse", "not resolved"
ONE_SEED, NO_COMMON_SEED, NO_BASELINE = "one seed", "no common seed", "no baseline"

_CONFIDENCE = 0.95
_FILES: dict[str, str] = {"model": "correct.npy", "ema": "correct_ema.npy"}
_METRICS: dict[str, str] = {"model": "top1", "ema": "top1_ema"}
# Fields of a task that change no result, and so do not split arms; the place of a file is one of them.
_INCIDENTAL = ("workers", "root", "path", "label", "cache", "device_batch", "checkpoint_minutes", "tensorboard")
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
    "verdict",
    "n_images",
    "val_list",
    "weights",
    "seeds_left_out",
    "environments",
)

# The records of one attention by seed.
_Arm = dict[int, Record]


class Difference(NamedTuple):
    """The mean of ours minus the baseline, and the ends of its 95 % interval, in percentage points."""

    points: float
    low: float
    high: float


def paired_difference(ours: np.ndarray, baseline: np.ndarray) -> Difference:
    """Return the difference of two accuracies from which images were right: (seeds, images) bools, row by row one seed.

    The method is described at the top of this file. With one seed the interval covers only the choice of images.
    Raises ValueError for fewer than two images.
    """
    assert ours.shape == baseline.shape, (ours.shape, baseline.shape)
    seeds, images = ours.shape
    if images < 2:
        raise ValueError(f"an interval needs at least 2 images, but there is {images}")
    right = ours.astype(float) - baseline
    mean = right.mean()
    of_seeds, of_images = right.mean(axis=1), right.mean(axis=0)
    image_square = seeds * of_images.var(ddof=1)
    image_margin = _quantile(images - 1) ** 2 * image_square
    squared = image_margin
    if seeds > 1:
        seed_square = images * of_seeds.var(ddof=1)
        residuals = right - of_seeds[:, None] - of_images + mean
        residual_square = (residuals**2).sum() / ((seeds - 1) * (images - 1))
        seed_margin = _quantile(seeds - 1) ** 2 * seed_square
        beyond_seeds = _quantile(images - 1) ** 2 * max(image_square - residual_square, 0.0)
        squared = max(seed_margin + beyond_seeds, image_margin)
    margin = float(np.sqrt(squared / (seeds * images)))
    return Difference(100 * float(mean), 100 * (float(mean) - margin), 100 * (float(mean) + margin))


def comparisons(
    records: Sequence[Record], folder: Path, baseline: str = "softmax", weights: Which = "model"
) -> pd.DataFrame:
    """Compare each attention with a baseline on the same images, one row per arm.

    An arm is the set of training records equal in all but the seed. Arms equal in all but the attention form a group,
    in which each is compared with the arm whose attention is `baseline`: its complete text, or a name with or without
    options ("softmax", "focused(focusing_factor=3)"). Only seeds that both arms have are compared. Trainings that start
    from other runs, each from one with its own seed and attention, are equal if those runs are.
    `folder` has the run folders of the records, `<key>/correct.npy`; `weights` is "model" for the weights as trained or
    "ema" for their moving average. Records of other tasks, including evaluations of given weights, have no seed to pair
    and are ignored, as are those not done.

    Columns: backbone, attention; seeds (how many), top1 (their mean, percent) and top1_sd (their standard deviation in
    points, NaN for one seed); baseline (its attention); paired_seeds (how many are compared), difference, low, high
    (points, of these seeds; the interval is of 95 %); verdict ("better" or "worse" if the interval excludes 0, else
    "not resolved"; "one seed" if only one is compared, "no common seed", "no baseline" if the group has none, and
    "baseline" for the baseline itself); n_images, val_list, weights; seeds_left_out (those without a partner, as text);
    environments (in what the compared records differ, as text); and the circumstances of the group as in `table`,
    `model.<field>` and `train.<field>`. A group's baseline comes first.

    Raises ValueError for unknown weights or weights that no record has, a baseline that no group has or that fits
    several arms of one, records of one group on different images, and a file of bits that is missing, damaged or does
    not match the accuracy in its record.
    """
    if weights not in get_args(Which):
        raise ValueError(f"unknown weights {weights!r}; allowed: {', '.join(get_args(Which))}")
    groups = _groups(_with_origins(records), _METRICS[weights])
    if not groups:
        raise ValueError(f"no training record here has a {_METRICS[weights]}, so there is nothing to compare")
    chosen = [_chosen(arms, baseline) for arms in groups]
    if not any(chosen):
        texts = dict.fromkeys(text for arms in groups for text in arms)
        raise ValueError(f"no arm here has the attention {baseline!r}; there are: {', '.join(texts)}")
    rows = [row for arms, base in zip(groups, chosen, strict=True) for row in _rows(arms, base, folder, weights)]
    frame = pd.DataFrame(rows, columns=list(dict.fromkeys([*_OWN_COLUMNS, *itertools.chain(*rows)])))
    return frame.astype({"seeds": "Int64", "paired_seeds": "Int64", "n_images": "Int64"})


def paired_sheet(frame: pd.DataFrame) -> Sheet:
    """Return the comparison for people: what distinguishes groups, accuracies, differences with intervals, verdicts."""
    circumstances = [column for column in columns_of(frame) if column.kind in ("model", "task")]
    groups = [column for column in circumstances if frame[column.name].astype(str).nunique() > 1]
    short, lines = shortened(pd.concat([frame["attention"], frame["baseline"]]))
    unpaired = bool((frame["seeds_left_out"] != "").any())
    headers = ["backbone", "attention", *headers_of(groups), "seeds", "top1", "SD"]
    headers += [*(["compared"] if unpaired else []), "difference", "95 % interval", "verdict"]
    rows = []
    for row in rows_of(frame):
        cells = [row["backbone"], short[row["attention"]], *(_text(row[column.name]) for column in groups)]
        cells += [str(row["seeds"]), f"{row['top1']:.2f}", _text(row["top1_sd"], ".2f")]
        cells += [_text(row["paired_seeds"])] if unpaired else []
        interval = "-" if pd.isna(row["low"]) else f"{row['low']:+.2f} to {row['high']:+.2f}"
        rows.append([*cells, _text(row["difference"], "+.2f"), interval, row["verdict"]])
    numbers = ("seeds", "top1", "SD", "compared", "difference", "95 % interval")
    right = frozenset(position for position, header in enumerate(headers) if header in numbers)
    return Sheet(headers, rows, right, [*lines, *_notes(frame, short)])


def _groups(records: Sequence[Record], metric: str) -> list[dict[str, _Arm]]:
    """Return the arms by attention for each group of arms that differ in nothing else."""
    groups: dict[str, dict[str, _Arm]] = {}
    for record in sorted(records, key=natural_order):
        task = record.cell["task"]
        if record.status != "done" or task["name"] != "train" or record.metrics.get(metric) is None:
            continue
        arm = groups.setdefault(_identity(record.cell), {}).setdefault(record.cell["backbone"]["attention"], {})
        if task["seed"] in arm:
            keys = f"{arm[task['seed']].key} and {record.key}"
            raise ValueError(f"{_name(record)}: two records of one run, {keys}; move one of them away")
        arm[task["seed"]] = record
    return list(groups.values())


def _with_origins(records: Sequence[Record]) -> list[Record]:
    """Return the records with a description of the run from which a training started in place of its key.

    The key differs between seeds and attentions, which would split arms and groups; all that matters of those two is
    whether they are the training's own.
    """
    cells = {record.key: record.cell for record in records}

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
    return {name: _without_incidental(item) for name, item in value.items() if name not in _INCIDENTAL}


def _chosen(arms: dict[str, _Arm], baseline: str) -> str | None:
    """Return the complete attention of the arm that is the baseline, or None."""
    if baseline in arms:
        return baseline
    wanted, options = name_and_options(baseline)
    parsed = {text: name_and_options(text) for text in arms}
    fitting = [t for t, (name, found) in parsed.items() if name == wanted and options.items() <= found.items()]
    if len(fitting) > 1:
        label = next(iter(arms[fitting[0]].values())).cell["backbone"]["name"]
        raise ValueError(f"the baseline {baseline!r} fits several arms of {label}; name one: {', '.join(fitting)}")
    return fitting[0] if fitting else None


def _rows(arms: dict[str, _Arm], base: str | None, folder: Path, weights: Which) -> list[dict[str, Any]]:
    order = sorted(arms, key=lambda text: text != base)
    if base is None:
        return [_about(text, arms[text], weights) | {"verdict": NO_BASELINE} for text in order]
    _check_images(arms)
    reference = {seed: _bits(record, folder, weights) for seed, record in arms[base].items()}
    rows = []
    for text in order:
        row = _about(text, arms[text], weights) | {"baseline": base}
        if text == base:
            rows.append(row | {"verdict": BASELINE})
            continue
        common = sorted(arms[text].keys() & arms[base].keys())
        row |= {"paired_seeds": len(common), "seeds_left_out": _left_out(arms[text], text, arms[base], base)}
        if common:
            ours = np.stack([_bits(arms[text][seed], folder, weights) for seed in common])
            found = paired_difference(ours, np.stack([reference[seed] for seed in common]))
            compared = [arm[seed] for arm in (arms[text], arms[base]) for seed in common]
            row |= {"difference": found.points, "low": found.low, "high": found.high}
            row |= {"environments": ", ".join(mixed_environments(table(compared)))}
        rows.append(row | {"verdict": _verdict(row, len(common))})
    return rows


def _about(attention: str, arm: _Arm, weights: Which) -> dict[str, Any]:
    """Return what a row says about its arm alone."""
    values = np.array([record.metrics[_METRICS[weights]] for record in arm.values()], dtype=float)
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
        "environments": "",
    } | {column.name: value for column, value in circumstances.items()}


def _check_images(arms: dict[str, _Arm]) -> None:
    """Raise ValueError unless all records of a group were evaluated on one list of images."""
    first, *others = [record for arm in arms.values() for record in arm.values()]
    for other in (first, *others):
        one, two = ((r.metrics.get("n_images"), r.metrics.get("val_list")) for r in (first, other))
        if one != two or None in one:
            raise ValueError(
                f"{_name(first)} and {_name(other)} may have been evaluated on different images: n_images and "
                f"val_list are {one[0]} {one[1]} and {two[0]} {two[1]}; only runs on the same images are compared"
            )


def _bits(record: Record, folder: Path, weights: Which) -> np.ndarray:
    path = folder / record.key / _FILES[weights]
    bits = read_correct(path, record.metrics["n_images"])
    ours, theirs = 100 * bits.mean(), record.metrics[_METRICS[weights]]
    # Bits of another run would be paired wrongly, and nothing else would show it.
    if not np.isclose(ours, theirs, rtol=0, atol=1e-6):
        raise ValueError(
            f"{path}: {ours:.4f} % are right, but its record says {theirs:.4f}: they are from different runs"
        )
    return bits


def _left_out(arm: _Arm, text: str, base: _Arm, base_text: str) -> str:
    """Return the seeds without a partner, as "3, 4 of softmax(fused=True)"."""
    parts = ((sorted(arm.keys() - base.keys()), text), (sorted(base.keys() - arm.keys()), base_text))
    return " and ".join(f"{', '.join(map(str, seeds))} of {name}" for seeds, name in parts if seeds)


def _verdict(row: dict[str, Any], pairs: int) -> str:
    if pairs < 2:
        return ONE_SEED if pairs else NO_COMMON_SEED
    if row["low"] > 0:
        return BETTER
    return WORSE if row["high"] < 0 else NOT_RESOLVED


def _notes(frame: pd.DataFrame, short: dict[str, str]) -> list[str]:
    lines = ["top1: mean over seeds, percent; SD: standard deviation over seeds, in points."]
    if (frame["weights"] == "ema").any():
        lines.append("All accuracies are those of the moving average of the weights (EMA).")
    compared = frame[frame["difference"].notna()]
    if len(compared):
        images = compared[["n_images", "val_list"]].drop_duplicates().itertuples(index=False)
        lists = " and ".join(f"{count:,} images (list {digest})" for count, digest in images)
        lines.append(f"Differences from the baseline in points, seed by seed on the same {lists}.")
    several, one = compared[compared["paired_seeds"] > 1], compared[compared["paired_seeds"] == 1]
    if len(several):
        lines.append(
            "The 95 % intervals cover the choice of the images and of the seeds: they hold for further seeds and for "
            "further images of the same kind."
        )
    if (several["paired_seeds"] <= 3).any():
        lines.append("From 2 or 3 seeds their noise is hardly known, which makes the intervals wide.")
    if len(one):
        lines.append(
            "One seed: the interval covers the choice of images but not the noise of the seed, so there is no verdict."
        )
    if len(compared) > 1:
        lines.append(
            f"Each interval holds by itself and is not adjusted for the {len(compared)} comparisons: of 20 without "
            "a difference, about one would be called better or worse."
        )
    for row in rows_of(frame):
        name = f"{row['backbone']}, {short[row['attention']]}"
        if row["seeds_left_out"]:
            lines.append(f"{name}: seeds without a partner are left out: {row['seeds_left_out']}.")
        if row["environments"]:
            lines.append(f"{name}: compared across differing environments: {row['environments']}.")
    if (frame["verdict"] == NO_BASELINE).any():
        lines.append("No baseline: no run with the baseline attention differs from the row in the attention alone.")
    return list(dict.fromkeys(lines))


def _quantile(freedom: int) -> float:
    from scipy import special  # its import is half of the start-up time of a command without torch

    return float(special.stdtrit(freedom, (1 + _CONFIDENCE) / 2))


def _name(record: Record) -> str:
    backbone = record.cell["backbone"]
    return f"{backbone['name']} {backbone['attention']} seed {record.cell['task']['seed']}"


def _text(value: Any, form: str = "") -> str:
    return "-" if pd.isna(value) else format(value, form)

"""Given models compared on the same images: which images each has right, and of which classes those are.

    print(to_plain(evaluated_sheet(evaluations(read_all(Path("runs"))[0], baseline="swin_t"))))

A difference holds for these weights and further images of the same kind. What another training of either would give is
another question, which `paired` answers from several seeds. `results.statistics.mcnemar` has the method.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import pandas as pd

from results.correctness import ImageList, read_image_list
from results.records import Record
from results.sheets import Sheet
from results.statistics import holm, paired_shares, wilson
from results.tables.columns import flattened, is_figure, rows_of
from results.tables.frames import in_natural_order
from results.tables.naming import name_and_options, shortened
from results.tables.verdicts import (
    BASELINE,
    NO_BASELINE,
    NO_IMAGES,
    check_any_compared,
    check_rope,
    file_of,
    images_note,
    known_bits,
    p_text,
    verdict_of,
)
from results.wording import printable

# Fields of an evaluation that change no result, and so do not set two apart.
_INCIDENTAL = ("workers", "root", "path", "cache", "batch", "device", "digest", "run", "label", "name", "weights")
_SHOWN_CLASSES = 3
_COLUMNS = (
    "backbone", "attention", "weights", "top1", "top1_low", "top1_high", "baseline", "difference", "low", "high", "won",
    "lost", "p", "p_holm", "verdict", "n_images", "val_list", "classes_won", "classes_lost", "differs",
    "classes_unknown", "images_unknown", "key",
)  # fmt: skip


def evaluations(records: Sequence[Record], baseline: str = "softmax", rope: float | None = None) -> pd.DataFrame:
    """Compare each evaluation with a baseline on the same images, one row per evaluation.

    `baseline` names a backbone, a file of weights (or the label of a run), or an attention with or without options;
    it must name one evaluation of each list of images.

    Columns: backbone, attention, weights; top1 (percent) and the ends of its 95 % interval (Wilson), top1_low and
    top1_high; baseline; difference, low and high (points, of the same images; the interval is of 95 %); won and lost
    (images that this one or the baseline alone has right); p (McNemar's mid-p) and p_holm (corrected for all
    comparisons of the frame); verdict; n_images, val_list; classes_won and classes_lost (those with the most images won
    or lost, as text; empty where the classes were not recorded); differs (in what the two were evaluated differently,
    as text); classes_unknown (why the file of the classes cannot be read); images_unknown (why the images that it has
    right are not known); key.

    Raises ValueError where there is nothing to compare, for a `rope` that is not between 0 and 100, a baseline that no
    evaluation fits or several of one list, and where nothing is left to compare as bits are missing, damaged or do not
    match their records.
    """
    check_rope(rope)
    lists: dict[str, list[Record]] = {}
    for record in in_natural_order(records):
        known = all(is_figure(record.metrics.get(name)) for name in ("top1", "n_images")) and record.metrics.get(
            "val_list"
        )
        if record.status == "done" and record.cell["task"]["name"] == "evaluate" and known:
            lists.setdefault(record.metrics["val_list"], []).append(record)
    if not lists:
        raise ValueError("no evaluation of given weights here, so there is nothing to compare")
    bases = {name: _baseline(found, baseline) for name, found in lists.items()}
    if not any(bases.values()):
        names = dict.fromkeys(_label(record) for found in lists.values() for record in found)
        raise ValueError(f"no evaluation here is of {baseline!r}; there are: {', '.join(names)}")
    rows = [row for name, found in lists.items() for row in _rows(found, bases[name])]
    check_any_compared(rows)
    compared = [row for row in rows if "p" in row]
    for row, corrected in zip(compared, holm([row["p"] for row in compared]), strict=True):
        row |= {"p_holm": corrected, "verdict": verdict_of(corrected, row, rope)}
    rows = [{name: printable(v) if isinstance(v, str) else v for name, v in row.items()} for row in rows]
    return pd.DataFrame(rows, columns=list(_COLUMNS)).astype(dict.fromkeys(("won", "lost", "n_images"), "Int64"))


def evaluated_sheet(frame: pd.DataFrame) -> Sheet:
    """Return the comparison for people: accuracies, images won and lost, differences with intervals, verdicts."""
    short, lines = shortened(frame["attention"])
    headers = ["backbone", "attention", "weights", "top1", "95 % interval", "difference", "its interval"]
    headers += ["won", "lost", "p", "verdict"]
    rows = []
    for row in rows_of(frame):
        is_compared = not pd.isna(row["difference"])
        compared = [
            f"{row['difference']:+.2f}",
            f"{row['low']:+.2f} to {row['high']:+.2f}",
            str(row["won"]),
            str(row["lost"]),
            p_text(row["p_holm"]),
        ]
        cells = [row["backbone"], short[row["attention"]], row["weights"], f"{row['top1']:.2f}"]
        cells += [f"{row['top1_low']:.2f} to {row['top1_high']:.2f}", *(compared if is_compared else "-----")]
        rows.append([*cells, row["verdict"]])
    right = frozenset(range(3, len(headers) - 1))
    return Sheet(headers, rows, right, [*lines, *_notes(frame, short)], spare=("its interval", "p"))


def _rows(records: Sequence[Record], base: Record | None) -> list[dict[str, Any]]:
    if base is None:
        return [_about(record) | {"verdict": NO_BASELINE} for record in records]
    known, unknown = known_bits(dict(enumerate(records)))
    place = next(number for number, record in enumerate(records) if record is base)
    found, damage = _classes_of(base)
    shared = {"baseline": _label(base), "classes_unknown": damage}
    rows = [_about(base) | shared | {"images_unknown": unknown.get(place, ""), "verdict": BASELINE}]
    for number, record in enumerate(records):
        row = _about(record) | shared | {"images_unknown": unknown.get(number, "")}
        if number == place:
            continue
        if number in unknown or place in unknown:
            rows.append(row | {"verdict": NO_IMAGES})
            continue
        ours, theirs = known[number], known[place]
        if len(ours) != len(theirs):
            raise ValueError(f"{_label(record)} and {_label(base)} are of {len(ours)} and {len(theirs)} images")
        won, lost = ours & ~theirs, theirs & ~ours
        pair = paired_shares(int(won.sum()), int(lost.sum()), len(ours))
        row |= {"won": int(won.sum()), "lost": int(lost.sum()), "p": pair.p}
        row |= {"difference": 100 * pair.difference, "low": 100 * pair.low, "high": 100 * pair.high}
        if found is not None and len(found.targets) == len(ours):
            row["classes_won"] = _classes(found.classes, found.targets[won], found.targets[lost])
            row["classes_lost"] = _classes(found.classes, found.targets[lost], found.targets[won])
        rows.append(row | {"differs": _differences(record, base)})
    return rows


def _classes_of(record: Record) -> tuple[ImageList | None, str]:
    """Return the classes of the images of an evaluation, and why they are not known where their file is damaged."""
    if record.folder is None:
        return None, ""
    try:
        return read_image_list(record.folder, record.metrics["val_list"]), ""
    except ValueError as problem:
        # A page is sent around: where the folder is on this machine is nobody's business.
        return None, str(problem).removeprefix(f"{record.folder}/")


def _classes(names: Sequence[str], gained: np.ndarray, given: np.ndarray) -> str:
    """Return the classes in which most images are gained on balance, as "cat +5, dog +3"."""
    balance = Counter(gained.tolist())
    balance.subtract(given.tolist())
    most = sorted(((number, -of) for of, number in balance.items() if number > 0), reverse=True)[:_SHOWN_CLASSES]
    return ", ".join(f"{names[-of]} {number:+}" for number, of in most)


def _about(record: Record) -> dict[str, Any]:
    backbone, metrics = record.cell["backbone"], record.metrics
    interval = wilson(metrics["top1"] / 100, metrics["n_images"])
    return {
        "backbone": backbone["name"],
        "attention": backbone["attention"],
        "weights": _weights(record),
        "top1": metrics["top1"],
        "top1_low": 100 * interval.low,
        "top1_high": 100 * interval.high,
        "n_images": metrics["n_images"],
        "val_list": metrics["val_list"],
        "classes_won": "",
        "classes_lost": "",
        "differs": "",
        "classes_unknown": "",
        "images_unknown": "",
        "key": record.key,
    }


def _weights(record: Record) -> str:
    weights = record.cell["task"].get("weights") or {}
    return str(weights.get("label") or weights.get("name") or PurePath(weights.get("path") or "none").name)


def _label(record: Record) -> str:
    return f"{record.cell['backbone']['name']} ({_weights(record)})"


def _baseline(records: Sequence[Record], baseline: str) -> Record | None:
    """Return the one evaluation that the text names: by its backbone, its weights, or else its attention."""
    wanted, options = name_and_options(baseline)

    def of_attention(record: Record) -> bool:
        name, found = name_and_options(record.cell["backbone"]["attention"])
        return name == wanted and options.items() <= found.items()

    named = [each for each in records if baseline in (each.cell["backbone"]["name"], _weights(each), _label(each))]
    fitting = named or [each for each in records if of_attention(each)]
    if len(fitting) > 1:
        several = ", ".join(f"{_label(record)} of {file_of(record)}" for record in fitting)
        raise ValueError(
            f"the baseline {baseline!r} fits several: {several}; name one of them, or choose with compare --where"
        )
    return fitting[0] if fitting else None


def _differences(one: Record, other: Record) -> str:
    """Return the circumstances in which two evaluations differ, as "crop_pct (0.9, 0.875)"."""
    flat = [flattened("task", "evaluate", record.cell["task"]) for record in (one, other)]
    names = [column for column in dict.fromkeys([*flat[0], *flat[1]]) if column.path[-1] not in _INCIDENTAL]
    return ", ".join(
        f"{column.label} ({flat[0].get(column)}, {flat[1].get(column)})"
        for column in names
        if flat[0].get(column) != flat[1].get(column)
    )


def _notes(frame: pd.DataFrame, short: dict[str, str]) -> list[str]:
    images = frame[["n_images", "val_list"]].drop_duplicates().itertuples(index=False)
    lists = " and ".join(f"{number:,} images (list {digest})" for number, digest in images)
    lines = [f"top1: percent of {lists}, with Wilson's interval. won, lost: images that one of the two alone has."]
    compared = frame[frame["difference"].notna()]
    if len(compared):
        number = f", corrected for {len(compared)} comparisons by Holm's method" if len(compared) > 1 else ""
        lines.append(f"p: McNemar's mid-p test of the images won and lost{number}; the interval is Tango's.")
        lines.append("These are differences of these weights: other trainings of the same models would differ as well.")
    lines += [f"The classes of the images are not known: {why}." for why in frame["classes_unknown"].unique() if why]
    for row in rows_of(compared):
        name = f"{row['backbone']}, {short[row['attention']]}"
        for column, what in (("classes_won", "won"), ("classes_lost", "lost")):
            if row[column]:
                lines.append(f"{name}: most images {what}, on balance, in {row[column]}.")
        if row["differs"]:
            lines.append(f"{name}: evaluated differently from the baseline: {row['differs']}.")
    for row in rows_of(frame):
        lines += images_note(row, f"{row['backbone']}, {short[row['attention']]}")
    return lines

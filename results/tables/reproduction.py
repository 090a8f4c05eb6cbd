"""Compare our parameters, multiply-adds and accuracies with published ones, row by row at the published rounding.

Published numbers stay texts as printed: "15.0" promises more precision than "15". The tables are in
`results/published/`; known reasons for a disagreement, each with its source, are in `results/published/reasons.csv`.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from results.sheets import Sheet
from results.tables.columns import rows_of
from results.wording import count

PUBLISHED = Path(__file__).parents[1] / "published"

MODEL_KEY = ("model", "resolution")
ABLATION_KEY = ("ablation", "backbone", "setting", "param_value")
KEY = (*MODEL_KEY, *ABLATION_KEY)
"""The columns that say what was measured. A row has the first two or the last four; the others are empty texts."""

PARTIAL = "partial"
AGREES, DIFFERS, NOT_PUBLISHED, NOT_MEASURED = "agrees", "differs", "not published", "not measured"
NEEDS_IMAGENET = "needs ImageNet"
EVALUATED, TRAINED = "evaluated", "trained"
"""Kinds of our accuracies: of given weights, and of a model trained here."""

IMAGENET_VAL = 50_000
"""Images in the split on which published accuracies were measured."""

NUMERICS = 0.05
"""Points by which an evaluation of the same weights on the same images may differ. Only the numerics differ: the JPEG
decoder, the resize, the precision and the order of sums flip a few guesses that were near a tie. 0.05 points are 25 of
50,000 images."""

UNEXPLAINED = "unexplained"
_CAPTION = "Published numbers and ours; gmacs: one multiply-add counts as one, which papers print as FLOPs."

_PAPERS: dict[str, dict[str, tuple[str, ...]]] = {
    "flatten": {
        "families": ("deit", "pvt", "pvt_v2", "swin", "cswin"),
        "attentions": ("softmax", "softmax-pooled-kv", "flatten"),
        "ablations": ("module", "focusing_factor", "window_size", "stages", "linear_attention_design"),
        # Table 3 of the paper also has four attentions by others, which are not part of this reproduction.
        "left_out": ("hydra", "efficient", "linear_angular", "enhanced"),
    }
}
_NUMBER = r"([0-9]*\.?[0-9]+)"
# Decimal texts and binary numbers agree at 4.5 + 0.05 only up to rounding.
ROUNDING = 1e-9


# Half the width of a 95 % interval, in standard errors.
_Z = 1.96


class _Match(NamedTuple):
    """A quantity of a row compared with one or more of our numbers for it."""

    ours: float | None
    difference: float | None
    verdict: str
    convention: str


def papers() -> list[str]:
    """Return the names of the papers that can be reproduced."""
    return list(_PAPERS)


def published_rows(paper: str) -> pd.DataFrame:
    """Return every published row that the reproduction of a paper covers, as texts, from primary and secondary sources.

    Columns: KEY (resolution is an int), family (of a model), attention, params_m, gmacs (printed as FLOPs), top1,
    primary ("1" for the preferred row of a model and for every ablation), source, confidence ("read" or "figure") and
    note.
    Raises ValueError for an unknown paper.
    """
    if paper not in _PAPERS:
        raise ValueError(f"no published tables of {paper!r}; there are: {', '.join(_PAPERS)}")
    scope = _PAPERS[paper]
    models = read_table("imagenet_accuracy.csv")
    models = models[models["backbone_family"].isin(scope["families"]) & models["attention"].isin(scope["attentions"])]
    ablations = read_table("ablation_flatten.csv")
    ablations = ablations[
        ablations["ablation"].isin(scope["ablations"]) & ~ablations["param_value"].isin(scope["left_out"])
    ]
    ablations = ablations.assign(
        top1=ablations["value"].where(ablations["metric"] == "top1", ""),
        attention=["softmax" if "softmax" in setting else paper for setting in ablations["setting"]],
        primary="1",
    )
    rows = pd.concat([models, ablations], ignore_index=True).fillna("")
    rows = rows.rename(columns={"flops_g": "gmacs", "backbone_family": "family"})
    rows["resolution"] = [int(text) if text else "" for text in rows["resolution"]]
    return rows[[*KEY, "family", "attention", "params_m", "gmacs", "top1", "primary", "source", "confidence", "note"]]


def targets(published: pd.DataFrame) -> list[dict[str, Any]]:
    """Return what to measure: the distinct keys of the rows, {model, resolution} or {ablation, ...}, in order."""
    keys = rows_of(published[list(KEY)].drop_duplicates())
    return [{name: value for name, value in key.items() if value != ""} for key in keys]


def compare(published: pd.DataFrame, ours: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return every published row with ours beside it.

    `ours` has at most one mapping per target: the target's key and `params_m`, `gmacs` (products and convolutions),
    `gmacs_fvcore`, `top1`, `top1_stderr` (points), each a number or None, and with a top1 also `top1_kind`
    ("evaluated" or "trained"), `top1_weights` (which ones, as text) and `n_images` (of the evaluation).

    For params_m, gmacs and top1 the frame has `_theirs` (as printed), `_ours`, `_difference` (ours - theirs) and
    `_verdict`; `gmacs_convention` names what agreed or, if nothing did, what is nearer: "gmacs", "gmacs_fvcore" or
    "both". `reason` says why a quantity does not agree (for top1 only if it differs), "unexplained" if that is not
    known, and `reason_source` who says so.

    top1 agrees if the printed number, within its rounding, is as near as ours allows: `NUMERICS` points for evaluated
    weights; 1.96 standard errors for a model trained here, the binomial 95 % interval for the choice of images. That
    interval does not include the noise of the seed, theirs or ours: a difference may be just that. On fewer images
    than `IMAGENET_VAL` the verdict is "partial: n images", which judges nothing.
    """
    by_target = {_key(row): row for row in ours}
    assert len(by_target) == len(ours), "two mappings for one target"
    reasons = read_table("reasons.csv")
    rows = [_compared(theirs, by_target.get(_key(theirs), {}), reasons) for theirs in rows_of(published)]
    return pd.DataFrame(rows)


def _compared(theirs: Mapping[str, Any], found: Mapping[str, Any], reasons: pd.DataFrame) -> dict[str, Any]:
    """Return a row of the comparison: a published row and what was found for its target, if anything."""
    params = _match(theirs["params_m"], tolerance(theirs, "params_m"), {"params_m": found.get("params_m")})
    conventions = {name: found.get(name) for name in ("gmacs", "gmacs_fvcore")}
    gmacs = _match(theirs["gmacs"], tolerance(theirs, "gmacs"), conventions)
    accuracy = _compared_accuracy(theirs, found)
    verdicts = {"params_m": params.verdict, "gmacs": gmacs.verdict}
    # An accuracy needs a reason only if it differs: its own column says whether it is measured.
    verdicts |= {"top1": DIFFERS} if accuracy["top1_verdict"] == DIFFERS else {}
    return {
        **{name: theirs[name] for name in (*KEY, "primary")},
        **_matched("params_m", theirs, params),
        **_matched("gmacs", theirs, gmacs),
        "gmacs_convention": gmacs.convention,
        **accuracy,
        "source": theirs["source"],
        "confidence": theirs["confidence"],
        **_reasons(reasons, theirs, verdicts),
    }


def _matched(quantity: str, theirs: Mapping[str, Any], match: _Match) -> dict[str, Any]:
    return {
        f"{quantity}_theirs": theirs[quantity],
        f"{quantity}_ours": match.ours,
        f"{quantity}_difference": match.difference,
        f"{quantity}_verdict": match.verdict,
    }


def _compared_accuracy(theirs: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    top1 = found.get("top1")
    return {
        "top1_theirs": theirs["top1"],
        "top1_ours": NEEDS_IMAGENET if top1 is None else top1,
        "top1_stderr": found.get("top1_stderr"),
        "top1_difference": None if top1 is None or not theirs["top1"] else top1 - float(theirs["top1"]),
        "top1_verdict": _top1_verdict(theirs, found),
        "top1_kind": found.get("top1_kind"),
        "top1_weights": found.get("top1_weights"),
        "top1_n_images": None if top1 is None else found.get("n_images"),
    }


def summary(comparison: pd.DataFrame) -> str:
    """Return one line: how many rows there are, and how many of those with a published number agree."""
    parts = [count(len(comparison), "published row")]
    for quantity, label in (("params_m", "parameters"), ("gmacs", "GMACs")):
        verdicts = comparison[f"{quantity}_verdict"].value_counts()
        printed = len(comparison) - verdicts.get(NOT_PUBLISHED, 0)
        missing = verdicts.get(NOT_MEASURED, 0)
        unmeasured = f" ({missing} not measured)" if missing else ""
        parts.append(f"{label} agree in {verdicts.get(AGREES, 0)} of {printed} published{unmeasured}")
    parts.append(_accuracy_summary(comparison))
    judged = comparison[["params_m_verdict", "gmacs_verdict", "top1_verdict"]]
    differing = int((judged == DIFFERS).any(axis=1).sum())
    unexplained = comparison["reason"].str.contains(UNEXPLAINED).sum()
    differ = "differs" if differing == 1 else "differ"
    parts.append(f"{count(differing, 'row')} {differ}, {unexplained} of them unexplained")
    return "; ".join(parts) + "."


def _accuracy_summary(comparison: pd.DataFrame) -> str:
    verdicts = comparison["top1_verdict"]
    printed = verdicts != NOT_PUBLISHED
    not_judged = {
        "not measured": (verdicts == NOT_MEASURED).sum(),
        "partial": verdicts.str.startswith(PARTIAL).sum(),
    }
    if not_judged["not measured"] == printed.sum():
        return f"accuracies: {NEEDS_IMAGENET}"
    others = ", ".join(f"{number} {what}" for what, number in not_judged.items() if number)
    agreeing = f"accuracies agree in {(verdicts == AGREES).sum()} of {printed.sum()} published"
    return agreeing + (f" ({others})" if others else "")


def comparison_sheet(comparison: pd.DataFrame) -> Sheet:
    """Return the comparison for people, with the summary below and, if there are any, how accuracies are judged."""
    numbers = [name for quantity in ("params_m", "gmacs", "top1") for name in (quantity, "ours", "diff", "verdict")]
    headers = ["row", *numbers, "by", "reason", "source"]
    rows = []
    for row in rows_of(comparison):
        cells = [describe(row)]
        for quantity, digits in (("params_m", 2), ("gmacs", 3)):
            cells += [row[f"{quantity}_theirs"] or "-", _digits(row[f"{quantity}_ours"], digits)]
            cells += [_digits(row[f"{quantity}_difference"], digits, "+"), row[f"{quantity}_verdict"]]
        if row["gmacs_verdict"] == AGREES:
            cells[-1] += f" ({row['gmacs_convention']})"
        cells += [row["top1_theirs"] or "-", _accuracy(row), _digits(row["top1_difference"], 2, "+")]
        by = [row["top1_kind"], row["top1_weights"]]
        cells += [row["top1_verdict"], ": ".join(text for text in by if isinstance(text, str) and text) or "-"]
        rows.append([*cells, row["reason"], row["source"]])
    right = frozenset(p for p, header in enumerate(headers) if header in numbers and header != "verdict")
    notes = [summary(comparison), *_accuracy_notes(comparison)]
    spare, asides = ("source", "by", "diff", "ours"), frozenset({"reason", "source"})
    return Sheet(headers, rows, right, notes, spare, asides, caption=_CAPTION)


def _accuracy(row: Mapping[str, Any]) -> str:
    """Return ours with half its 95 % interval, which covers the choice of images."""
    top1, stderr = row["top1_ours"], row["top1_stderr"]
    if isinstance(top1, str):
        return top1
    return _digits(top1, 2) + ("" if stderr is None or pd.isna(stderr) else f" ± {_Z * stderr:.2f}")


def _accuracy_notes(comparison: pd.DataFrame) -> list[str]:
    kinds = set(comparison["top1_kind"].dropna())
    lines = []
    if kinds:
        lines.append("our top1: ± is 1.96 standard errors, a 95 % interval for the choice of images, not of the seed.")
    if EVALUATED in kinds:
        lines.append(
            f"evaluated: given weights on the same images, so that only numerics may differ; agrees within {NUMERICS} "
            "points beyond the printed rounding. Whether they are the weights of the row is not known here."
        )
    if TRAINED in kinds:
        lines.append(
            "trained: agrees if the printed number, within its rounding, is in our interval; the noise of the seed is "
            "not in it, so a model trained as published may still differ."
        )
    if comparison["top1_verdict"].str.startswith(PARTIAL).any():
        lines.append(
            f"partial: evaluated on fewer than the {IMAGENET_VAL:,} images of ImageNet's val split; no verdict."
        )
    return lines


def describe(row: Mapping[str, Any]) -> str:
    """Return a target or row in words: "FLatten-Swin-B at 384", "window_size of swin_t: FLatten-Swin-T, 14"."""
    if row.get("model"):
        return f"{row['model']} at {row['resolution']}"
    return f"{row['ablation']} of {row['backbone']}: {row['setting']}, {row['param_value']}"


def read_table(name: str) -> pd.DataFrame:
    return pd.read_csv(PUBLISHED / name, dtype=str, keep_default_na=False)


def _key(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(row.get(name, "")) for name in KEY)


def tolerance(row: Mapping[str, Any], quantity: str) -> float:
    """Return half a unit in the last printed digit, or the error given in the note of a digitised number.

    A digitised accuracy has the larger of the two, since a figure may plot a rounded number.
    """
    if quantity == "gmacs" and row["confidence"] == "figure" and row["gmacs"]:
        error = re.search(rf"\+-{_NUMBER} GFLOPs", row["note"])
        assert error, f"no digitisation error in the note of {describe(row)}"
        return float(error.group(1))
    decimals = len(row[quantity].partition(".")[2])
    rounding = 0.5 * 10.0**-decimals
    if quantity == "top1" and row["confidence"] == "figure":
        error = re.search(rf"\+-{_NUMBER} (?:in )?top-1|error \+-{_NUMBER}", row["note"])
        assert error, f"no digitisation error in the note of {describe(row)}"
        return max(rounding, float(error.group(1) or error.group(2)))
    return rounding


def _top1_verdict(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """Return the verdict on an accuracy; see `compare`."""
    top1 = ours.get("top1")
    if not theirs["top1"]:
        return NOT_PUBLISHED
    if top1 is None:
        return NOT_MEASURED
    images = ours["n_images"]
    assert images <= IMAGENET_VAL, f"{images} images are not those of ImageNet"
    if images < IMAGENET_VAL:
        return f"{PARTIAL}: {images} images"
    allowed = {EVALUATED: NUMERICS, TRAINED: _Z * (ours.get("top1_stderr") or 0.0)}[ours["top1_kind"]]
    within = abs(top1 - float(theirs["top1"])) <= tolerance(theirs, "top1") + allowed + ROUNDING
    return AGREES if within else DIFFERS


def _match(theirs: str, tolerance: float, ours: Mapping[str, float | None]) -> _Match:
    """Compare their number with each of ours, named by its convention; report the one that agrees or is nearest."""
    numbers = {name: value for name, value in ours.items() if value is not None}
    if not theirs:
        return _Match(next(iter(numbers.values()), None), None, NOT_PUBLISHED, "")
    if not numbers:
        return _Match(None, None, NOT_MEASURED, "")
    differences = {name: value - float(theirs) for name, value in numbers.items()}
    nearest = min(differences, key=lambda name: abs(differences[name]))
    agreeing = [name for name, difference in differences.items() if abs(difference) <= tolerance + ROUNDING]
    convention = "both" if len(agreeing) == 2 else nearest
    return _Match(numbers[nearest], differences[nearest], AGREES if agreeing else DIFFERS, convention)


def _reasons(known: pd.DataFrame, theirs: Mapping[str, Any], verdicts: Mapping[str, str]) -> dict[str, str]:
    """Return why quantities do not agree, from the table of reasons, which is keyed by the row and what it prints."""
    quantities: dict[str, list[str]] = {}
    sources = []
    for quantity, verdict in verdicts.items():
        if verdict == AGREES:
            continue
        default = {NOT_PUBLISHED: "not printed in this source", NOT_MEASURED: "not measured", DIFFERS: UNEXPLAINED}
        reason = default[verdict]
        if verdict != NOT_MEASURED:
            wanted = {name: str(theirs[name]) for name in KEY}
            wanted |= {"quantity": quantity, "published": theirs[quantity]}
            for found in known[(known[list(wanted)] == pd.Series(wanted)).all(axis=1)].to_dict("records"):
                reason = found["reason"]
                sources.append(found["source"])
        quantities.setdefault(reason, []).append(quantity)
    texts = [f"{', '.join(names)}: {reason}" for reason, names in quantities.items()]
    return {"reason": "; ".join(texts), "reason_source": "; ".join(dict.fromkeys(sources))}


def _digits(value: float | None, digits: int, sign: str = "") -> str:
    return "-" if value is None or pd.isna(value) else f"{value:{sign}.{digits}f}"

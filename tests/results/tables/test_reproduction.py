"""Published rows are complete, judged at their own rounding, and never disagree without a word on why."""

import subprocess
import sys
from typing import Any

import pandas as pd
import pytest

from results.tables import compare, comparison_sheet, describe, papers, published_rows, summary, targets, to_plain

# What the official implementations count: parameters, products and convolutions, fvcore's total.
OFFICIAL = {
    "DeiT-T": (5717416, 1253683200, 1258411200),
    "PVT-T": (13229288, 1932911616, 1943774976),
    "PVTv2-B0": (3666760, 566065664, 572024064),
    "Swin-T": (28288354, 4490566656, 4509194496),
    "CSWin-T": (22320552, 4324203008, 4341011968),
    "FLatten-PVT-T": (12150504, 2037406720, 2047880960),
    "FLatten-PVTv2-B0": (3594824, 579813888, 585646848),
    "FLatten-Swin-T": (29192384, 4483341312, 4501969152),
    "FLatten-CSWin-T": (21201768, 4324253184, 4343570944),
}


def ours(target: dict[str, Any], params: float, products: float, fvcore: float, **more: Any) -> dict[str, Any]:
    return {**target, "params_m": params / 1e6, "gmacs": products / 1e9, "gmacs_fvcore": fvcore / 1e9, **more}


@pytest.fixture(scope="module")
def flatten() -> pd.DataFrame:
    return published_rows("flatten")


@pytest.fixture(scope="module")
def official(flatten: pd.DataFrame) -> pd.DataFrame:
    return compare(flatten, [ours({"model": model, "resolution": 224}, *counts) for model, counts in OFFICIAL.items()])


def published(params_m: str = "", gmacs: str = "", **changes: Any) -> pd.DataFrame:
    row = {
        "model": "Toy", "resolution": 224, "ablation": "", "backbone": "", "setting": "", "param_value": "",
        "attention": "softmax", "params_m": params_m, "gmacs": gmacs, "top1": "80.0", "primary": "1",
        "source": "test", "confidence": "read", "note": "",
    }  # fmt: skip
    return pd.DataFrame([{**row, **changes}])


TOY = {"model": "Toy", "resolution": 224}


def judged(printed: str, value: float) -> str:
    row = compare(published(params_m=printed), [{**TOY, "params_m": value}]).iloc[0]
    return str(row["params_m_verdict"])


@pytest.mark.parametrize(
    ("printed", "value", "verdict"),
    [
        ("29", 28.5, "agrees"),
        ("29", 29.5, "agrees"),
        ("29", 28.499, "differs"),
        ("29.0", 28.96, "agrees"),
        ("29.0", 28.9, "differs"),
        ("5.7", 5.65, "agrees"),
        ("5.7", 5.75, "agrees"),
        ("5.7", 5.7501, "differs"),
        ("0.57", 0.565, "agrees"),
        ("0.57", 0.5649, "differs"),
    ],
)
def test_agreement_is_half_a_unit_of_the_last_printed_digit(printed: str, value: float, verdict: str) -> None:
    assert judged(printed, value) == verdict


@pytest.mark.parametrize(
    ("gmacs", "fvcore", "verdict", "convention", "shown"),
    [
        (4.46, 4.54, "agrees", "both", 4.46),
        (4.44, 4.51, "agrees", "gmacs_fvcore", 4.51),
        (4.54, 4.56, "agrees", "gmacs", 4.54),
        (4.30, 4.40, "differs", "gmacs_fvcore", 4.40),
        (4.60, None, "differs", "gmacs", 4.60),
        (None, None, "not measured", "", None),
    ],
)
def test_either_convention_of_counting_may_agree_and_is_named(
    gmacs: float | None, fvcore: float | None, verdict: str, convention: str, shown: float | None
) -> None:
    row = compare(published(gmacs="4.5"), [{**TOY, "gmacs": gmacs, "gmacs_fvcore": fvcore}]).iloc[0]
    assert row["gmacs_verdict"] == verdict
    assert row["gmacs_convention"] == convention
    if shown is None:
        assert pd.isna(row["gmacs_ours"])
    else:
        assert row["gmacs_ours"] == shown
        assert row["gmacs_difference"] == pytest.approx(shown - 4.5)


@pytest.mark.parametrize(("value", "verdict"), [(2.07, "agrees"), (2.01, "agrees"), (2.08, "differs")])
def test_digitised_numbers_have_the_error_of_their_note(value: float, verdict: str) -> None:
    note = "digitised: estimated error +-0.02 in top-1 and +-0.03 GFLOPs"
    row = compare(published(gmacs="2.04", confidence="figure", note=note), [{**TOY, "gmacs": value}]).iloc[0]
    assert row["gmacs_verdict"] == verdict


def test_what_is_not_printed_or_not_measured_says_so() -> None:
    row = compare(published(params_m="29"), []).iloc[0]
    assert (row["params_m_verdict"], row["gmacs_verdict"]) == ("not measured", "not published")
    assert row["reason"] == "params_m: not measured; gmacs: not printed in this source"
    row = compare(published(), [{**TOY, "params_m": 1.0, "gmacs": 1.0}]).iloc[0]
    assert row["reason"] == "params_m, gmacs: not printed in this source"
    assert (row["params_m_ours"], row["gmacs_ours"]) == (1.0, 1.0)


def test_a_difference_nobody_explained_says_so() -> None:
    comparison = compare(published(params_m="29"), [{**TOY, "params_m": 31.0}])
    assert comparison["reason"].iloc[0].startswith("params_m: unexplained")
    assert "1 row differs, 1 of them unexplained" in summary(comparison)


def test_accuracy_needs_imagenet_until_it_is_measured() -> None:
    row = compare(published(), [TOY]).iloc[0]
    assert (row["top1_theirs"], row["top1_ours"]) == ("80.0", "needs ImageNet")
    assert pd.isna(row["top1_difference"])
    assert row["top1_verdict"] == "not measured"
    assert "accuracies: needs ImageNet" in summary(compare(published(), [TOY]))
    row = compare(published(), [accuracy(79.5)]).iloc[0]
    assert (row["top1_ours"], row["top1_stderr"]) == (79.5, 0.18)
    assert row["top1_difference"] == pytest.approx(-0.5)


def accuracy(top1: float, kind: str = "evaluated", **changes: Any) -> dict[str, Any]:
    about = {"top1_stderr": 0.18, "top1_kind": kind, "top1_weights": "toy.pth", "n_images": 50_000}
    return {**TOY, "top1": top1, **about, **changes}


@pytest.mark.parametrize(
    ("kind", "printed", "top1", "verdict"),
    [
        ("evaluated", "80.0", 80.1, "agrees"),  # 0.05 of rounding, 0.05 of numerics
        ("evaluated", "80.0", 79.9, "agrees"),
        ("evaluated", "80.0", 80.102, "differs"),
        ("evaluated", "83.13", 83.076, "agrees"),
        ("evaluated", "83.13", 83.07, "differs"),
        ("trained", "80.0", 80.40, "agrees"),  # 0.05 of rounding, 1.96 x 0.18 of images
        ("trained", "80.0", 80.41, "differs"),
        ("trained", "80.0", 79.60, "agrees"),
        ("trained", "80.0", 79.59, "differs"),
        ("trained", "", 79.5, "not published"),
    ],
)
def test_accuracies_are_judged_by_what_may_differ(kind: str, printed: str, top1: float, verdict: str) -> None:
    row = compare(published(top1=printed), [accuracy(top1, kind)]).iloc[0]
    assert row["top1_verdict"] == verdict
    assert (row["top1_kind"], row["top1_weights"], row["top1_n_images"]) == (kind, "toy.pth", 50_000)
    assert ("top1" in row["reason"]) == (verdict == "differs")


@pytest.mark.parametrize(("top1", "verdict"), [(83.2, "agrees"), (83.21, "differs")])
def test_a_digitised_accuracy_has_the_error_of_its_note(top1: float, verdict: str) -> None:
    note = "digitised: estimated error +-0.02 in top-1 and +-0.03 GFLOPs"
    row = compare(published(top1="83.13", confidence="figure", note=note), [accuracy(top1)]).iloc[0]
    assert row["top1_verdict"] == verdict


def test_fewer_images_are_marked_and_not_judged() -> None:
    comparison = compare(published(), [accuracy(60.0, n_images=5_000)])
    assert comparison["top1_verdict"].iloc[0] == "partial: 5000 images"
    assert comparison["reason"].str.contains("top1").sum() == 0
    assert "accuracies agree in 0 of 1 published (1 partial)" in summary(comparison)
    assert "partial: evaluated on fewer than the 50,000 images" in to_plain(comparison_sheet(comparison))


def test_the_summary_counts_accuracies() -> None:
    rows = pd.concat([published(top1=text) for text in ("80.0", "80.2", "")])
    assert "accuracies agree in 1 of 2 published; 1 row differs, 1 of them unexplained." in summary(
        compare(rows, [accuracy(80.0)])
    )
    two = pd.concat([published(), published(model="Other")])
    assert "accuracies agree in 1 of 2 published (1 not measured)" in summary(compare(two, [accuracy(80.0)]))


def test_the_sheet_shows_intervals_and_how_accuracies_are_judged() -> None:
    view = comparison_sheet(compare(published(), [accuracy(79.9, "trained", top1_weights="EMA")]))
    position = list(view.headers).index("top1")
    assert view.headers[position : position + 5] == ["top1", "ours", "diff", "verdict", "by"]
    assert view.rows[0][position : position + 5] == ["80.0", "79.90 ± 0.35", "-0.10", "agrees", "trained: EMA"]
    text = "\n".join(view.notes)
    assert "the noise of the seed is not in it" in text
    assert "only numerics may differ" not in text
    evaluated = comparison_sheet(compare(published(), [accuracy(79.9)]))
    assert evaluated.rows[0][position + 4] == "evaluated: toy.pth"
    assert "only numerics may differ" in "\n".join(evaluated.notes)


def test_an_unknown_paper_is_refused() -> None:
    assert papers() == ["flatten"]
    with pytest.raises(ValueError, match="no published tables of 'flaten'; there are: flatten"):
        published_rows("flaten")


def test_all_published_rows_of_flatten_and_its_baselines_are_there(flatten: pd.DataFrame) -> None:
    models = flatten[flatten["model"] != ""]
    assert len(models) == 124
    assert len(flatten) - len(models) == 24
    assert set(models["attention"]) == {"flatten", "softmax", "softmax-pooled-kv"}
    ablations = flatten.loc[flatten["model"] == "", "ablation"].value_counts().to_dict()
    assert ablations == {
        "module": 4, "focusing_factor": 5, "window_size": 6, "stages": 5, "linear_attention_design": 4,
    }  # fmt: skip
    assert (flatten.loc[flatten["model"] == "FLatten-PVT-T", "gmacs"] == "2.0").any(), "a printed zero is kept"


def test_targets_are_distinct_and_are_what_ours_is_keyed_by(flatten: pd.DataFrame) -> None:
    found = targets(flatten)
    assert len({tuple(target.items()) for target in found}) == len(found) == 74
    assert {tuple(target) for target in found} == {
        ("model", "resolution"),
        ("ablation", "backbone", "setting", "param_value"),
    }
    everything = compare(flatten, [ours(target, 1e6, 1e9, 1e9) for target in found])
    verdicts = everything[["params_m_verdict", "gmacs_verdict"]]
    evaluated = {"top1": 80.0, "top1_stderr": 0.18, "top1_kind": "evaluated", "n_images": 50_000}
    judged = compare(flatten, [target | evaluated for target in found])["top1_verdict"]
    assert set(judged) == {"agrees", "differs"} | ({"not published"} if (flatten["top1"] == "").any() else set())
    assert not (verdicts == "not measured").any(axis=None)
    assert len({describe(target) for target in found}) == len(found)


def test_every_row_is_classified_and_explained(flatten: pd.DataFrame, official: pd.DataFrame) -> None:
    assert len(official) == len(flatten)
    for quantity in ("params_m", "gmacs"):
        verdicts = official[f"{quantity}_verdict"]
        assert set(verdicts) == {"agrees", "differs", "not published", "not measured"}
        assert ((flatten[quantity] == "") == (verdicts == "not published")).all()
        assert (official.loc[verdicts == "not published", f"{quantity}_difference"].isna()).all()
        needs_reason = verdicts != "agrees"
        assert official.loc[needs_reason, "reason"].str.contains(quantity).all()
    agrees = (official[["params_m_verdict", "gmacs_verdict"]] == "agrees").all(axis=1)
    assert (official["reason"].eq("") == agrees).all()


def test_the_official_implementations_agree_with_the_papers_or_the_reason_is_known(official: pd.DataFrame) -> None:
    assert not official["reason"].str.contains("unexplained").any()
    differs = (official[["params_m_verdict", "gmacs_verdict"]] == "differs").any(axis=1)
    assert differs.any()
    assert (official.loc[differs, "reason_source"] != "").all()
    flatten_models = official[official["model"].str.startswith("FLatten") & (official["params_m_verdict"] == "agrees")]
    assert set(flatten_models["model"]) == {"FLatten-PVT-T", "FLatten-Swin-T", "FLatten-CSWin-T"}


def test_every_reason_belongs_to_a_published_row_and_has_a_source(flatten: pd.DataFrame) -> None:
    from results.tables.reproduction import KEY, PUBLISHED

    reasons = pd.read_csv(PUBLISHED / "reasons.csv", dtype=str, keep_default_na=False)
    printed = {
        (*(str(row[name]) for name in KEY), quantity, row[quantity])
        for row in flatten.to_dict("records")
        for quantity in ("params_m", "gmacs")
    }
    keys = [tuple(row) for row in reasons[[*KEY, "quantity", "published"]].itertuples(index=False)]
    assert set(keys) <= printed
    assert len(set(keys)) == len(keys)
    assert (reasons[["reason", "source"]] != "").all(axis=None)


def test_the_comparison_reads_as_a_table_with_its_summary(official: pd.DataFrame) -> None:
    text = to_plain(comparison_sheet(official))
    assert summary(official) in text
    (line,) = [line for line in text.splitlines() if line.startswith("FLatten-PVT-T at 224") and "Fig. 6" in line]
    assert line.split()[3:15] == [
        "12.2", "12.15", "-0.05", "agrees", "2.0", "2.037", "+0.037", "agrees", "(both)", "77.8", "needs", "ImageNet",
    ]  # fmt: skip


def test_results_does_not_import_torch() -> None:
    program = "import results, sys; sys.exit(any(name.split('.')[0] == 'torch' for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

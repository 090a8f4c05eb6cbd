"""Differences are of the same images and seeds, their intervals cover what they say, and nothing else is compared."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from results import Record, write_correct
from results.tables import comparisons, paired_sheet, to_markdown, to_plain

SOFTMAX = "softmax(fused=True)"
FOCUSED = "focused(focusing_factor=3, kernel_size=5)"
IMAGES = 1000


def column(frame: pd.DataFrame, name: str) -> list[Any]:
    return [None if pd.isna(value) else value for value in frame[name]]


class Runs:
    """Records with their bits in a folder, written as training writes them."""

    def __init__(self, make: Any, folder: Path) -> None:
        self.make, self.folder, self.records = make, folder, list[Record]()

    def add(
        self,
        attention: str,
        seed: int = 0,
        accuracy: float = 0.8,
        *,
        bits: np.ndarray | None = None,
        backbone: str = "swin_t",
        model: dict[str, Any] | None = None,
        task: dict[str, Any] | None = None,
        metrics: dict[str, Any] | None = None,
        ema: np.ndarray | None = None,
        **changes: Any,
    ) -> Record:
        key = f"k{len(self.records)}"
        if bits is None:
            bits = np.random.default_rng([seed, len(attention)]).random(IMAGES) < accuracy
        cell = self.make.cell(backbone, attention, {**self.make.train(seed=seed), **(task or {})}, **(model or {}))
        values = {"top1": 100 * float(bits.mean()), "n_images": len(bits), "val_list": "abc", "top1_ema": None}
        write_correct(self.folder / key / "correct.npy", bits)
        if ema is not None:
            values["top1_ema"] = 100 * float(ema.mean())
            write_correct(self.folder / key / "correct_ema.npy", ema)
        record: Record = self.make.record(
            key, cell, {**values, **(metrics or {})}, **{"folder": self.folder, **changes}
        )
        self.records.append(record)
        return record

    def compared(self, **options: Any) -> pd.DataFrame:
        return comparisons(self.records, **options)


@pytest.fixture
def runs(make: Any, tmp_path: Path) -> Runs:
    return Runs(make, tmp_path)


# What is compared with what


def test_arms_are_compared_seed_by_seed_with_the_baseline(runs: Runs) -> None:
    rng = np.random.default_rng(0)
    for seed in range(3):
        base = rng.random(IMAGES) < 0.8
        better, worse = base.copy(), base.copy()
        better[np.flatnonzero(~base)[:60]] = True
        worse[np.flatnonzero(base)[:60]] = False
        # As many gained as lost.
        same = base.copy()
        same[np.concatenate([np.flatnonzero(each)[-30 - seed :] for each in (base, ~base)])] ^= True
        for attention, bits in ((FOCUSED, better), ("linear", worse), ("mean", same), (SOFTMAX, base)):
            runs.add(attention, seed, bits=bits)
    frame = runs.compared()
    assert column(frame, "attention") == [SOFTMAX, FOCUSED, "linear", "mean"], "the baseline first"
    assert column(frame, "verdict") == ["baseline", "better", "worse", "not distinguishable"]
    assert column(frame, "seeds") == [3, 3, 3, 3]
    assert column(frame, "paired_seeds") == [None, 3, 3, 3]
    assert column(frame, "difference")[1:3] == pytest.approx([6, -6])
    assert (frame["low"] <= frame["difference"])[1:].all()
    top1 = [record.metrics["top1"] for record in runs.records if record.cell["backbone"]["attention"] == FOCUSED]
    assert frame["top1"][1] == pytest.approx(np.mean(top1))
    assert frame["top1_sd"][1] == pytest.approx(np.std(top1, ddof=1))


def test_several_comparisons_are_corrected(runs: Runs) -> None:
    """Alone, each of two small gains is one; of two, neither is."""
    rng = np.random.default_rng(0)
    for seed in range(3):
        base = rng.random(IMAGES) < 0.8
        runs.add(SOFTMAX, seed, bits=base)
        for attention in ("linear", "mean"):
            bits = base.copy()
            bits[np.flatnonzero(~base)[: 5 + 3 * seed]] = True
            runs.add(attention, seed, bits=bits)
    both = runs.compared()
    alone = comparisons([record for record in runs.records if "mean" not in str(record.cell)])
    assert column(alone, "verdict")[1] == "better"
    assert column(both, "verdict")[1:] == ["not distinguishable"] * 2
    assert column(both, "p_holm")[1] == pytest.approx(2 * column(both, "p")[1])
    assert (column(alone, "p_holm"), column(both, "p")[1]) == (column(alone, "p"), column(alone, "p")[1])


def test_what_lies_within_the_rope_is_practically_equal(runs: Runs) -> None:
    rng = np.random.default_rng(0)
    for seed in range(3):
        base = rng.random(IMAGES) < 0.8
        better, same = base.copy(), base.copy()
        better[np.flatnonzero(~base)[:60]] = True
        same[np.concatenate([np.flatnonzero(each)[-5:] for each in (base, ~base)])] ^= True
        for attention, bits in ((SOFTMAX, base), (FOCUSED, better), ("mean", same)):
            runs.add(attention, seed, bits=bits)
    runs.add("linear", 0, accuracy=0.8)
    assert column(runs.compared(rope=1.0), "verdict")[1:] == [
        "better",
        "one seed",
        "practically equal within 1 points",
    ]
    assert column(runs.compared(rope=20.0), "verdict")[1] == "better, but practically equal within 20 points"
    for rope in (0.0, -1.0, float("nan"), 100.0):
        with pytest.raises(
            ValueError, match=r"^rope, the difference that is too small to matter, is in points between 0 and 100, got"
        ):
            runs.compared(rope=rope)


def test_one_seed_never_gets_a_verdict(runs: Runs) -> None:
    runs.add(SOFTMAX, accuracy=0.5)
    runs.add(FOCUSED, accuracy=0.9)
    frame = runs.compared()
    assert column(frame, "verdict") == ["baseline", "one seed"]
    assert frame["low"][1] > 0
    assert pd.isna(frame["top1_sd"][1])


def test_seeds_without_a_partner_are_left_out_and_named(runs: Runs) -> None:
    for seed in (0, 1, 2):
        runs.add(SOFTMAX, seed)
    for seed in (1, 2, 7):
        runs.add(FOCUSED, seed)
    runs.add("linear", 9)
    frame = runs.compared()
    assert column(frame, "paired_seeds") == [None, 2, 0]
    assert column(frame, "seeds") == [3, 3, 1]
    assert column(frame, "seeds_left_out")[1] == f"7 of {FOCUSED} and 0 of {SOFTMAX}"
    assert column(frame, "verdict")[2] == "no common seed"
    text = to_plain(paired_sheet(frame))
    assert "swin_t, focused: seeds without a partner are left out: 7 of focused(" in text
    assert "compared" in text


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"stages": "LLSS"}},
        {"task": {"recipe": {"epochs": 9}}},
        {"task": {"precision": "bf16"}},
        {"task": {"device": "cuda"}},
        {"task": {"data": {"name": "imagenet"}}},
    ],
    ids=str,
)
def test_arms_that_differ_in_more_than_the_attention_are_not_compared(runs: Runs, change: dict[str, Any]) -> None:
    runs.add(SOFTMAX)
    runs.add(FOCUSED, **change)
    frame = runs.compared()
    assert dict(zip(frame["attention"], frame["verdict"], strict=True)) == {SOFTMAX: "baseline", FOCUSED: "no baseline"}
    assert column(frame, "difference") == [None, None]
    assert "No baseline: " in to_plain(paired_sheet(frame))


def test_labels_workers_and_places_part_no_arms(runs: Runs) -> None:
    runs.add(SOFTMAX, task={"workers": 0, "cache": None, "data": {"name": "x", "root": "/a"}})
    runs.add(FOCUSED, task={"workers": 8, "data": {"name": "x", "root": "/b"}, "cache": "/c"}, backbone="mine")
    assert column(runs.compared(), "verdict") == ["baseline", "one seed"]


def from_run(record: Record, **changes: Any) -> dict[str, Any]:
    return {"weights": {"run": record.key, "label": record.key, "which": "last", "ema": False, **changes}}


def test_trainings_from_runs_of_their_own_seed_and_attention_are_compared(runs: Runs) -> None:
    for seed in (0, 1):
        for attention in (SOFTMAX, FOCUSED):
            start = runs.add(attention, seed, model={"image_size": 224})
            runs.add(attention, seed, model={"image_size": 384}, task=from_run(start))
    frame = runs.compared()
    assert column(frame, "model.image_size") == [224, 224, 384, 384]
    assert column(frame, "paired_seeds") == [None, 2, None, 2]
    assert column(frame, "train.weights.run")[2] == column(frame, "train.weights.run")[3]


def test_of_chosen_trainings_the_runs_that_they_start_from_need_not_be_chosen(runs: Runs) -> None:
    for seed in (0, 1):
        for attention in (SOFTMAX, FOCUSED):
            start = runs.add(attention, seed, model={"image_size": 224})
            runs.add(attention, seed, model={"image_size": 384}, task=from_run(start))
    chosen = [record for record in runs.records if record.cell["backbone"]["image_size"] == 384]
    assert column(comparisons(chosen, origins=runs.records), "paired_seeds") == [None, 2]


@pytest.mark.parametrize(
    "start",
    [{"task": {"recipe": {"epochs": 9, "lr": 1e-3}}}, {"seed": 5}, {"attention": "linear"}, {"model": {"window": 14}}],
    ids=str,
)
def test_trainings_from_unlike_runs_are_not_compared(runs: Runs, start: dict[str, Any]) -> None:
    origins = [runs.add(SOFTMAX), runs.add(**{"attention": FOCUSED, "seed": 0, **start})]
    for attention, origin in zip((SOFTMAX, FOCUSED), origins, strict=True):
        runs.add(attention, model={"image_size": 384}, task=from_run(origin))
    frame = runs.compared()
    tuned = frame[frame["model.image_size"] == 384]
    assert sorted(column(tuned, "verdict")) == ["baseline", "no baseline"]


def test_the_last_and_the_best_weights_of_runs_are_not_compared(runs: Runs) -> None:
    for attention, which in ((SOFTMAX, "last"), (FOCUSED, "best")):
        runs.add(attention, model={"image_size": 384}, task=from_run(runs.add(attention), which=which))
    frame = runs.compared()
    assert sorted(column(frame, "verdict")) == ["baseline", "baseline", "no baseline", "one seed"]


def test_groups_are_told_apart_by_what_differs(runs: Runs) -> None:
    for stages in ("LLSS", "LSSS"):
        for attention in (SOFTMAX, FOCUSED):
            runs.add(attention, model={"stages": stages})
    frame = runs.compared()
    assert column(frame, "verdict") == ["baseline", "one seed"] * 2
    view = paired_sheet(frame)
    assert [row[list(view.headers).index("stages")] for row in view.rows] == ["LLSS", "LLSS", "LSSS", "LSSS"]


@pytest.mark.parametrize("baseline", [SOFTMAX, "softmax", "softmax( fused = True )"])
def test_the_baseline_is_named_by_all_or_a_part_of_its_text(runs: Runs, baseline: str) -> None:
    runs.add(SOFTMAX)
    runs.add(FOCUSED)
    assert column(runs.compared(baseline=baseline), "verdict") == ["baseline", "one seed"]


def test_any_arm_can_be_the_baseline(runs: Runs) -> None:
    runs.add(SOFTMAX)
    runs.add(FOCUSED)
    frame = runs.compared(baseline="focused(kernel_size=5)")
    assert column(frame, "attention") == [FOCUSED, SOFTMAX]
    assert column(frame, "baseline") == [FOCUSED, FOCUSED]


def test_a_baseline_that_is_not_there_is_refused_with_the_arms(runs: Runs) -> None:
    runs.add(SOFTMAX)
    runs.add(FOCUSED)
    with pytest.raises(ValueError, match=r"here has the attention 'softmx'; there are: focused.*, softmax"):
        runs.compared(baseline="softmx")


def test_a_baseline_that_is_several_arms_is_refused(runs: Runs) -> None:
    runs.add(SOFTMAX)
    runs.add("softmax(fused=False)")
    with pytest.raises(ValueError, match=r"several attentions of swin_t; name one: softmax\(fused=False\), softmax\("):
        runs.compared()


@pytest.mark.parametrize("change", [{"val_list": "other"}, {"val_list": None}], ids=str)
def test_other_images_are_refused(runs: Runs, change: dict[str, Any]) -> None:
    runs.add(SOFTMAX)
    runs.add(FOCUSED, metrics=change)
    with pytest.raises(ValueError, match="may have been evaluated on different images: n_images and val_list"):
        runs.compared()


def test_another_number_of_images_is_refused(runs: Runs) -> None:
    runs.add(SOFTMAX)
    runs.add(FOCUSED, bits=np.ones(IMAGES - 1, bool))
    with pytest.raises(ValueError, match="999 abc and 1000 abc"):
        runs.compared()


def test_bits_of_another_run_are_refused(runs: Runs) -> None:
    runs.add(SOFTMAX)
    runs.add(FOCUSED, metrics={"top1": 12.0})
    with pytest.raises(
        ValueError, match=r"correct\.npy: .* are right, but its record says 12\.0000: they are from different"
    ):
        runs.compared()


def test_without_any_bits_nothing_is_compared(runs: Runs) -> None:
    runs.add(SOFTMAX)
    (runs.folder / runs.add(FOCUSED).key / "correct.npy").unlink()
    with pytest.raises(
        ValueError, match=r"nothing to compare, .* were right: seed 0 \(k1/correct\.npy: cannot be read"
    ):
        runs.compared()


def test_a_training_without_bits_is_left_out_and_named(runs: Runs) -> None:
    for seed in range(3):
        for attention in (SOFTMAX, FOCUSED, "linear"):
            runs.add(attention, seed)
    (runs.folder / "k1" / "correct.npy").unlink()
    (runs.folder / "k3" / "correct.npy").write_bytes(b"damaged")
    for key in ("k2", "k5", "k8"):
        (runs.folder / key / "correct.npy").unlink()
    frame = runs.compared()
    assert column(frame, "paired_seeds") == [None, 1, 0]
    assert column(frame, "seeds") == [3, 3, 3], "accuracies are those of all seeds"
    assert column(frame, "verdict") == ["baseline", "one seed", "images not known"]
    text = to_plain(paired_sheet(frame))
    assert "swin_t, focused: not compared, as it is not known which images were right: seed 0 (k1/correct.npy: " in text
    assert "swin_t, softmax: not compared, as it is not known which images were right: seed 1 (k3/correct.npy: " in text
    assert "seed 0 (k2/correct.npy: cannot be read: No such file or directory), seed 1 (k5/" in text
    assert "compared" in text.splitlines()[0]


def test_two_records_of_one_run_are_refused(runs: Runs) -> None:
    runs.add(SOFTMAX, task={"workers": 0})
    runs.add(SOFTMAX, task={"workers": 8})
    files = " and ".join(
        re.escape(f"{runs.folder / key}.json (top1 {runs.records[0].metrics['top1']})") for key in ("k0", "k1")
    )
    with pytest.raises(ValueError, match=rf"swin_t softmax\(fused=True\) seed 0: two records of one run, {files}; "):
        runs.compared()


def test_what_names_of_backbones_say_is_no_column(runs: Runs) -> None:
    for backbone in ("swin_t", "pvt_t"):
        for attention in (SOFTMAX, FOCUSED):
            for stages in ("LLSS", "LLLL") if backbone == "pvt_t" else ("LLSS",):
                runs.add(attention, backbone=backbone, model={"family": backbone[:3], "stages": stages})
    headers = paired_sheet(runs.compared()).headers
    assert headers[:4] == ["backbone", "attention", "stages", "seeds"]


def test_the_moving_average_has_bits_of_its_own(runs: Runs) -> None:
    rng = np.random.default_rng(1)
    for attention, accuracy in ((SOFTMAX, 0.5), (FOCUSED, 0.9)):
        runs.add(attention, ema=rng.random(IMAGES) < accuracy)
    runs.add("linear")
    frame = runs.compared(weights="ema")
    assert column(frame, "attention") == [SOFTMAX, FOCUSED], "an arm without a moving average is not compared"
    assert frame["difference"][1] > 30
    assert "moving average of the weights (EMA)" in to_plain(paired_sheet(frame))


def test_what_cannot_be_compared_is_refused(runs: Runs) -> None:
    with pytest.raises(ValueError, match="no training record here has a top1, so there is nothing to compare"):
        runs.compared()
    runs.add(SOFTMAX)
    with pytest.raises(ValueError, match="no training record here has a top1_ema"):
        runs.compared(weights="ema")
    with pytest.raises(ValueError, match="unknown weights 'raw'; allowed: model, ema"):
        runs.compared(weights="raw")


def test_failed_runs_and_other_tasks_are_left_out(runs: Runs, make: Any) -> None:
    runs.add(SOFTMAX)
    runs.add(FOCUSED, status="failed", error="boom")
    runs.records.append(make.record("c", make.cell("swin_t", FOCUSED, make.costs), {"params_m": 1.0}))
    runs.records.append(make.record("e", make.cell("swin_t", FOCUSED, {"name": "evaluate"}), {"top1": 80.0}))
    runs.records.append(make.record("r", make.cell("swin_t", SOFTMAX, make.evaluate_run("k0")), {"top1": 80.0}))
    assert column(runs.compared(), "attention") == [SOFTMAX]


# For people


def test_the_sheet_reads_with_signs_intervals_and_what_they_cover(runs: Runs) -> None:
    for seed in (0, 1):
        runs.add(SOFTMAX, seed, 0.70)
        runs.add(FOCUSED, seed, 0.80)
        runs.add("focused(focusing_factor=4, kernel_size=5)", seed, 0.75)
    view = paired_sheet(runs.compared())
    assert view.headers == [
        "backbone",
        "attention",
        "seeds",
        "top1",
        "SD",
        "difference",
        "95 % interval",
        "p",
        "verdict",
    ]
    assert [row[1] for row in view.rows] == ["softmax", "focused(focusing_factor=3)", "focused(focusing_factor=4)"]
    assert view.rows[0][5:] == ["-", "-", "-", "baseline"]
    assert view.rows[1][5].startswith("+")
    assert " to " in view.rows[1][6]
    assert view.right == {2, 3, 4, 5, 6, 7}
    text = "\n".join(view.notes)
    assert "focused, all rows: kernel_size=5." in text
    assert "seed by seed on the same 1,000 images (list abc)" in text
    assert "cover the choice of the images and of the seeds" in text
    assert "p: two-sided, corrected for the 2 comparisons by Holm's method." in text
    assert "From 2 or 3 seeds" in text
    assert "One seed" not in text
    assert to_markdown(view).startswith("| backbone | attention |")


def test_one_seed_is_a_note(runs: Runs) -> None:
    runs.add(SOFTMAX)
    runs.add(FOCUSED)
    text = "\n".join(paired_sheet(runs.compared()).notes)
    assert "not the noise of the seed, so there is no verdict" in text
    assert "cover the choice of the images and of the seeds" not in text
    assert "adjusted" not in text


def test_differing_environments_are_named(runs: Runs) -> None:
    environment = {"commit": "a" * 40, "torch": "2.11.0", "threads": 2, "host": "a", "date": "1"}
    runs.add(SOFTMAX, environment=environment)
    runs.add(FOCUSED, environment={**environment, "torch": "2.15.0", "host": "b"})
    frame = runs.compared()
    assert column(frame, "environments") == ["", "torch (2.15.0, 2.11.0)"]
    assert "swin_t, focused: compared across differing environments: torch" in to_plain(paired_sheet(frame))


def test_trainings_with_unlike_numbers_of_threads_are_named(runs: Runs) -> None:
    """Their keys are alike, but on a CPU their bits are not."""
    for seed in range(2):
        runs.add(SOFTMAX, seed, environment={"device": "cpu", "threads": 2})
        runs.add(FOCUSED, seed, environment={"device": "cpu", "threads": 2 - seed})
    frame = runs.compared()
    assert column(frame, "environments") == ["", "threads (2, 1)"]
    assert "compared across differing environments: threads (2, 1)" in to_plain(paired_sheet(frame))

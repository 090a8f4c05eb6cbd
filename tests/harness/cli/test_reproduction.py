"""Every published row has a model of ours, and known rows agree."""

import io
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

import results
from backbones import preset, presets
from harness.cells import FOLDER, Cell, Costs, DataSource, Train
from harness.cli import main
from harness.cli.reproduction import our_numbers
from harness.published.models import spec_of
from results import tables
from results.tables import reproduction

PUBLISHED = tables.published_rows("flatten")
TARGETS = tables.targets(PUBLISHED)
HANDFUL = ("FLatten-PVT-T", "FLatten-Swin-T", "Swin-T", "DeiT-T")


def rows_of(*models: str) -> pd.DataFrame:
    return PUBLISHED[PUBLISHED["model"].isin(models)]


def attention_of(target: dict[str, Any]) -> set[str]:
    """What the published rows of a target call its attention."""
    same = pd.Series(True, index=PUBLISHED.index)
    for name in reproduction.KEY:
        same &= PUBLISHED[name] == target.get(name, "")
    return set(PUBLISHED[same]["attention"])


@pytest.mark.parametrize("target", TARGETS, ids=tables.describe)
def test_every_target_has_a_model_with_its_attention_and_resolution(target: dict[str, Any]) -> None:
    spec = spec_of(target)
    side = target.get("resolution", 224)
    assert spec.image_size == (side, side)
    assert spec.num_classes == 1000
    (published,) = attention_of(target)
    assert (published == "softmax-pooled-kv") == getattr(spec, "pooled_keys", False)
    if published == "flatten":
        linear = target.get("param_value") == "relu-linear"
        assert spec.attention.name == ("linear" if linear else "focused")
    else:
        assert spec.attention.name == "softmax"


def test_every_published_model_is_another_cell() -> None:
    models = [target for target in TARGETS if "model" in target]
    assert len({Cell(spec_of(target), Costs()).key for target in models}) == len(models) > 40


def test_models_of_the_paper_are_the_presets() -> None:
    """Of those that FLatten compares only these are beyond the tables: FLatten-DeiT-S, -B and FLatten-PVTv2-B5."""
    used = {spec_of(target).name for target in TARGETS if "model" in target}
    missing = {name for name in presets() if not name.endswith("_micro")} - used
    successors = {name for name in missing if name.startswith(("agent_", "inline_", "pola_"))}
    assert missing - successors == {"flatten_deit_s", "flatten_deit_b", "flatten_pvt_v2_b5"}


@pytest.mark.parametrize(
    ("ablation", "value", "expected"),
    [
        ("focusing_factor", "32", preset("flatten_swin_t", attention="focused(focusing_factor=32)")),
        ("window_size", "14", preset("flatten_swin_t", window=14)),
        ("stages", "LLLS", preset("flatten_swin_t", stages="LLLS")),
        ("stages", "SSSS", preset("swin_t")),
        ("module", "relu-linear", preset("flatten_deit_t", attention="linear")),
    ],
)
def test_ablations(ablation: str, value: str, expected: object) -> None:
    found = [spec_of(t) for t in TARGETS if t.get("ablation") == ablation and t["param_value"] == value]
    assert found == [expected]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records of the handful."""
    folder = tmp_path_factory.mktemp("runs")
    our_numbers(tables.targets(rows_of(*HANDFUL)), folder, Console(file=io.StringIO()))
    return folder


def test_known_rows_agree(out: Path) -> None:
    published = rows_of(*HANDFUL)
    shown = io.StringIO()
    comparison = tables.compare(published, our_numbers(tables.targets(published), out, Console(file=shown)))
    assert "4 of 4 cells are recorded" in shown.getvalue(), "what is recorded is not counted again"
    assert len(comparison) == len(published)
    assert not comparison["reason"].str.contains(reproduction.UNEXPLAINED).any()
    assert set(comparison["top1_ours"]) == {"needs ImageNet"}
    primary = comparison[comparison["primary"] == "1"].set_index("model")
    verdicts = primary[["params_m_verdict", "gmacs_verdict"]].apply(tuple, axis=1).to_dict()
    assert verdicts == {
        "FLatten-PVT-T": ("agrees", "agrees"),
        "FLatten-Swin-T": ("agrees", "agrees"),
        "Swin-T": ("differs", "agrees"),  # 29 M is printed for 28.3 M
        "DeiT-T": ("agrees", "differs"),  # 1.2 G is printed for 1.25 G
    }


def test_accuracy_is_that_of_the_newest_record_evaluated_on_all_of_imagenet(out: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(out, tmp_path / "runs")
    for seed, (images, top1, day) in enumerate(
        [(50_000, 80.0, 1), (50_000, 81.2, 3), (50_000, 79.0, 2), (2_000, 99.0, 4)]
    ):
        cell = Cell(preset("swin_t"), Train(recipe=FOLDER, data=DataSource.folder("/data/imagenet"), seed=seed))
        metrics = {"n_images": images, "top1": top1, "top1_stderr": 0.17}
        created = f"2026-01-0{day}T00:00:00+00:00"
        results.write(folder, results.Record(cell.key, cell.to_json(), "done", metrics, {}, created=created))
    published = rows_of("Swin-T", "DeiT-T")
    comparison = tables.compare(published, our_numbers(tables.targets(published), folder, Console(file=io.StringIO())))
    primary = comparison[comparison["primary"] == "1"].set_index("model")
    assert primary["top1_ours"].to_dict() == {"Swin-T": 81.2, "DeiT-T": "needs ImageNet"}
    assert primary["top1_difference"]["Swin-T"] == pytest.approx(81.2 - 81.3)
    assert primary["top1_verdict"].to_dict() == {"Swin-T": "agrees", "DeiT-T": "not measured"}


EVALUATE = {"name": "evaluate", "weights": {"digest": "d", "ema": False, "strict": True, "path": "/w/swin_t.pth"}}


def accuracy_of(out: Path, records: list[results.Record], **options: Any) -> dict[str, Any]:
    """What is measured of Swin-T at 224 where these records are beside the counted ones."""
    for record in records:
        results.write(out, record)
    (target,) = tables.targets(rows_of("Swin-T").head(1))
    (ours,) = our_numbers([target], out, Console(file=io.StringIO()), **options)
    return ours


def swin_t(key: str, task: dict[str, Any], metrics: dict[str, Any], day: int = 1) -> results.Record:
    cell = {"backbone": preset("swin_t").to_json(), "task": task}
    metrics = {"n_images": 50_000, "top1_stderr": 0.17, **metrics}
    return results.Record(key, cell, "done", metrics, {}, created=f"2026-01-0{day}T00:00:00+00:00")


def trained(key: str, metrics: dict[str, Any], ema_decay: float | None = None) -> results.Record:
    task = Train(recipe=replace(FOLDER, ema_decay=ema_decay), data=DataSource.folder("/data/imagenet"))
    return swin_t(key, Cell(preset("swin_t"), task).to_json()["task"], metrics, day=9)


@pytest.fixture
def copy(out: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(out, tmp_path / "runs"))


@pytest.mark.parametrize(
    ("options", "kind", "top1"),
    [
        ({}, "evaluated", 81.2),
        ({"accuracy": "evaluated"}, "evaluated", 81.2),
        ({"accuracy": "trained"}, "trained", 79.0),
    ],
    ids=str,
)
def test_evaluated_weights_come_before_trained_ones_unless_asked_for(
    copy: Path, options: dict[str, Any], kind: str, top1: float
) -> None:
    records = [swin_t("e", EVALUATE, {"top1": 81.2}), trained("t", {"top1": 79.0, "top1_ema": None})]
    ours = accuracy_of(copy, records, **options)
    assert (ours["top1_kind"], ours["top1"]) == (kind, top1)
    assert ours["top1_weights"] == {"evaluated": "swin_t.pth", "trained": "weights as trained"}[kind]


def test_only_trained_models_are_what_they_are(copy: Path) -> None:
    assert accuracy_of(copy, [trained("t", {"top1": 79.0})])["top1_kind"] == "trained"
    assert accuracy_of(copy, [], accuracy="evaluated")["top1"] is None
    with pytest.raises(ValueError, match="unknown kind of accuracy 'official'; allowed: any, evaluated, trained"):
        accuracy_of(copy, [], accuracy="official")


def test_a_recipe_with_a_moving_average_counts_by_it(copy: Path) -> None:
    ours = accuracy_of(copy, [trained("t", {"top1": 79.0, "top1_ema": 80.0}, ema_decay=0.99984)])
    assert (ours["top1"], ours["top1_weights"]) == (80.0, "EMA")
    assert ours["top1_stderr"] == pytest.approx(100 * (0.8 * 0.2 / 50_000) ** 0.5), "of the average, not of the raw"


def test_weights_loaded_in_part_never_count(copy: Path) -> None:
    for n, part in enumerate(("weights_missing", "weights_reshaped")):
        assert accuracy_of(copy, [swin_t(f"e{n}", EVALUATE, {"top1": 81.2, part: 1})])["top1"] is None
    whole = {"top1": 81.2, "weights_missing": 0, "weights_unexpected": 3, "weights_reshaped": 0}
    assert accuracy_of(copy, [swin_t("e", EVALUATE, whole)])["top1"] == 81.2, "what is not of the model does no harm"


def test_an_evaluation_of_a_run_never_stands_for_the_run(copy: Path) -> None:
    weights = {"run": "t", "label": "swin_t", "which": "best", "ema": False, "strict": True}
    records = [trained("t", {"top1": 79.0}), swin_t("e", {"name": "evaluate", "weights": weights}, {"top1": 81.2})]
    ours = accuracy_of(copy, records)
    assert (ours["top1_kind"], ours["top1"]) == ("trained", 79.0)
    assert accuracy_of(copy, [], accuracy="evaluated")["top1"] is None


def test_fewer_images_count_only_if_allowed_and_after_all_of_them(copy: Path) -> None:
    fewer = swin_t("p", EVALUATE, {"top1": 90.0, "n_images": 5_000}, day=8)
    assert accuracy_of(copy, [fewer])["top1"] is None
    ours = accuracy_of(copy, [], partial=True)
    assert (ours["top1"], ours["n_images"]) == (90.0, 5_000)
    whole = swin_t("e", EVALUATE, {"top1": 81.2})
    assert accuracy_of(copy, [whole], partial=True)["top1"] == 81.2


def test_targets_of_one_model_share_a_record(out: Path) -> None:
    ablation = PUBLISHED[(PUBLISHED["ablation"] == "focusing_factor") & (PUBLISHED["param_value"] == "3")]
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    targets = tables.targets(pd.concat([rows_of("FLatten-Swin-T"), ablation]))
    assert len(targets) == 2
    first, second = our_numbers(targets, out, Console(file=io.StringIO()))
    assert (first["params_m"], first["gmacs"]) == (second["params_m"], second["gmacs"])
    assert first["params_m"] == pytest.approx(29.192384)
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_the_command(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tables, "published_rows", lambda paper: rows_of(*HANDFUL))
    csv = tmp_path / "comparison.csv"
    assert main.main(["reproduce", "flatten", "--out", str(out), "--format", "markdown", "--csv", str(csv)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("| row | params_m | ours | diff | verdict |")
    assert "FLatten-PVT-T at 224" in printed
    assert "0 of them unexplained" in printed
    frame = pd.read_csv(csv, dtype={"params_m_theirs": str})
    assert len(frame) == len(rows_of(*HANDFUL))
    assert frame["params_m_theirs"][0] == "5.7", "as printed"
    assert frame["params_m_ours"][0] == pytest.approx(5.717416)

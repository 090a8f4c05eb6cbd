"""The commands about accuracy, from outside: train, evaluate, compare, data check, reproduce with official weights."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import backbones
import results
from backbones import preset, to_official
from harness.cli import reproduction
from harness.published import models, official
from tests.harness.command_line import Ask, photos, records, refused
from tests.pages import file_named

TRAIN = "train deit_micro --data photos --set num_classes=3 image_size=16 dim=16 depth=2"
SHORT = f"{TRAIN} --change epochs=1 warmup_epochs=0 batch=22"


@pytest.fixture
def trained(ask: Ask) -> results.Record:
    """A model of 3 updates on photos, with a moving average, in runs."""
    photos()
    answer = ask(f"{SHORT} ema_decay=0.5")
    assert (answer.status, answer.err) == (0, "")
    (record,) = records()
    return record


# train


def test_train_prints_how_and_leaves_a_run_folder(ask: Ask) -> None:
    photos()
    answer = ask(f"{SHORT} --seed 0 1 --workers 0 --device-batch 11")
    assert (answer.status, answer.err) == (0, "")
    assert "global batch 22 = 1 x 2 x 11 (processes, accumulated, images); learning rate 0.00103; " in answer.out
    first, second = records()
    assert {first.cell["task"]["seed"], second.cell["task"]["seed"]} == {0, 1}
    assert (first.metrics["accumulation"], first.metrics["device_batch"]) == (2, 11)
    folder = Path("runs") / first.key
    config = json.loads((folder / "config.json").read_text())
    assert config["lr_effective"] == first.metrics["lr"] == pytest.approx(24e-3 * 22 / 512)
    assert config["task"]["recipe"]["epochs"] == 1
    assert (folder / "metrics.jsonl").read_text().count("\n") == 1
    assert ask(f"{SHORT} --seed 0 1 --workers 0").out.startswith("2 of 2 cells are recorded in runs already")


def test_train_from_weights_and_from_those_that_fit_in_part(ask: Ask, trained: results.Record) -> None:
    run = Path("runs") / trained.key
    answer = ask(f"{SHORT} --weights {run} --ema --out tuned")
    assert (answer.status, answer.err) == (0, "")
    assert "started from checkpoint-00000003.pt (EMA): every tensor fits" in answer.out
    (tuned,) = records("tuned")
    assert tuned.key != trained.key
    assert tuned.cell["task"]["weights"]["ema"] is True

    other = SHORT.replace("num_classes=3", "num_classes=3 depth=1").replace(" depth=2", "")
    text = refused_late(ask, f"{other} --weights {run}", "other")
    assert "does not fit deit_micro" in text
    assert "unexpected (blocks.1." in text
    assert "--allow-partial-weights loads what fits" in text
    answer = ask(f"{other} --weights {run} --allow-partial-weights --out partial")
    assert answer.status == 0
    assert re.search(r"started from .*: \d+ unexpected \(blocks\.1\.", answer.out)


def refused_late(ask: Ask, line: str, out: str) -> str:
    """The error of a cell that fails once it runs."""
    answer = ask(f"{line} --out {out}")
    assert answer.status == 1
    (record,) = records(out)
    assert record.status == "failed"
    assert record.error is not None
    return record.error


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("train deit_micro", "--data"),
        ("train deit_micro --data nowhere", "--data nowhere: no such folder"),
        ("train deit_micro --data imagenet", "imagenet does not come with the project; say where it is"),
        (f"{TRAIN} --recipe swim_t", "unknown recipe 'swim_t'; did you mean swin_t"),
        (f"{TRAIN} --change lr", "cannot read --change 'lr'; write it as in --change epochs=100"),
        (f"{TRAIN} --change learning_rate=1", "unknown field of a recipe 'learning_rate'"),
        (f"{TRAIN} --change lr=-1", "lr is -1; allowed are numbers above 0"),
        (f"{TRAIN} --change epochs=1 epochs=2", "--change gives epochs twice"),
        (f"{TRAIN} --weights nowhere.pth", "cannot read the weights nowhere.pth: No such file"),
        (f"{TRAIN} --ema", "have no effect without --weights"),
        (f"{TRAIN} --device tpu", "unknown device 'tpu'; allowed: cpu, cuda"),
        (f"{TRAIN} --precision fp8", "unknown precision 'fp8'"),
        (f"{TRAIN} --mode fast", "unknown mode 'fast'; allowed: eager, compiled"),
        (f"{TRAIN} --device-batch 0", "device_batch is 0"),
        (f"{TRAIN} --change batch=128", "a batch of 128 needs as many training images; there are 66"),
        (f"{TRAIN} --workers -1", "workers and checkpoint_minutes take numbers from 0 up"),
        (f"{TRAIN} --change mixup=0.8 --device-batch 1", "mixup mixes pairs, so it takes 2 or more"),
        ("train flatten_swin_b --data imagenet=photos", "is not ImageNet-1K"),
        (
            "train flatten_swin_b_384 --data photos",
            "fine-tunes flatten_swin_b: give its weights (--weights)",
        ),
    ],
)
def test_train_refuses(ask: Ask, line: str, said: str) -> None:
    photos()
    if line == "train deit_micro":
        assert ask(line).status == 2
    else:
        assert said in refused(ask, line)


def test_a_recipe_that_was_not_published_is_said_so(ask: Ask) -> None:
    photos()
    answer = ask("train flatten_deit_t --data photos --set num_classes=3 --dry-run")
    assert answer.status == 0
    assert answer.err.startswith("flatten_deit_t: recipe not published; that of DeiT-T")


# evaluate


def test_evaluate_a_checkpoint_of_a_run(ask: Ask, trained: results.Record) -> None:
    run = Path("runs") / trained.key
    for flags, name in (("", "top1"), ("--ema", "top1_ema")):
        answer = ask(f"evaluate --checkpoint {run} --data photos {flags} --out evaluated{name} --workers 1")
        assert (answer.status, answer.err) == (0, "")
        (record,) = records(f"evaluated{name}")
        assert record.metrics["top1"] == trained.metrics[name]
        assert record.metrics["val_list"] == trained.metrics["val_list"]
        suffix = "" if name == "top1" else "_ema"
        ours = (Path(f"evaluated{name}") / record.key / "correct.npy").read_bytes()
        assert ours == (run / f"correct{suffix}.npy").read_bytes()
    assert "preprocessing short_side" in answer.out


def test_evaluate_with_both_transforms_and_kept_crops(ask: Ask, trained: results.Record) -> None:
    line = f"evaluate --checkpoint runs/{trained.key}/best.pt --data photos --transform squash short_side:1.0"
    answer = ask(f"{line} --cache crops --out one")
    assert (answer.status, answer.err) == (0, "")
    kinds = [record.cell["task"]["preprocessing"]["kind"] for record in records("one")]
    assert sorted(kinds) == ["short_side", "squash"]
    assert len(list(Path("crops").glob("crops-*.npy"))) == 2
    again = ask(f"{line} --cache crops --out two")
    plain = ask(f"{line} --out three")
    assert again.status == plain.status == 0
    found = [{r.key: r.metrics["top1"] for r in records(out)} for out in ("one", "two", "three")]
    assert found[0] == found[1] == found[2]


def test_evaluate_needs_only_val(ask: Ask, trained: results.Record) -> None:
    for path in Path("photos/train").rglob("*.jpg"):
        path.unlink()
    answer = ask(f"evaluate --checkpoint runs/{trained.key} --data photos --out evaluated")
    assert (answer.status, answer.err) == (0, "")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("evaluate --checkpoint nowhere.pth --data photos", "cannot read the weights nowhere.pth"),
        ("evaluate --checkpoint my_sweeps.py --data photos", "cannot read the weights"),
        ("evaluate --checkpoint bare.pth --data photos", "does not say what model it is of: name the preset"),
        ("evaluate deit_micro --checkpoint bare.pth --data photos", "has no transform of its own: --transform"),
        ("evaluate deit_t --checkpoint bare.pth --data photos", "photos has 3 classes, the model 1000"),
        ("evaluate deit_t --checkpoint bare.pth --data photos --transform stretch", "unknown kind 'stretch'"),
        ("evaluate deit_t --checkpoint bare.pth --data photos --transform squash:2", "crop_pct is 2.0; allowed"),
        ("evaluate deit_t --checkpoint bare.pth --data photos --batch 0", "batch is 0"),
        ("evaluate deit_t --checkpoint bare.pth --data imagenet=photos", "is not ImageNet-1K"),
    ],
)
def test_evaluate_refuses(ask: Ask, line: str, said: str) -> None:
    photos()
    torch.save({"weight": torch.ones(2)}, "bare.pth")
    assert said in refused(ask, line)


# train, then evaluate


@pytest.fixture
def documented_sweep(ask: Ask) -> None:
    """more_sweeps.py of docs/own_sweep.md, and its images."""
    Path("more_sweeps.py").write_text(file_named("more_sweeps.py"))
    photos()


@pytest.mark.usefixtures("documented_sweep")
def test_the_documented_sweep_trains_and_then_evaluates_both_ways(ask: Ask) -> None:
    answer = ask("run more_sweeps.py:both_ways --epochs 1 --seed 0 1")
    assert (answer.status, answer.err) == (0, "")
    by_key = {record.key: record for record in records()}
    evaluations = [record for record in by_key.values() if record.cell["task"]["name"] == "evaluate"]
    assert len(by_key) == 4 + 8
    assert len(evaluations) == 8
    for record in evaluations:
        training = by_key[record.cell["task"]["weights"]["run"]]
        assert training.cell["backbone"] == record.cell["backbone"]
        assert training.cell["task"]["recipe"]["epochs"] == 1
        if record.cell["task"]["preprocessing"] == training.cell["task"]["recipe"]["evaluation"]:
            assert record.metrics["top1"] == training.metrics["top1"]
    rows = [line for line in answer.out.splitlines() if line.startswith("pvt_v2_micro")]
    assert len(rows) == 8, "a training and an evaluation of it are a row"
    assert ask("table --csv rows.csv").status == 0
    assert {line.count("squash") + line.count("short_side") for line in rows} == {1}


@pytest.mark.usefixtures("documented_sweep")
def test_an_evaluation_alone_is_refused_until_its_training_is_recorded(ask: Ask) -> None:
    only = "run more_sweeps.py:both_ways --epochs 1 --only"
    text = refused(ask, f"{only} evaluate")
    assert text.startswith(
        "pvt_v2_micro evaluate needs the training pvt_v2_micro num_classes=3 softmax(fused=True) photos"
    )
    assert "which is not recorded in runs; nor is that training among the cells to run" in text
    assert ask(f"{only} train").status == 0
    assert ask(f"{only} evaluate").status == 0
    assert len(records()) == 2 + 4


# compare


def test_compare_pairs_images_and_seeds(ask: Ask) -> None:
    photos()
    for attention in ("softmax", "linear"):
        assert ask(f"{SHORT} --attention {attention} --seed 0 1").status == 0
    answer = ask("compare --csv paired.csv")
    assert (answer.status, answer.err) == (0, "wrote paired.csv\n")
    lines = answer.out.splitlines()
    assert re.match(r"deit_micro +softmax +2 .* baseline$", lines[1])
    assert re.match(r"deit_micro +linear +2 .* (better|worse|not resolved)$", lines[2])
    assert Path("paired.csv").read_text().count("\n") == 3
    assert "| linear" in ask("compare --markdown").out
    assert "there are: " in refused(ask, "compare --baseline focused")
    assert "there is no folder nowhere" in refused(ask, "compare --out nowhere")


# data check


def test_data_check_says_what_is_there_and_what_is_wrong(ask: Ask) -> None:
    photos()
    answer = ask("data check photos --classes 3 --workers 0")
    assert (answer.status, answer.err) == (0, "")
    assert "66 images, 0 of them unreadable" in answer.out
    assert answer.out.endswith("no problem\n")
    path = Path("photos/val/cat/0.jpg")
    path.write_bytes(path.read_bytes()[:200])
    answer = ask("data check photos --classes 4 --workers 1")
    assert answer.status == 1
    assert "unreadable image photos/val/cat/0.jpg" in answer.out
    assert "val has 3 classes, the model 4" in answer.out
    answer = ask("data check nowhere")
    assert answer.status == 1
    assert "data folder nowhere does not exist" in answer.out


# reproduce


@pytest.fixture
def imagenet_of_a_sort(ask: Ask) -> None:
    """imagenet/val: 1,000 classes, an image each of noise. weights: an official file of PVTv2-B0, of random weights."""
    for number in range(1000):
        folder = Path(f"imagenet/val/n{number:08d}")
        folder.mkdir(parents=True)
        pixels = np.random.default_rng(number).integers(0, 256, (9, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "a.png")
    Path("weights").mkdir()
    spec = preset("pvt_v2_b0")
    torch.save({"model": to_official(backbones.build(spec).state_dict(), spec)}, "weights/pvt_v2_b0.pth")


@pytest.mark.usefixtures("imagenet_of_a_sort")
def test_reproduce_evaluates_the_official_files_that_are_there(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "published_rows", few(results.published_rows))
    # A PVTv2 is the same at every size; of 224 pixels, its evaluation would take a minute here.
    for module in (reproduction, models):
        monkeypatch.setattr(module, "preset", lambda name, **values: preset(name, **{"image_size": 32, **values}))
    line = "reproduce flatten --data imagenet --weights weights --workers 0"
    assert "is not ImageNet-1K: val has 1,000 images instead of 50,000" in refused_after_missing(ask, line)
    answer = ask(f"{line} --allow-partial-data --csv rows.csv")
    assert answer.status == 0
    missing = [text for text in answer.err.splitlines() if text.startswith("no weights for ")]
    assert len(missing) == len(official.OFFICIAL) - 1
    assert "no weights for swin_t: swin_tiny_patch4_window7_224.pth is not in weights" in missing
    (record,) = [record for record in records() if record.cell["task"]["name"] == "evaluate"]
    assert record.metrics["n_images"] == 1000
    assert record.cell["task"]["preprocessing"]["kind"] == "short_side"
    rows = [text for text in answer.out.splitlines() if text.startswith("PVTv2-B0 at 224")]
    assert len(rows) == 2
    assert all("partial: 1000 images" in row for row in rows)
    assert Path("rows.csv").is_file()


def few(published):  # type: ignore[no-untyped-def]
    """The rows of the two smallest models: counting all of them takes a minute."""

    def rows(paper: str):  # type: ignore[no-untyped-def]
        frame = published(paper)
        return frame[frame["model"].isin(["PVTv2-B0", "DeiT-T"])]

    return rows


def refused_after_missing(ask: Ask, line: str) -> str:
    answer = ask(line)
    assert answer.status == 2
    assert answer.out == ""
    return answer.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--data photos", "--data and --weights go together"),
        ("--weights photos", "--data and --weights go together"),
        ("--allow-partial-data", "has no effect without --data and --weights"),
        ("--data photos --weights nowhere", "weights folder nowhere does not exist"),
        ("--data photos --weights photos", "no official weights in photos; a file is known by its name"),
    ],
)
def test_reproduce_refuses(ask: Ask, line: str, said: str) -> None:
    photos()
    assert said in refused(ask, f"reproduce flatten {line}")

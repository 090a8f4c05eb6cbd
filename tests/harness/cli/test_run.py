"""run, train and evaluate: what is measured and recorded, what is not measured again, and what is refused or fails."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import results
from tests.harness.command_line import SHORT, TRAIN, Ask, images, photos, records, refused, tree
from tests.pages import file_named

# run


def test_a_sweep_of_the_users_own_is_measured_once(ask: Ask) -> None:
    first = ask("run my_sweeps.py:costs")
    assert (first.status, first.err) == (0, "")
    assert "[1/3] deit_micro softmax(fused=True) costs" in first.out
    assert "3 records in runs" in first.out
    assert sorted(record.status for record in records()) == ["done"] * 3
    assert len(list(Path("runs").glob("*.json"))) == 3
    before = tree()
    again = ask("run my_sweeps.py:costs")
    assert again.status == 0
    assert "3 of 3 cells are recorded in runs already" in again.out
    assert "[1/3]" not in again.out
    assert tree() == before


def test_a_dry_run_writes_nothing(ask: Ask) -> None:
    before = tree()
    answer = ask("run my_sweeps.py:costs --dry-run")
    assert (answer.status, answer.err) == (0, "")
    assert tree() == before
    lines = answer.out.splitlines()
    assert [line.split()[1:3] for line in lines] == [["to", "do"]] * 3
    ask("run my_sweeps.py:costs --only linear")
    before = tree()
    answer = ask("run my_sweeps.py:costs --dry-run")
    assert ["recorded" in line for line in answer.out.splitlines()] == [False, True, False]
    assert [line.split()[0] for line in answer.out.splitlines()] == [line.split()[0] for line in lines]
    assert tree() == before


def test_what_was_disturbed_is_measured_again_when_asked_for(ask: Ask) -> None:
    ask("run my_sweeps.py:costs")
    record = records()[1]
    metrics = {"images_per_s": 44.0, "infer_disturbed": "threads waited 90 % of their time for a core"}
    results.write(Path("runs"), replace(record, metrics=metrics))
    before = tree()
    assert "to do" not in ask("run my_sweeps.py:costs --dry-run").out
    assert ask("run my_sweeps.py:costs --dry-run --retry-disturbed").out.count("to do") == 1
    shown = ask("run my_sweeps.py:costs")
    assert "44 (disturbed)" in shown.out
    again = "attention-bench run --retry-disturbed measures again what was disturbed.\n"
    assert shown.err.endswith(again)
    assert ask("table").err == again
    for form in ("markdown", "latex", "html", "csv"):
        answer = ask(f"table --format {form}")
        assert "--retry-disturbed" not in answer.out + answer.err
    assert tree() == before
    answer = ask("run my_sweeps.py:costs --retry-disturbed")
    assert answer.status == 0
    assert "2 of 3 cells are recorded" in answer.out
    assert "disturbed" not in answer.out
    assert records()[1].metrics.keys() == record.metrics.keys()


def test_training_on_a_folder_of_images(ask: Ask) -> None:
    photos()
    answer = ask("run --backbone deit_micro --task train --data photos --epochs 1 --set num_classes=3")
    assert (answer.status, answer.err) == (0, "")
    (record,) = records()
    assert record.status == "done"
    task = record.cell["task"]
    folder = str(Path("photos").resolve())
    assert task["data"] == {"name": folder, "root": folder}
    assert task["recipe"]["epochs"] == 1
    metrics = record.metrics
    assert metrics["n_images"] == 9
    assert metrics["epochs"] == 1
    share = metrics["top1"] / 100
    assert share * 9 == pytest.approx(round(share * 9))
    assert metrics["top1_stderr"] == pytest.approx(100 * (share * (1 - share) / 9) ** 0.5)
    assert metrics["top5"] == 100
    assert metrics["train_loss"] > 0
    assert (Path("runs") / record.key / "best.pt").is_file()
    assert f"{metrics['top1']:.2f} ± {metrics['top1_stderr']:.2f}" in answer.out
    before = tree()
    assert ask("run --backbone deit_micro --task train --data photos/ --epochs 1 --set num_classes=3").status == 0
    assert tree() == before


LAYOUTS: dict[str, tuple[str, ...]] = {
    "two": ("train/cat", "train/dog", "val/cat", "val/dog"),
    "no_val": ("train/cat", "train/dog"),
    "no_train": ("val/cat", "val/dog"),
    "flat_val": ("train/cat", "train/dog", "val"),
    "flat": ("train", "val"),
    "others": ("train/cat", "train/dog", "val/cat", "val/eel"),
    "one": ("train/cat", "val/cat"),
    "classes": ("cat", "dog"),
}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("imagenet=", "--data imagenet=: no such folder, and no image set of this name (fashion_mnist_14k, "),
        (
            "nowhere",
            "--data nowhere: no such folder, and no image set of this name (fashion_mnist_14k, ",
        ),
        ("my_sweeps.py", "is not a folder"),
        ("empty", "empty is empty; expected train/<class>/*.jpg and val/<class>/*.jpg"),
        ("no_val", "no_val has no folder 'val'"),
        ("no_train", "no_train has no folder 'train'"),
        ("classes", "classes has no folder 'train'"),
        ("flat_val", "flat_val/val/0.jpg is not in a class folder directly under"),
        ("flat", "is not in a class folder"),
        ("others", "train and val must have the same classes; only in train: dog; only in val: eel"),
        ("one", "has only the class 'cat'"),
        ("two", "two has 2 classes, the model 10: --set num_classes=2"),
    ],
)
def test_image_folders_amiss_are_refused(ask: Ask, data: str, said: str) -> None:
    Path("empty").mkdir()
    images([f"{data}/{folder}" for folder in LAYOUTS.get(data, ())], 1)
    assert said in refused(ask, f"run --backbone deit_micro --task costs train --data {data}")


def test_more_classes_than_the_embedded_images_have_are_refused(ask: Ask) -> None:
    assert "fashion_mnist_14k has 10 classes, the model 1000" in refused(ask, "run --backbone deit_t --task train")


def test_fewer_images_than_a_batch_are_refused(ask: Ask) -> None:
    images([f"few/{split}/{name}" for split in ("train", "val") for name in ("cat", "dog")], 2)
    line = "run --backbone deit_micro --task train --set num_classes=2 --data few --epochs 1"
    assert "a batch of 64 needs as many training images; there are 4" in refused(ask, line)


def test_a_device_that_is_not_there_is_refused(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for task in ("speed", "train"):
        assert "no CUDA device" in refused(ask, f"run --backbone deit_micro --task {task} --device cuda")


@pytest.mark.parametrize("out", ["file", "file/below"])
@pytest.mark.parametrize("command", ["run my_sweeps.py:costs", "reproduce flatten"])
def test_an_output_folder_that_cannot_be_written_is_refused(ask: Ask, command: str, out: str) -> None:
    """A file in its way, which stops root too."""
    Path("file").write_text("")
    assert f"cannot write to the output folder {out}: " in refused(ask, f"{command} --out {out}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_an_output_folder_without_permission_is_refused(ask: Ask) -> None:
    Path("closed").mkdir(mode=0o500)
    assert "cannot write to the output folder closed: Permission denied" in refused(
        ask, "run my_sweeps.py:costs --out closed"
    )


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_unreadable_image_is_named_and_the_other_cells_go_on(ask: Ask, split: str) -> None:
    photos()
    broken = Path(f"photos/{split}/dog/1.jpg").resolve()
    broken.write_bytes(broken.read_bytes()[:100])
    if split == "train":  # each epoch leaves two of the 66 images out; not one of the broken ones, all of dog
        for path in broken.parent.iterdir():
            path.write_bytes(b"no image")
    answer = ask("run --backbone deit_micro --task train costs --set num_classes=3 --data photos --epochs 1")
    assert answer.status == 1
    named = [line for line in answer.out.splitlines() if "unreadable image" in line]
    assert named
    assert all(str(broken.parent if split == "train" else broken) in line for line in named)
    by_task = {record.cell["task"]["name"]: record for record in records()}
    assert by_task["train"].status == "failed"
    assert "unreadable image" in (by_task["train"].error or "")
    assert by_task["costs"].status == "done"


# train


@pytest.fixture
def trained(ask: Ask) -> results.Record:
    """A model of 3 updates on photos, with a moving average, in runs."""
    photos()
    answer = ask(f"{SHORT} ema_decay=0.5")
    assert (answer.status, answer.err) == (0, "")
    (record,) = records()
    return record


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
        (
            f"{TRAIN} --recipe swim_t",
            "unknown recipe 'swim_t'; did you mean swin_t or cswin_t or swin_s? (allowed: micro, folder, all of "
            "`attention-bench list backbones` but the micro presets)\n",
        ),
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
        (f"{TRAIN} --workers -1", "--workers -1: it takes a number from 0 up"),
        (f"{TRAIN} --checkpoint-minutes -1", "--checkpoint-minutes -1.0: it takes a number from 0 up"),
        (f"{TRAIN} --checkpoint-minutes nan", "--checkpoint-minutes nan: it takes a number from 0 up"),
        (f"{TRAIN} --seed", "--seed takes one number or more"),
        (f"{TRAIN} --seed -3", "seed is -3; allowed are numbers from 0 up"),
        (f"{TRAIN} --cache my_sweeps.py", "--cache my_sweeps.py: it is a file; --cache takes a folder"),
        (f"{TRAIN} --change epochs=many", "epochs is 'many'; it takes a whole number"),
        (f"{TRAIN} --weights photos", "the folder photos has no checkpoint of a run"),
        ("train deit_micro --data ''", "--data '': no such folder, and no image set of this name (fashion_mnist_14k, "),
        ("train deit_micro --data fashion_mnist_14k=photos", "fashion_mnist_14k comes with the project"),
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


def test_a_seed_given_twice_is_one_run(ask: Ask) -> None:
    photos()
    answer = ask(f"{TRAIN} --seed 0 0 1 --dry-run")
    assert [line.split()[-1] for line in answer.out.splitlines()] == ["0", "1"]


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
        ("evaluate deit_t --checkpoint bare.pth --data photos --workers -2", "--workers -2: it takes a number from 0"),
        ("evaluate deit_t --checkpoint bare.pth --data photos --cache bare.pth", "--cache bare.pth: it is a file"),
        ("evaluate deit_t --checkpoint bare.pth --data photos --device tpu", "unknown device 'tpu'; allowed"),
        ("evaluate --checkpoint photos --data photos", "the folder photos has no checkpoint of a run"),
        ("evaluate deit_t --checkpoint bare.pth --data imagenet=photos", "is not ImageNet-1K"),
    ],
)
def test_evaluate_refuses(ask: Ask, line: str, said: str) -> None:
    photos()
    torch.save({"weight": torch.ones(2)}, "bare.pth")
    assert said in refused(ask, line)


# run, of a sweep that trains and then evaluates


@pytest.fixture
def sweep_of_the_page(ask: Ask) -> None:
    """more_sweeps.py of docs/own_sweep.md, and its images."""
    Path("more_sweeps.py").write_text(file_named("more_sweeps.py"))
    photos()


@pytest.mark.usefixtures("sweep_of_the_page")
def test_the_sweep_of_the_readme_trains_and_then_evaluates_both_ways(ask: Ask) -> None:
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


@pytest.mark.usefixtures("sweep_of_the_page")
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

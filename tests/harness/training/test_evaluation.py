"""Evaluation: the same to the last bit on any number of processes, with kept crops and without; how it stops."""

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import backbones
from harness.cells import DataSource, Evaluate
from harness.images import sources
from harness.images.batches import Images
from harness.images.readers import FolderReader
from harness.images.sources import open_val
from harness.images.transforms import Normalise, eval_transform
from harness.process.ranks import Ranks
from harness.process.stopping import Stopped, StopRequest
from harness.training.evaluation import Inference, evaluate, evaluate_weights
from harness.training.loading import weights_in
from tests.harness.evaluations import BATCH, CPU, IMAGES, VIEW, Recorded, evaluated, fill, spec
from tests.harness.image_sets import coloured
from tests.harness.processes import together
from tests.harness.small_training import PAD, deit


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save({"model": backbones.build(spec()).state_dict()}, path)
    return path


def task(folder: Path, checkpoint: Path, **changes: Any) -> Evaluate:
    return replace(Evaluate(weights_in(checkpoint), DataSource.folder(folder), VIEW, batch=BATCH), **changes)


# Several processes


def _evaluate(group: Ranks, folder: str, cache: str | None) -> Any:
    model = Recorded()
    return evaluated(Path(folder), group, Path(cache) if cache else None, model), [
        logits.numpy().tobytes() for logits in model.logits
    ]


@pytest.mark.parametrize("kept", [False, True], ids=["decoded", "kept"])
@pytest.mark.parametrize("world", [2, 3])
def test_it_is_the_same_on_any_number_of_processes(folder: Path, tmp_path: Path, world: int, kept: bool) -> None:
    cache = str(tmp_path) if kept else None
    one = Recorded()
    whole = evaluated(folder, model=one)
    assert len(set(whole[0])) == len(set(whole[1])) == 2, "some are right and some are wrong"
    for _ in range(1 + kept):  # the first fills what is kept, the second reads it
        answers = together(world, _evaluate, str(folder), cache)
        assert [result for result, _ in answers] == [whole] * world
        for rank, (_, logits) in enumerate(answers):
            assert logits == [each.numpy().tobytes() for each in one.logits[rank::world]]
    assert len(list(tmp_path.iterdir())) == kept


def _run(group: Ranks, this: Evaluate, out: str) -> Any:
    return evaluate_weights(this, spec(), Path(out), lambda line: None)


@pytest.mark.parametrize("world", [2, 3])
def test_the_task_on_several_processes(folder: Path, checkpoint: Path, tmp_path: Path, world: int) -> None:
    this = task(folder, checkpoint, cache=str(tmp_path / "cache"), workers=1)
    alone = replace(this, cache=None, workers=0)
    one: dict[str, Any] = evaluate_weights(alone, spec(), tmp_path / "one", lambda line: None)
    answers = together(world, _run, this, str(tmp_path / "many"))
    assert answers == [one | {"ranks": world}] * world
    assert 0 < one["top1"] < 100
    assert one["n_images"] == IMAGES
    assert (tmp_path / "many/correct.npy").read_bytes() == (tmp_path / "one/correct.npy").read_bytes()


def _stop(group: Ranks, folder: str, cache: str, number: int) -> Any:
    with StopRequest() as stop:

        class Asked(Recorded):
            """The last process is asked to stop in its second batch."""

            def forward(self, images: Tensor) -> Tensor:
                if len(self.logits) == 1 and group.rank == group.world - 1:
                    os.kill(os.getpid(), number)
                return super().forward(images)

        model = Asked()
        try:
            evaluated(Path(folder), group, Path(cache), model, stop=stop)
        except Stopped as stopped:
            return stopped.status, str(stopped), len(model.logits), model.training


@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_request_to_stop_stops_every_process(folder: Path, tmp_path: Path, world: int) -> None:
    answers = together(world, _stop, str(folder), str(tmp_path), signal.SIGUSR1)
    ends = [(143, "SIGTERM")] * (world - 1) + [(138, "SIGUSR1")]
    for (status, text, batches, training), (wanted, name) in zip(answers, ends, strict=True):
        assert status == wanted
        assert text.startswith(f"stopped on {name} in the evaluation of 39 images")
        assert batches == 2
        assert training, "the model is left as it was"
    assert list(tmp_path.iterdir()) == []


def test_the_task_stops_on_request(folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    this = task(folder, checkpoint, cache=str(tmp_path / "cache"))
    with pytest.MonkeyPatch.context() as patch:
        read = FolderReader.encoded

        def asked(self: FolderReader, index: int) -> bytes:
            if index == 9:
                os.kill(os.getpid(), signal.SIGTERM)
            return read(self, index)

        patch.setattr(FolderReader, "encoded", asked)
        with pytest.raises(Stopped) as stopped:
            evaluate_weights(this, spec(), tmp_path / "out", lambda line: None)
    assert stopped.value.status == 143
    assert list((tmp_path / "cache").iterdir()) == []
    assert not (tmp_path / "out").exists()
    assert signal.getsignal(signal.SIGTERM) == before


# Images and logits that cannot be used


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_named(tmp_path: Path, checkpoint: Path, workers: int) -> None:
    fill(tmp_path / "images")
    path = tmp_path / "images/val/class06/20.png"
    path.write_bytes(path.read_bytes()[:300])
    this = task(tmp_path / "images", checkpoint, cache=str(tmp_path / "cache"), workers=workers)
    with pytest.raises(ValueError) as error:
        evaluate_weights(this, spec(), tmp_path / "out", lambda line: None)
    assert str(error.value).startswith(f"unreadable image {path}: ")
    assert "\n" not in str(error.value)
    assert list((tmp_path / "cache").iterdir()) == []
    assert not (tmp_path / "out").exists()


def test_what_the_task_reports(folder: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.training.evaluation.REPORT_EVERY", 5)
    lines: list[str] = []
    metrics = evaluate_weights(task(folder, checkpoint), spec(), tmp_path, lines.append)
    assert lines == ["weights.pth: every tensor fits", "evaluated 20 of 39 images", "evaluated 39 of 39 images"]
    assert (metrics["weights_missing"], metrics["weights_unexpected"], metrics["weights_reshaped"]) == (0, 0, 0)
    assert metrics["head_trained"]


def test_it_warns_of_classes_numbered_as_ilsvrc_does(
    folder: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbered = tmp_path / "numbered"
    shutil.copytree(folder, numbered)
    for split in numbered.iterdir():
        for number, each in enumerate(sorted(split.iterdir()), 1):
            each.rename(split / str(number))
    number = len(list((numbered / "val").iterdir()))
    monkeypatch.setattr(sources, "IMAGENET_CLASSES", number)
    lines: list[str] = []
    evaluate_weights(task(numbered, checkpoint), spec(), tmp_path, lines.append)
    assert lines[0].startswith(f"warning: the classes of {numbered} are called 1 to {number}: ")
    evaluate_weights(task(folder, checkpoint), spec(), tmp_path, lines.append)
    assert sum(line.startswith("warning") for line in lines) == 1


def test_what_did_not_fit_is_in_the_metrics(folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)["model"]
    content["other.weight"], content["norm.bias"] = torch.zeros(1), torch.zeros(3)
    del content["norm.weight"], content["head.bias"]
    torch.save(content, tmp_path / "other.pth")
    this = task(folder, tmp_path / "other.pth", weights=weights_in(tmp_path / "other.pth", strict=False))
    metrics = evaluate_weights(this, spec(), tmp_path, print)
    assert (metrics["weights_missing"], metrics["weights_unexpected"], metrics["weights_reshaped"]) == (2, 1, 1)
    assert not metrics["head_trained"]


def test_how_it_is_run_is_no_part_of_what_it_is(folder: Path, checkpoint: Path) -> None:
    this = task(folder, checkpoint)
    assert this == replace(this, workers=3, cache="/elsewhere")
    assert this != replace(this, batch=5)
    with pytest.raises(ValueError, match="batch is 0; allowed are numbers from 1 up"):
        replace(this, batch=0)


# Models whose answers are known


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coloured(tmp_path_factory.mktemp("colours"))


@pytest.mark.parametrize(("batch", "workers"), [(1, 0), (7, 0), (39, 0), (64, 0), (7, 2), (39, 2), (64, 2)])
def test_every_image_is_evaluated_once(colours: Path, batch: int, workers: int) -> None:
    seen: list[torch.Tensor] = []
    modes: set[bool] = set()

    class Brightest(nn.Module):
        """Says the class right: the channel of the largest mean."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            modes.add(self.training)
            return x.mean((2, 3))

    images = Images(
        open_val(DataSource.folder(colours), 3),
        eval_transform((16, 16), 3, PAD),
        seed=0,
    )
    model = Brightest()
    # class order is blue, green, red: the first and last guess are exchanged, green ones are right
    result = evaluate(model, images, Inference(Normalise(PAD, 3, CPU), batch=batch, workers=workers))
    assert len(torch.cat(seen)) == result.n_images == 39
    assert modes == {False}
    assert result.correct1.tolist() == [False] * 13 + [True] * 13 + [False] * 13
    assert result.top1 == pytest.approx(100 / 3)
    assert result.top5 == 100
    assert model.training


def test_evaluating_logits_that_are_not_finite_is_an_error(colours: Path) -> None:
    images = Images(
        open_val(DataSource.folder(colours), 3),
        eval_transform((16, 16), 3, PAD),
        seed=0,
    )
    model: Any = backbones.build(deit())
    nn.init.constant_(model.head.bias, torch.nan)
    with pytest.raises(FloatingPointError, match=r"val/blue/0\.png are not finite"):
        evaluate(model, images, Inference(Normalise(PAD, 3, CPU), batch=8))

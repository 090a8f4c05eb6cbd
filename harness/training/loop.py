"""The training loop: what a run is at some step, and what leads from there to its end, after whatever ended it before.

An epoch is its updates, a checkpoint, the evaluation, a checkpoint. Between two updates the ranks ask each other
whether one of them was told to stop. All that the loop knows is in its checkpoint: the learner's state, the number of
updates done, and a line of metrics for each finished epoch.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import results
from backbones import BackboneSpec
from harness.cells import Metrics
from harness.cells.recipe import split_batch
from harness.cells.runtime import AUTOCAST
from harness.cells.tasks import BATCH
from harness.images.batches import Batch, Images, Key, batches, shares, train_order
from harness.images.crops import crops_of
from harness.images.sources import Splits, list_hash, open_splits
from harness.images.transforms import Normalise, eval_transform, train_transform
from harness.process.attempts import current
from harness.process.determinism import deterministic
from harness.process.ranks import Ranks, ranks, usable
from harness.process.stopping import StopRequest
from harness.training import checkpoints
from harness.training.evaluation import Evaluation, evaluate
from harness.training.learner import Learner
from harness.training.loading import located

if TYPE_CHECKING:
    from harness.cells import Train

CHECK_EVERY = 10  # steps between two looks at the losses; each look waits for the device
REPORT_EVERY = 5.0  # seconds
SKIPPED_IN_A_ROW = 20  # steps; more than fp16 needs to find its scale, from 2**16 down
STARVED = 0.10  # share of the time spent waiting for images above which a device is called starved


@dataclass
class Clock:
    """Time spent in training, evaluation left out; carried over from the checkpoint of a run that goes on."""

    images: int = 0
    seconds: float = 0.0
    waited: float = 0.0  # seconds of these in which no batch was there yet


def train(task: Train, spec: BackboneSpec, folder: Path, report: Callable[[str], None]) -> Metrics:
    """Train, evaluate after each epoch, and return the metrics of the last one: the task `Train`.

    top1, top5, top1_stderr: percent of the n_images val images, by the weights as trained; top1_ema and so on: by
    their moving average, None without. top1_best, epoch_best: the largest over the epochs, of the average if there
    is one; chosen on the val images, so flattered by it. val_list: hash of the list of val images. train_loss: mean
    over the last epoch. nonfinite_steps: steps left out because a gradient was not finite. loop_images_per_s:
    training alone, all epochs, all ranks; data_wait_share: the part of that time, 0 to 1, in which the loop waited
    for images. lr: the largest learning rate, scaled to the batch. ranks, accumulation, device_batch: how the
    global batch was split.

    Raises ValueError for data, weights, a device or a disk that cannot be used (an unreadable image is named),
    FloatingPointError for losses or logits that are not finite, and Stopped on request.
    """
    group = ranks()
    device = usable(task.device, group)
    accumulation = split_batch(task.recipe, group.world, task.device_batch)
    splits = open_splits(task.data, spec.num_classes)
    if group.first:
        folder.mkdir(parents=True, exist_ok=True)
    with deterministic(device), StopRequest() as stop:
        return Loop(task, spec, folder, splits, device, group, accumulation, stop, report).run()


class Loop:
    """A run of the task `task`, from its newest checkpoint if there is one."""

    def __init__(
        self,
        task: Train,
        spec: BackboneSpec,
        folder: Path,
        splits: Splits,
        device: torch.device,
        group: Ranks,
        accumulation: int,
        stop: StopRequest,
        report: Callable[[str], None],
    ) -> None:
        recipe = task.recipe
        self.task, self.spec, self.folder, self.splits = task, spec, folder, splits
        self.device, self.group, self.stop, self.report = device, group, stop, report
        transform = train_transform(
            spec.image_size,
            spec.in_channels,
            augmentation=recipe.augmentation,
            rand_augment=recipe.rand_augment,
            color_jitter=recipe.color_jitter,
            interpolation=recipe.interpolation,
            input=recipe.input,
        )
        self.train_images = Images(splits.train, transform, task.seed)
        self.val_images = Images(
            splits.val, eval_transform(spec.image_size, spec.in_channels, recipe.evaluation), task.seed
        )
        self.crops = crops_of(task.cache, splits.val, spec.image_size, spec.in_channels, recipe.evaluation, group)
        self.order = train_order(task, len(self.train_images))
        self.updates = self.order.batches_per_epoch
        self.learner = Learner(
            spec,
            recipe,
            device,
            task.precision,
            task.seed,
            self.updates,
            ranks=group,
            accumulation=accumulation,
            mode=task.mode,
            weights=None if task.weights is None else located(task.weights, folder.parent),
        )
        self.layout = {"ranks": group.world, "accumulation": accumulation, "device_batch": self.learner.micro_batch}
        self.step = 0
        self.history: list[Metrics] = []  # a line per finished epoch
        self.clock = Clock()
        self.saved_at, self.saved = time.monotonic(), (-1, -1)
        self._say_how()
        self._resume()
        self.began, self.first = time.monotonic(), self.step
        self._progress()

    def _say_how(self) -> None:
        recipe, layout = self.task.recipe, self.layout
        self.report(
            f"global batch {recipe.batch} = {layout['ranks']} x {layout['accumulation']} x {layout['device_batch']} "
            f"(processes, accumulated, images); learning rate {recipe.effective(recipe.lr):.3g}; "
            f"{recipe.total_epochs} epochs of {self.updates} updates"
        )
        if self.learner.loaded is not None:
            assert self.task.weights is not None
            self.report(f"started from {self.task.weights.name}: {self.learner.loaded}")

    def _resume(self) -> None:
        """Takes up the newest whole checkpoint, the same on every rank, if there is one."""
        newest = self.group.agreed(lambda: checkpoints.newest(self.folder, self.report))
        if newest is None:
            return
        state = checkpoints.read(newest)
        self.learner.load_state(state)
        progress = state["progress"]
        self.step, self.history = progress["step"], progress["history"]
        self.clock = Clock(**progress["clock"])
        self.report(f"resumed after {self.step} of {self.updates * self.task.recipe.total_epochs} updates")
        if progress["layout"] != self.layout:
            self.report(
                f"warning: it began as {_layout(progress['layout'])} and goes on as {_layout(self.layout)}: sums are "
                "taken in another order, so it does not repeat an uninterrupted run bit for bit"
            )

    def _batches(self) -> Generator[Batch]:
        """This rank's micro-batches from the present step to the end of training."""

        def keys() -> Iterator[list[Key]]:
            for batch in self.order.batches_from(self.step):
                yield from shares(batch, self.group.world, self.learner.accumulation)[self.group.rank]

        return batches(self.train_images, keys(), workers=self.task.workers, pin_memory=self.device.type == "cuda")

    def run(self) -> Metrics:
        """Epoch by epoch to the end; the metrics of the last one, see `train`, which says what is raised, too."""
        if self.group.first:
            self._write_config()
        stream = self._batches()
        try:
            while (epoch := len(self.history)) < self.task.recipe.total_epochs:
                self._train(epoch, stream)
                self._save()  # a stop during the evaluation then costs the evaluation only
                self._evaluate(epoch)
                self._save()
        finally:
            stream.close()  # ends the worker processes
        return self._metrics()

    def _train(self, epoch: int, stream: Iterator[Batch]) -> None:
        """The updates of an epoch that are still to do. Raises Stopped between two of them, on request."""
        end = (epoch + 1) * self.updates
        reported = time.monotonic()
        while self.step < end:
            began = time.perf_counter()
            micro_batches = [next(stream) for _ in range(self.learner.accumulation)]
            self.clock.waited += time.perf_counter() - began
            self.learner.update(micro_batches, self.step)
            self.step += 1
            if self.step % CHECK_EVERY == 0 or self.step == end:
                self._check(micro_batches, epoch)
            self.clock.images += self.task.recipe.batch
            self.clock.seconds += time.perf_counter() - began
            if self.step % CHECK_EVERY == 0 and time.monotonic() - reported > REPORT_EVERY:
                reported = time.monotonic()
                self._report_progress(epoch)
            if self.group.any(self.stop.asked):
                self._save()
                self.group.wait()  # a launcher ends all ranks once one has ended, a checkpoint half written or not
                raise self.stop.stopped(
                    f"after {self.step} of {self.updates * self.task.recipe.total_epochs} updates", self.group
                )
            if time.monotonic() - self.saved_at >= 60 * self.task.checkpoint_minutes:
                self._save()

    def _check(self, micro_batches: list[Batch], epoch: int) -> None:
        """Raises FloatingPointError, naming batch and layer, if step after step has no finite gradient."""
        in_a_row = int(self.learner.skipped_in_a_row.item())
        if in_a_row < SKIPPED_IN_A_ROW:
            return
        first = self.splits.train.filename(int(micro_batches[0].indices[0]))
        layer = self.learner.culprit(micro_batches, self.step - 1)
        where = [(name, layer) for name, layer in self.group.gathered((first, layer)) if layer is not None]
        name, layer = where[0] if where else (first, "nothing when asked again")
        raise FloatingPointError(
            f"no finite gradient in {in_a_row} steps in a row, up to update {self.step - epoch * self.updates} of "
            f"{self.updates} of epoch {epoch + 1}, whose batch begins with {name}; first not finite: {layer}; a lower "
            "learning rate, warm-up or clip_grad may help, or another precision"
        )

    def _progress(self) -> None:
        """Tells those who watch how far this is, and how long the rest takes at the speed so far."""
        steps, epochs = self.updates * self.task.recipe.total_epochs, self.task.recipe.total_epochs
        speed = self.clock.images / self.clock.seconds if self.clock.seconds else 0.0
        spent = time.monotonic() - self.began
        current().progress(
            epoch=min(len(self.history) + 1, epochs),
            epochs=epochs,
            step=self.step,
            steps=steps,
            images_per_s=speed,
            left_s=spent * (steps - self.step) / (self.step - self.first) if self.step > self.first else None,
        )

    def _report_progress(self, epoch: int) -> None:
        self._progress()
        loss = self.learner.loss_sum.item() / max(1, int(self.learner.finite_steps.item()))
        self.report(
            f"epoch {epoch + 1}, update {self.step - epoch * self.updates}/{self.updates}: loss {loss:.3f}, "
            f"{self.clock.images / self.clock.seconds:.0f} images/s"
        )

    def _evaluate(self, epoch: int) -> None:
        """Evaluates the model and its average, and begins the next epoch's counts."""
        recipe, learner = self.task.recipe, self.learner
        found: dict[str, Evaluation] = {}
        for name, model in learner.models().items():
            found[name] = evaluate(
                model,
                self.val_images,
                normalise=Normalise(recipe.evaluation, self.spec.in_channels, self.device),
                device=self.device,
                autocast=AUTOCAST[self.task.precision],
                batch=BATCH,
                workers=self.task.workers,
                group=self.group,
                crops=self.crops,
                stop=self.stop,
            )
        raw, average = found["model"], found.get("ema")
        metrics: Metrics = {
            "epoch": epoch + 1,
            "top1": raw.top1,
            "top1_stderr": raw.top1_stderr,
            "top5": raw.top5,
            "top1_ema": None if average is None else average.top1,
            "top1_ema_stderr": None if average is None else average.top1_stderr,
            "top5_ema": None if average is None else average.top5,
            "n_images": raw.n_images,
            "train_loss": learner.loss_sum.item() / max(1, int(learner.finite_steps.item())),
            "nonfinite_steps": int(learner.skipped.item()),
            "lr_last": learner.optimizer.param_groups[0]["lr"],
            "loop_images_per_s": self.clock.images / self.clock.seconds,
            "data_wait_share": self.clock.waited / self.clock.seconds,
        }
        self.history.append(metrics)
        learner.loss_sum.zero_()
        learner.finite_steps.zero_()
        if self.group.first and current().check():
            self._write(found)
        self._progress()
        shown = "" if average is None else f", of the moving average {average.top1:.2f} %"
        self.report(
            f"epoch {epoch + 1}/{recipe.total_epochs}: loss {metrics['train_loss']:.3f}, top-1 {raw.top1:.2f} %{shown}"
        )

    def _write(self, found: dict[str, Evaluation]) -> None:
        """What a finished epoch leaves in the run folder."""
        lines = "".join(json.dumps(line) + "\n" for line in self.history)
        results.write_text(self.folder / "metrics.jsonl", lines)
        for name, evaluation in found.items():
            suffix = "" if name == "model" else f"_{name}"
            results.write_correct(self.folder / f"correct{suffix}.npy", evaluation.correct1)
        if self._best()["epoch_best"] == len(self.history):
            weights = {name: model.state_dict() for name, model in self.learner.models().items()}
            checkpoints.write(self.folder / checkpoints.BEST, weights | self._about())
        if self.task.tensorboard:
            with summary_writer()(self.folder / "tensorboard", purge_step=len(self.history)) as writer:
                for name, value in self.history[-1].items():
                    if isinstance(value, int | float):
                        writer.add_scalar(name, value, len(self.history))

    def _best(self) -> Metrics:
        name = "top1_ema" if self.task.recipe.ema_decay is not None else "top1"
        values: list[float] = [line[name] for line in self.history]  # type: ignore[misc]
        return {"top1_best": max(values), "epoch_best": values.index(max(values)) + 1}

    def _about(self) -> dict[str, Any]:
        task = {"name": self.task.name, **asdict(self.task)}
        return {"backbone": self.spec.to_json(), "task": task, "epochs_done": len(self.history)}

    def _save(self) -> None:
        """The first rank writes for all: apart from their share of images, ranks hold the same."""
        self.saved_at = time.monotonic()
        if not self.group.first or (self.step, len(self.history)) == self.saved or not current().check():
            return
        self.saved = self.step, len(self.history)
        progress = {"step": self.step, "history": self.history, "clock": asdict(self.clock), "layout": self.layout}
        checkpoints.save(self.folder, self.step, self.learner.state() | self._about() | {"progress": progress})

    def _write_config(self) -> None:
        """What this run is, readable without this project."""
        loaded, recipe = self.learner.loaded, self.task.recipe
        config = {
            **self._about(),
            "lr_effective": recipe.effective(recipe.lr),
            "updates_per_epoch": self.updates,
            **self.layout,
            "weights_report": None if loaded is None else str(loaded),
        }
        results.write_text(self.folder / "config.json", json.dumps(config, indent=2) + "\n")

    def _metrics(self) -> Metrics:
        recipe, last = self.task.recipe, {name: value for name, value in self.history[-1].items() if name != "epoch"}
        share = last["data_wait_share"]
        assert isinstance(share, float)
        # A CPU that reads its images itself is not kept waiting for them.
        if share > STARVED and (self.device.type == "cuda" or self.task.workers):
            self.report(
                f"warning: the loop waited for images {share:.0%} of the time, above {STARVED:.0%}: its speed is that "
                "of the input; more workers, or the recipe's input='tensor', may help"
            )
        return {
            **last,
            **self._best(),
            "epochs": len(self.history),
            "lr": recipe.effective(recipe.lr),
            "val_list": list_hash(self.splits.val),
            **self.layout,
        }


def _layout(layout: dict[str, int]) -> str:
    return f"{layout['ranks']} x {layout['accumulation']} x {layout['device_batch']}"


def summary_writer() -> Any:
    """TensorBoard's writer. Raises ValueError where the package is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ValueError("TensorBoard logs need the package tensorboard: pip install tensorboard") from None
    return SummaryWriter

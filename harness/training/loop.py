"""The training loop: what a run is at some step, and what leads from there to its end, whatever interrupted it before.

An epoch is its updates, a checkpoint, the evaluation, a checkpoint. Between two updates the ranks ask each other
whether one of them was told to stop. All that the loop knows is in its checkpoint: the learner's state, the number of
updates done, and a line of metrics for each finished epoch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import results
from backbones import BackboneSpec
from harness.cells import Metrics, Train
from harness.cells.recipe import split_batch
from harness.images.batches import Batch
from harness.measures.quiet import disturbance, others_share
from harness.measures.sdpa import sdpa_kernels, shown
from harness.process.attempts import current_attempt
from harness.process.determinism import deterministic, ieee_float32
from harness.process.ranks import ranks, usable_device
from harness.process.stopping import StopRequest
from harness.process.usage import Usage, usage
from harness.training import checkpoints
from harness.training.evaluation import Evaluation, Inference, best_of, evaluate
from harness.training.inputs import Inputs, open_inputs
from harness.training.learner import Learner, Setup
from harness.training.loading import located
from harness.training.room import check_room
from harness.training.run_folder import RunFolder

CHECK_EVERY = 10  # steps between two looks at the losses; each look waits for the device
REPORT_EVERY = 5.0  # seconds
SKIPPED_IN_A_ROW = 20  # steps; more than fp16 needs to find its scale, from 2**16 down
DISTURBED = 0.10  # share of the time of training above which its speed is marked
STARVED = 0.10  # share of the time spent waiting for images above which a device is called starved


@dataclass
class Clock:
    """Time spent in training without evaluation; carried over from the checkpoint of a resumed run."""

    images: int = 0
    seconds: float = 0.0
    waited: float = 0.0  # the part of `seconds` in which no batch was ready
    disturbed: float = 0.0  # the part in which other processes took the cores of this one

    @property
    def images_per_s(self) -> float:
        return self.images / self.seconds if self.seconds else 0.0

    def note(self, spent: Usage) -> None:
        """Count time that was spent in training as disturbed if others took part of it."""
        if spent.wall and disturbance(spent, others_share(spent)) is not None:
            self.disturbed += spent.wall

    @property
    def disturbed_share(self) -> float:
        return min(1.0, self.disturbed / self.seconds) if self.seconds else 0.0


def train(task: Train, spec: BackboneSpec, folder: Path, report: Callable[[str], None]) -> Metrics:
    """Train, evaluate after each epoch, and return the metrics of the last epoch: the task `Train`.

    top1, top5, top1_stderr: percent of the n_images val images, by the weights as trained; top1_ema and so on: by their
    moving average, None without. top1_best, epoch_best: the largest over the epochs, of the average if there is one;
    chosen on the val images, and so biased by that choice. val_list: hash of the list of val images. train_loss: mean
    over the last epoch. nonfinite_steps: steps skipped because a gradient was not finite. loop_images_per_s: of
    training alone, over all epochs and ranks; data_wait_share: the part of that time, 0 to 1, in which the loop waited
    for images; loop_disturbed_share: the part in which other processes took cores from a run of one process, and
    loop_disturbed: a sentence if that was more than `DISTURBED`. loop_sdpa_kernel: what scaled_dot_product_attention
    ran in a step. lr: the largest learning rate, scaled to the batch. ranks, accumulation, device_batch: how the global
    batch was split.

    Raises ValueError for data, weights, a device or a disk that cannot be used (an unreadable image is named),
    FloatingPointError for losses or logits that are not finite, and Stopped on request.
    """
    group = ranks()
    device = usable_device(task.device, group)
    accumulation = split_batch(task.recipe, group.world, task.device_batch)
    setup = Setup(device, task.precision, task.mode, task.seed, group, accumulation)
    with deterministic(device), ieee_float32(), StopRequest() as stop:
        inputs = open_inputs(task, spec, group)
        if group.first:
            folder.mkdir(parents=True, exist_ok=True)
            check_room(folder, spec, task)
        weights = None if task.weights is None else located(task.weights, folder.parent)
        learner = Learner(spec, task.recipe, setup, inputs.order.batches_per_epoch, weights)
        return Loop(task, learner, inputs, RunFolder(folder, task, spec), stop, report).run()


class Loop:
    """A run of `task`: it trains `learner` on `inputs`, and leaves its files in `folder`."""

    def __init__(
        self,
        task: Train,
        learner: Learner,
        inputs: Inputs,
        folder: RunFolder,
        stop: StopRequest,
        report: Callable[[str], None],
    ) -> None:
        self.task, self.learner, self.inputs, self.folder = task, learner, inputs, folder
        self.stop, self.report = stop, report
        self.group = learner.setup.ranks
        self.updates = inputs.order.batches_per_epoch
        self.steps = self.updates * task.recipe.total_epochs
        self.step = 0
        self.history: list[Metrics] = []  # a line per finished epoch
        self.clock = Clock()
        self.kernels: set[str] = set()  # of scaled_dot_product_attention, as seen once by each process
        self.saved = (-1, -1)  # step and finished epochs of the newest checkpoint
        # Readings of time.monotonic(), set once the loop runs; and the step from which it does.
        self.saved_at = self.began_at = 0.0
        self.began_from = 0

    def run(self) -> Metrics:
        """Train from the newest checkpoint, or from the start, to the end; return the metrics of the last epoch.

        See `train` for the metrics and for what is raised.
        """
        self.saved_at = time.monotonic()
        self._report_setup()
        self._resume()
        self.began_at, self.began_from = time.monotonic(), self.step
        self._publish_progress()
        if self.group.first:
            self.folder.write_config(self.learner, self.updates, self.history)
            reader = self.inputs.val.reader
            results.write_image_list(self.folder.path.parent, self.inputs.val_list, reader.classes, reader.targets)
        setup = self.learner.setup
        stream = self.inputs.micro_batches(
            self.step, setup.ranks, setup.accumulation, self.task.workers, pin=setup.device.type == "cuda"
        )
        try:
            while (epoch := len(self.history)) < self.task.recipe.total_epochs:
                self._train(epoch, stream)
                self._save()  # a stop during the evaluation then costs the evaluation only
                self._evaluate(epoch)
                self._save()
        finally:
            stream.close()  # ends the worker processes
        return self._metrics()

    def _report_setup(self) -> None:
        recipe = self.task.recipe
        self.report(
            f"global batch {recipe.batch} = {_in_words(self.learner.layout)} "
            f"(processes, accumulated, images); learning rate {recipe.effective(recipe.lr):.3g}; "
            f"{recipe.total_epochs} epochs of {self.updates} updates"
        )
        if self.learner.loaded is not None:
            assert self.task.weights is not None
            self.report(f"started from {self.task.weights.name}: {self.learner.loaded}")

    def _resume(self) -> None:
        """Continue from the newest intact checkpoint, the same on every rank, if there is one."""
        newest = self.group.agreed(lambda: checkpoints.newest(self.folder.path, self.report))
        if newest is None:
            return
        state = checkpoints.read(newest)
        self.learner.load_state(state)
        progress = state["progress"]
        self.step, self.history = progress["step"], progress["history"]
        self.clock = Clock(**progress["clock"])
        self.kernels |= set(progress.get("kernels", ()))  # checkpoints had none at first
        self.report(f"resumed after {self.step} of {self.steps} updates")
        before, now = _in_words(progress["layout"]), _in_words(self.learner.layout)
        if before != now:
            self.report(
                f"warning: this run began as {before} and continues as {now}: sums are taken in another order, so it "
                "does not repeat an uninterrupted run bit for bit"
            )

    def _train(self, epoch: int, stream: Iterator[Batch]) -> None:
        """Make the remaining updates of an epoch. Raises Stopped between two of them, on request."""
        end = (epoch + 1) * self.updates
        reported_at, before = time.monotonic(), usage()
        while self.step < end:
            began = time.perf_counter()
            micro_batches = [next(stream) for _ in range(self.learner.setup.accumulation)]
            self.clock.waited += time.perf_counter() - began
            with self._kernels_seen():
                self.learner.update(micro_batches, self.step)
            self.step += 1
            if self.step % CHECK_EVERY == 0 or self.step == end:
                self._check_gradients(micro_batches, epoch)
                after = usage()
                self.clock.note(after - before)
                before = after
            self.clock.images += self.task.recipe.batch
            self.clock.seconds += time.perf_counter() - began
            if self.step % CHECK_EVERY == 0 and time.monotonic() - reported_at > REPORT_EVERY:
                reported_at = time.monotonic()
                self._publish_progress()
                self.report(
                    f"epoch {epoch + 1}, update {self.step - epoch * self.updates}/{self.updates}: "
                    f"loss {self.learner.counts.mean_loss():.3f}, {self.clock.images_per_s:.0f} images/s"
                )
            if self.group.any(self.stop.asked):
                self._save()
                self.group.wait()  # a launcher ends all ranks once one has ended, a checkpoint half written or not
                raise self.stop.stopped(f"after {self.step} of {self.steps} updates", self.group)
            if time.monotonic() - self.saved_at >= 60 * self.task.checkpoint_minutes:
                self._save()

    @contextmanager
    def _kernels_seen(self) -> Iterator[None]:
        """Keep the kernels of this step, if it is the first one of this process, or the second if compiled.

        The first compiled step compiles, which runs whatever the compiler likes. Looking takes a tenth of a step.
        """
        if self.step - self.began_from != (self.task.mode == "compiled"):
            yield
            return
        with sdpa_kernels() as kernels:
            yield
        self.kernels |= kernels

    def _check_gradients(self, micro_batches: list[Batch], epoch: int) -> None:
        """Raise FloatingPointError, naming batch and layer, if step after step had no finite gradient."""
        in_a_row = int(self.learner.counts.skipped_in_a_row.item())
        if in_a_row < SKIPPED_IN_A_ROW:
            return
        first = self.inputs.train.reader.shown(int(micro_batches[0].indices[0]))
        layer = self.learner.culprit(micro_batches, self.step - 1)
        where = [(name, layer) for name, layer in self.group.gathered((first, layer)) if layer is not None]
        name, layer = where[0] if where else (first, "nothing when computed again")
        raise FloatingPointError(
            f"no finite gradient in {in_a_row} steps in a row, up to update {self.step - epoch * self.updates} of "
            f"{self.updates} of epoch {epoch + 1}, whose batch begins with {name}; first not finite: {layer}; a lower "
            "learning rate, warm-up or clip_grad may help, or another precision"
        )

    def _publish_progress(self) -> None:
        """Tell those who watch the run its progress, and the time left at the speed so far."""
        epochs, done = self.task.recipe.total_epochs, self.step - self.began_from
        spent = time.monotonic() - self.began_at
        current_attempt().progress(
            epoch=min(len(self.history) + 1, epochs),
            epochs=epochs,
            step=self.step,
            steps=self.steps,
            images_per_s=self.clock.images_per_s,
            left_s=spent * (self.steps - self.step) / done if done else None,
        )

    def _evaluate(self, epoch: int) -> None:
        """Evaluate the model and its average, and begin the counts of the next epoch."""
        learner = self.learner
        inference = Inference(learner.normalise, self.task.precision, workers=self.task.workers)
        found: dict[str, Evaluation] = {
            name: evaluate(model, self.inputs.val, inference, group=self.group, crops=self.inputs.crops, stop=self.stop)
            for name, model in learner.models().items()
        }
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
            "train_loss": learner.counts.mean_loss(),
            "nonfinite_steps": int(learner.counts.skipped.item()),
            "lr_last": learner.optimizer.param_groups[0]["lr"],
            "loop_images_per_s": self.clock.images_per_s,
            "data_wait_share": self.clock.waited / self.clock.seconds,
            **self._disturbance(),
        }
        self.history.append(metrics)
        learner.counts.begin_epoch()
        if self.group.first and current_attempt().check():
            self.folder.write_epoch(learner, self.history, found)
        self._publish_progress()
        shown = "" if average is None else f", of the moving average {average.top1:.2f} %"
        self.report(
            f"epoch {epoch + 1}/{self.task.recipe.total_epochs}: loss {metrics['train_loss']:.3f}, "
            f"top-1 {raw.top1:.2f} %{shown}"
        )

    def _disturbance(self) -> Metrics:
        """Return how disturbed the speed of training was; of several processes, each is what disturbs the others."""
        if self.group.world > 1:
            return {"loop_disturbed_share": None, "loop_disturbed": None}
        share = self.clock.disturbed_share
        text = f"other processes took its cores in {100 * share:.0f} % of the time"
        return {"loop_disturbed_share": share, "loop_disturbed": text if share > DISTURBED else None}

    def _save(self) -> None:
        """Write a checkpoint. Rank 0 does so for all: apart from their share of images, all ranks are the same."""
        self.saved_at = time.monotonic()
        here = (self.step, len(self.history))
        if not self.group.first or here == self.saved or not current_attempt().check():
            return
        self.saved = here
        self.folder.save(
            self.learner,
            {
                "step": self.step,
                "history": self.history,
                "clock": asdict(self.clock),
                "kernels": sorted(self.kernels),
                "layout": self.learner.layout,
            },
        )

    def _metrics(self) -> Metrics:
        recipe, last = self.task.recipe, {name: value for name, value in self.history[-1].items() if name != "epoch"}
        share = last["data_wait_share"]
        assert isinstance(share, float)
        # A CPU that reads its images itself does not wait for them.
        if share > STARVED and (self.learner.setup.device.type == "cuda" or self.task.workers):
            self.report(
                f"warning: the loop waited for images {share:.0%} of the time, above {STARVED:.0%}: its speed is that "
                "of the input; more workers, or the recipe's input='tensor', may help"
            )
        return {
            **last,
            **best_of(self.history),
            "epochs": len(self.history),
            "lr": recipe.effective(recipe.lr),
            "val_list": self.inputs.val_list,
            "loop_sdpa_kernel": shown(self.kernels),
            **self.learner.layout,
        }


def _in_words(layout: dict[str, int]) -> str:
    return f"{layout['ranks']} x {layout['accumulation']} x {layout['device_batch']}"

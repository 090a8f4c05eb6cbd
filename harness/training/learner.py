"""`Learner`: a model and all that changes with it; one call of `update` is one step of the optimizer.

What is carried from one step to the next is in `state()`: model, optimizer, gradient scaler, moving average, and
counts of losses and skipped steps. The learning rate, the images and everything random in step k are functions of the
seed and k. So a run resumed from a state continues, on a CPU, as if it had never stopped, bit for bit.

One step sees the global batch of the recipe, whatever the number of devices: each rank gets `accumulation`
micro-batches of it. Shapes: B global batch, m = B / (ranks * accumulation) images per micro-batch, C channels.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from backbones import BackboneSpec, build
from harness.cells import Recipe, Weights
from harness.cells.runtime import AUTOCAST, Mode, Precision
from harness.images.batches import Batch
from harness.images.transforms import Normalise, RandomErasing
from harness.process.determinism import derived_seed, seed_generators
from harness.process.ranks import Ranks
from harness.training.loading import load_weights

if TYPE_CHECKING:
    from timm.data.mixup import Mixup

# Keep the seeds of different things in one step or image apart.
ERASING, MIXING, DROPPING = 1, 2, 3


@dataclass(frozen=True)
class Setup:
    """How the steps of a recipe are computed: where, in which number format, from which seed, split in which way."""

    device: torch.device
    precision: Precision = "fp32"
    mode: Mode = "eager"
    seed: int = 0
    ranks: Ranks = Ranks()  # noqa: RUF009, a frozen value
    accumulation: int = 1  # micro-batches per step and rank

    def autocast(self) -> torch.autocast:
        """Return the context of a forward pass."""
        dtype = AUTOCAST[self.precision]
        return torch.autocast(self.device.type, dtype, enabled=dtype is not None)


class Counts:
    """Losses and skipped steps, as tensors on the device, so that counting never waits for it."""

    def __init__(self, device: torch.device) -> None:
        self.loss_sum = torch.zeros((), device=device)  # of the finite steps of this epoch
        self.finite_steps = torch.zeros((), dtype=torch.int64, device=device)  # of this epoch
        self.skipped = torch.zeros((), dtype=torch.int64, device=device)  # of the run
        self.skipped_in_a_row = torch.zeros((), dtype=torch.int64, device=device)

    def add(self, loss: Tensor, finite: Tensor) -> None:
        """Count one step: its loss, and whether its gradients were finite."""
        self.loss_sum += torch.where(finite, loss, 0.0)
        self.finite_steps += finite
        self.skipped += ~finite
        self.skipped_in_a_row.add_(1).mul_(~finite)

    def mean_loss(self) -> float:
        """Return the mean loss of this epoch's finite steps; waits for the device."""
        return self.loss_sum.item() / max(1, int(self.finite_steps.item()))

    def begin_epoch(self) -> None:
        self.loss_sum.zero_()
        self.finite_steps.zero_()


class Learner:
    """The model of `spec`, initialised from the seed of `setup` or from `weights`, and its training by `recipe`."""

    def __init__(
        self,
        spec: BackboneSpec,
        recipe: Recipe,
        setup: Setup,
        updates_per_epoch: int,
        weights: Weights | None = None,
    ) -> None:
        self.recipe, self.setup = recipe, setup
        device = setup.device
        seed_generators(setup.seed, device)
        self.model = build(spec, drop_path=recipe.drop_path).to(device)
        self.loaded = load_weights(weights, self.model, spec) if weights is not None else None
        # FLatten-PVT has a norm that it never calls, and a PVT projects by themselves what an attention may not read.
        # They get no gradient, and so no update, in the official code as well; declared here, so that
        # DistributedDataParallel need not search for them in every step.
        for name in getattr(self.model, "never_used", ()):
            self.model.get_parameter(name).requires_grad_(False)
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.ema = create_ema(self.model, recipe)
        self.optimizer = create_optimizer(self.model, recipe)
        self.scheduler = create_scheduler(self.optimizer, recipe, updates_per_epoch)
        self.scaler = torch.amp.GradScaler(device.type, enabled=setup.precision == "fp16")
        self.normalise = Normalise(recipe.evaluation, spec.in_channels, device)
        self.erase = RandomErasing(recipe.random_erasing, device) if recipe.random_erasing else None
        self.mixup = create_mixup(recipe, spec.num_classes)
        self.counts = Counts(device)
        self.network = self._network((self.layout["device_batch"], spec.in_channels, *spec.image_size))

    def _network(self, shape: tuple[int, ...]) -> nn.Module:
        """Return the model as it is called in training: gradients averaged over the ranks, compiled in that mode."""
        network: nn.Module = self.model
        if self.setup.ranks.world > 1:
            # The models have no running statistics: there are no buffers to send around.
            network = DistributedDataParallel(self.model, broadcast_buffers=False, gradient_as_bucket_view=True)
        if self.setup.mode == "compiled":
            network = torch.compile(network)  # type: ignore[assignment]
        if self.setup.ranks.world > 1:
            # After its first step, DistributedDataParallel packs gradients in another order, and sums over three or
            # more ranks depend on it. A pass whose gradients are thrown away makes the first step of a resumed run
            # like any other.
            self.model.train()
            with self.setup.autocast():
                network(torch.zeros(shape, device=self.setup.device)).sum().backward()
            self.optimizer.zero_grad()
        return network

    def update(self, batches: list[Batch], step: int) -> None:
        """Make one step on this rank's micro-batches of a global batch; `step` counts from the start of training.

        A step whose gradients are not finite changes no weight and is counted as skipped.
        """
        ranks, accumulation = self.setup.ranks, self.setup.accumulation
        assert len(batches) == accumulation
        self.scheduler.step_update(step)
        self.network.train()
        mean_loss = torch.zeros((), device=self.setup.device)
        for number, batch in enumerate(batches):
            # Ranks exchange gradients once per step, with the last micro-batch.
            local = ranks.world > 1 and number < accumulation - 1
            with self.network.no_sync() if local else nullcontext():  # type: ignore[operator]
                loss = self.loss(batch, step, ranks.rank * accumulation + number) / accumulation
                self.scaler.scale(loss).backward()
            mean_loss += loss.detach()
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        finite = norm.isfinite()  # on the device: nothing here waits to know it
        if self.recipe.clip_grad is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, self.recipe.clip_grad, norm)
        if not self.scaler.is_enabled():
            # The fused optimizer skips its step where this is 1; with a scaler, the scaler tells it so.
            self.optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        if self.ema is not None:
            self.ema.update(self.model)
        self.counts.add(ranks.sum(mean_loss) / ranks.world, finite)

    def loss(self, batch: Batch, step: int, micro_batch: int) -> Tensor:
        """Return the mean loss of one micro-batch; `micro_batch` is its number in the step, counted over all ranks."""
        device, seed = self.setup.device, self.setup.seed
        images, targets = self.augmented(batch, batch.targets.to(device, non_blocking=True), step, micro_batch)
        smoothing = self.recipe.label_smoothing if self.mixup is None else 0.0  # mixup smoothes them itself
        seed_generators(derived_seed(seed, step, DROPPING, micro_batch), device)
        with self.setup.autocast():
            logits = self.network(images)
        return F.cross_entropy(logits.float(), targets, label_smoothing=smoothing)

    def augmented(self, batch: Batch, targets: Tensor, step: int, micro_batch: int) -> tuple[Tensor, Tensor]:
        """Return what the model gets and is to answer: float32 (m, C, H, W), and targets (m,), mixed (m, classes).

        targets: (m,), on the device.
        """
        images = self.normalise(batch.images)
        if self.erase is not None:
            images = self.erase(images, [derived_seed(image_seed, ERASING) for image_seed in batch.seeds.tolist()])
        return (images, targets) if self.mixup is None else self._mix(images, targets, step, micro_batch)

    def _mix(self, images: Tensor, targets: Tensor, step: int, micro_batch: int) -> tuple[Tensor, Tensor]:
        """Mix a micro-batch, which consists of pairs (first with last, ...) of the global batch, by mixup or CutMix.

        `mixup_images` images of the global batch, half as many pairs, share one weight, which is a function of the
        step. So the mixture is the same however the batch is split into micro-batches.
        """
        assert self.mixup is not None
        pairs, shared = len(images) // 2, (self.recipe.mixup_images or self.recipe.batch) // 2
        mixed = torch.empty(len(images), self.mixup.num_classes, device=images.device)
        first = micro_batch * pairs
        for group in range(first // shared, -(-(first + pairs) // shared)):
            begin, end = max(group * shared, first) - first, min((group + 1) * shared, first + pairs) - first
            seed_generators(derived_seed(self.setup.seed, step, MIXING, group))
            if end - begin == pairs:
                return self.mixup(images, targets)
            # By slices: an index made of a list is copied to a GPU, which waits for it.
            parts = slice(begin, end), slice(len(images) - end, len(images) - begin)
            some = self.mixup(*(torch.cat([tensor[part] for part in parts]) for tensor in (images, targets)))
            for tensor, values in zip((images, mixed), some, strict=True):
                for part, half in zip(parts, values.chunk(2), strict=True):
                    tensor[part] = half
        return images, mixed

    @property
    def layout(self) -> dict[str, int]:
        """How the global batch is split: ranks x accumulation x images on a device at once."""
        ranks, accumulation = self.setup.ranks.world, self.setup.accumulation
        return {
            "ranks": ranks,
            "accumulation": accumulation,
            "device_batch": self.recipe.batch // ranks // accumulation,
        }

    def models(self) -> dict[str, nn.Module]:
        """Return what is evaluated and saved: the model as trained, and its moving average if the recipe has one."""
        return {"model": self.model} | ({"ema": self.ema.module} if self.ema is not None else {})

    def state(self) -> dict[str, Any]:
        """Return all that a step changes, as tensors and plain values."""
        return {
            **{name: model.state_dict() for name, model in self.models().items()},
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "counts": dict(vars(self.counts)),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a `state()`, in the number format and on the device of this learner."""
        for name, model in self.models().items():
            model.load_state_dict(state[name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        for name, count in vars(self.counts).items():
            count.copy_(state["counts"][name])

    def culprit(self, batches: list[Batch], step: int) -> str | None:
        """Return what is not finite on this rank's part of a batch: the first such layer's output, else a gradient."""
        found: list[str] = []
        network, self.network = self.network, self.model
        try:
            with _watched(self.model, found):
                for number, batch in enumerate(batches):
                    loss = self.loss(batch, step, self.setup.ranks.rank * self.setup.accumulation + number)
                    self.scaler.scale(loss).backward()
            for name, parameter in self.model.named_parameters():
                if parameter.grad is not None and not parameter.grad.isfinite().all():
                    found.append(f"the gradient of {name}")
        finally:
            self.network = network
            self.optimizer.zero_grad()
        return found[0] if found else None


@contextmanager
def _watched(model: nn.Module, found: list[str]) -> Iterator[None]:
    """Append to `found` the first layer whose output is not finite while the block runs."""

    def look(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if not found and isinstance(output, Tensor) and not output.isfinite().all():
                found.append(f"layer {name} ({type(module).__name__})")

        return hook

    hooks = [m.register_forward_hook(look(name)) for name, m in model.named_modules() if name]
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()


def create_ema(model: nn.Module, recipe: Recipe) -> Any:
    """Return timm's moving average of the model's weights, or None if the recipe has none."""
    from timm.utils import ModelEmaV3

    return None if recipe.ema_decay is None else ModelEmaV3(model, recipe.ema_decay)


def create_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return AdamW in the official two groups: biases, 1-D parameters and `no_weight_decay()` do not decay."""
    from timm.optim import create_optimizer_v2

    return create_optimizer_v2(
        model,
        "adamw",
        lr=recipe.effective(recipe.lr),
        weight_decay=recipe.weight_decay,
        betas=recipe.betas,
        eps=recipe.eps,
        fused=True,
    )


def create_scheduler(optimizer: torch.optim.Optimizer, recipe: Recipe, updates_per_epoch: int) -> Any:
    """Return timm's cosine schedule with warm-up and cooldown, per update."""
    from timm.scheduler import create_scheduler_v2

    scheduler, _ = create_scheduler_v2(
        optimizer,
        "cosine",
        num_epochs=recipe.epochs,
        cooldown_epochs=recipe.cooldown_epochs,
        warmup_epochs=recipe.warmup_epochs,
        warmup_lr=recipe.effective(recipe.warmup_lr),
        min_lr=recipe.effective(recipe.min_lr),
        step_on_epochs=False,
        updates_per_epoch=updates_per_epoch,
    )
    return scheduler


def create_mixup(recipe: Recipe, num_classes: int) -> "Mixup | None":
    """Return timm's mixup and CutMix, or None if the recipe mixes nothing."""
    from timm.data.mixup import Mixup

    if not recipe.mixes:
        return None
    return Mixup(
        mixup_alpha=recipe.mixup,
        cutmix_alpha=recipe.cutmix,
        prob=recipe.mixup_prob,
        label_smoothing=recipe.label_smoothing,
        num_classes=num_classes,
    )

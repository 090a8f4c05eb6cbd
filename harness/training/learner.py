"""`Learner`: a model and all that changes with it; one call of `update` is one step of the optimizer.

What is carried from one step to the next is in `state()`: model, optimizer, gradient scaler, moving average, and
counts of losses and skipped steps. The learning rate, the images and everything random in step k are functions of the
seed and k. So a run that is resumed from a state goes on, on a CPU, as if it had never stopped, bit for bit.

One step sees the global batch of the recipe, whatever the number of devices: each rank gets `accumulation`
micro-batches of it. Shapes: B global batch, m = B / (ranks * accumulation) images of a micro-batch, C channels.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from backbones import BackboneSpec, build
from harness.cells import Recipe, Weights
from harness.cells.runtime import AUTOCAST, Mode, Precision
from harness.images.batches import Batch
from harness.images.transforms import Normalise, RandomErasing
from harness.process.determinism import seed_generators, seed_of
from harness.process.ranks import Ranks
from harness.training.loading import load

# Tell the seeds of unlike things in one step or image apart.
ERASING, MIXING, DROPPING = 1, 2, 3


class Learner:
    """The model of `spec`, from `seed` or from `weights`; a step is `accumulation` micro-batches on each rank."""

    def __init__(
        self,
        spec: BackboneSpec,
        recipe: Recipe,
        device: torch.device,
        precision: Precision,
        seed: int,
        updates_per_epoch: int,
        *,
        ranks: Ranks,
        accumulation: int = 1,
        mode: Mode = "eager",
        weights: Weights | None = None,
    ) -> None:
        from timm.data.mixup import Mixup
        from timm.scheduler import create_scheduler_v2
        from timm.utils import ModelEmaV3

        seed_generators(seed, device)
        self.model = build(spec, drop_path=recipe.drop_path).to(device)
        self.loaded = load(weights, self.model, spec) if weights is not None else None
        # FLatten-PVT has a norm that it never calls, and a PVT projects by themselves what an attention may not read.
        # They get no gradient, and so no update, in the official code as well; said here, DistributedDataParallel need
        # not search for them in every step.
        for name in getattr(self.model, "never_used", ()):
            self.model.get_parameter(name).requires_grad_(False)
        self.ema = ModelEmaV3(self.model, recipe.ema_decay) if recipe.ema_decay is not None else None
        self.optimizer = create_optimizer(self.model, recipe)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.scheduler, _ = create_scheduler_v2(
            self.optimizer,
            "cosine",
            num_epochs=recipe.epochs,
            cooldown_epochs=recipe.cooldown_epochs,
            warmup_epochs=recipe.warmup_epochs,
            warmup_lr=recipe.effective(recipe.warmup_lr),
            min_lr=recipe.effective(recipe.min_lr),
            step_on_epochs=False,
            updates_per_epoch=updates_per_epoch,
        )
        self.normalise = Normalise(recipe.evaluation, spec.in_channels, device)
        self.erase = RandomErasing(recipe.random_erasing, device) if recipe.random_erasing else None
        self.mixup = (
            Mixup(
                mixup_alpha=recipe.mixup,
                cutmix_alpha=recipe.cutmix,
                prob=recipe.mixup_prob,
                label_smoothing=recipe.label_smoothing,
                num_classes=spec.num_classes,
            )
            if recipe.mixes
            else None
        )
        self.recipe, self.device, self.seed = recipe, device, seed
        self.ranks, self.accumulation = ranks, accumulation
        self.micro_batch = recipe.batch // (ranks.world * accumulation)
        self.autocast = AUTOCAST[precision]
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        # On the device, so that counting never waits for it.
        self.loss_sum = torch.zeros((), device=device)
        self.finite_steps, self.skipped, self.skipped_in_a_row = (
            torch.zeros((), dtype=torch.int64, device=device) for _ in range(3)
        )
        self.network = self._network(mode, (self.micro_batch, spec.in_channels, *spec.image_size))

    def _network(self, mode: Mode, shape: tuple[int, ...]) -> nn.Module:
        """The model as it is called in training: gradients averaged over the ranks, compiled if asked for."""
        network: nn.Module = self.model
        if self.ranks.world > 1:
            # The models hold no running statistics: there are no buffers to send around.
            network = DistributedDataParallel(self.model, broadcast_buffers=False, gradient_as_bucket_view=True)
        if mode == "compiled":
            network = torch.compile(network)  # type: ignore[assignment]
        if self.ranks.world > 1:
            # After its first step, DistributedDataParallel packs gradients in another order, and sums over three or
            # more ranks depend on it. A pass whose gradients are thrown away makes the first step of a resumed run
            # like any.
            self.model.train()
            with self._autocast():
                network(torch.zeros(shape, device=self.device)).sum().backward()
            self.optimizer.zero_grad()
        return network

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None)

    def models(self) -> dict[str, nn.Module]:
        """What is evaluated and saved: the model as trained, and its moving average if the recipe has one."""
        return {"model": self.model} | ({"ema": self.ema.module} if self.ema is not None else {})

    def state(self) -> dict[str, Any]:
        """All that a step changes, as tensors and plain values."""
        return {
            **{name: model.state_dict() for name, model in self.models().items()},
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "counts": {name: getattr(self, name) for name in _COUNTS},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes up a `state()`, in the number format and on the device of this learner."""
        for name, model in self.models().items():
            model.load_state_dict(state[name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        for name in _COUNTS:
            getattr(self, name).copy_(state["counts"][name])

    def update(self, batches: list[Batch], step: int) -> None:
        """One step on this rank's micro-batches of a global batch; `step` counts from the start of training.

        A step whose gradients are not finite changes no weight and is counted in `skipped`; the loss of the others is
        added to `loss_sum`.
        """
        assert len(batches) == self.accumulation
        self.scheduler.step_update(step)
        self.network.train()
        mean_loss = torch.zeros((), device=self.device)
        for number, batch in enumerate(batches):
            with self._gradients_stay_here(number < self.accumulation - 1):
                loss = self.loss(batch, step, self.ranks.rank * self.accumulation + number) / self.accumulation
                self.scaler.scale(loss).backward()
            mean_loss += loss.detach()
        self._step()
        finite = ~self._not_finite
        self.loss_sum += torch.where(finite, self.ranks.sum(mean_loss) / self.ranks.world, 0.0)
        self.finite_steps += finite
        if self.ema is not None:
            self.ema.update(self.model)

    def loss(self, batch: Batch, step: int, micro_batch: int) -> Tensor:
        """The mean loss of one micro-batch; `micro_batch` is its number among all of the step, over all ranks."""
        images, targets = self.normalise(batch.images), batch.targets.to(self.device, non_blocking=True)
        if self.erase is not None:
            images = self.erase(images, [seed_of(seed, ERASING) for seed in batch.seeds.tolist()])
        if self.mixup is not None:
            images, targets = self._mix(images, targets, step, micro_batch)  # targets (m,) -> (m, num_classes)
        smoothing = self.recipe.label_smoothing if self.mixup is None else 0.0  # mixup smoothes them itself
        seed_generators(seed_of(self.seed, step, DROPPING, micro_batch), self.device)
        with self._autocast():
            logits = self.network(images)
        return F.cross_entropy(logits.float(), targets, label_smoothing=smoothing)

    def _mix(self, images: Tensor, targets: Tensor, step: int, micro_batch: int) -> tuple[Tensor, Tensor]:
        """Mixup or CutMix of a micro-batch, which holds pairs (first with last, ...) of the global batch.

        `mixup_images` images of the global batch, half as many pairs, share one weight, which is a function of the
        step. So the mixture is the same however the batch is cut into micro-batches.
        """
        assert self.mixup is not None
        pairs, shared = len(images) // 2, (self.recipe.mixup_images or self.recipe.batch) // 2
        mixed = torch.empty(len(images), self.mixup.num_classes, device=images.device)
        first = micro_batch * pairs
        for group in range(first // shared, -(-(first + pairs) // shared)):
            begin, end = max(group * shared, first) - first, min((group + 1) * shared, first + pairs) - first
            seed_generators(seed_of(self.seed, step, MIXING, group))
            if end - begin == pairs:
                return self.mixup(images, targets)
            rows = [*range(begin, end), *range(len(images) - end, len(images) - begin)]
            images[rows], mixed[rows] = self.mixup(images[rows], targets[rows])
        return images, mixed

    def _gradients_stay_here(self, stay: bool) -> AbstractContextManager:
        """Ranks exchange gradients once a step, with the last micro-batch."""
        return self.network.no_sync() if stay and self.ranks.world > 1 else nullcontext()  # type: ignore[operator]

    def _step(self) -> None:
        """Clips, and steps unless a gradient is not finite, without waiting for the device to know."""
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        self._not_finite = ~norm.isfinite()
        if self.recipe.clip_grad is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, self.recipe.clip_grad, norm)
        if not self.scaler.is_enabled():
            # The fused optimizer skips its step where this is 1; with a scaler, the scaler tells it so.
            self.optimizer.found_inf = self._not_finite.float()  # type: ignore[attr-defined]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.skipped += self._not_finite
        self.skipped_in_a_row.add_(1).mul_(self._not_finite)

    def culprit(self, batches: list[Batch], step: int) -> str | None:
        """What is not finite on this rank's part of a batch: the first layer whose output is not, else a gradient."""
        found: list[str] = []

        def look(name: str) -> Any:
            def hook(module: nn.Module, inputs: Any, output: Any) -> None:
                if not found and isinstance(output, Tensor) and not output.isfinite().all():
                    found.append(f"layer {name} ({type(module).__name__})")

            return hook

        hooks = [m.register_forward_hook(look(name)) for name, m in self.model.named_modules() if name]
        network, self.network = self.network, self.model
        try:
            for number, batch in enumerate(batches):
                loss = self.loss(batch, step, self.ranks.rank * self.accumulation + number)
                self.scaler.scale(loss).backward()
            for name, parameter in self.model.named_parameters():
                if parameter.grad is not None and not parameter.grad.isfinite().all():
                    found.append(f"the gradient of {name}")
        finally:
            self.network = network
            self.optimizer.zero_grad()
            for handle in hooks:
                handle.remove()
        return found[0] if found else None


_COUNTS = ("loss_sum", "finite_steps", "skipped", "skipped_in_a_row")


def create_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW in the official optimizers' two groups: biases, 1-D parameters and `no_weight_decay()` do not decay."""
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

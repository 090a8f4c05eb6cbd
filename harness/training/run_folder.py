"""The folder of a training run: its configuration, metrics, answers, checkpoints and best weights.

config.json               what the run is, readable without this project
metrics.jsonl             one line per finished epoch
correct.npy               which val images were right after the last epoch; correct_ema.npy by the moving average
checkpoint-<updates>.pt   all that the run is after so many updates, see checkpoints.py
best.pt                   the weights of the epoch with the largest top-1
tensorboard/              the metrics for TensorBoard, if the task asks for them
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import results
from backbones import BackboneSpec
from harness.cells import Metrics, Train
from harness.training import checkpoints
from harness.training.evaluation import Evaluation, best_of
from harness.training.learner import Learner


class RunFolder:
    """Writes the files of the run of `task` on `spec`; `history` is a line of metrics per finished epoch."""

    def __init__(self, path: Path, task: Train, spec: BackboneSpec) -> None:
        self.path, self.task, self.spec = path, task, spec

    def write_config(self, learner: Learner, updates_per_epoch: int, history: list[Metrics]) -> None:
        recipe = self.task.recipe
        config = {
            **self._about(history),
            "lr_effective": recipe.effective(recipe.lr),
            "updates_per_epoch": updates_per_epoch,
            **learner.layout,
            "weights_report": None if learner.loaded is None else str(learner.loaded),
        }
        results.write_text(self.path / "config.json", json.dumps(config, indent=2) + "\n")

    def write_epoch(self, learner: Learner, history: list[Metrics], found: dict[str, Evaluation]) -> None:
        """Write what a finished epoch leaves; `found` is the evaluation of each of the learner's models."""
        lines = "".join(json.dumps(line) + "\n" for line in history)
        results.write_text(self.path / "metrics.jsonl", lines)
        for name, evaluation in found.items():
            suffix = "" if name == "model" else f"_{name}"
            results.write_correct(self.path / f"correct{suffix}.npy", evaluation.correct1)
        if best_of(history)["epoch_best"] == len(history):
            weights = {name: model.state_dict() for name, model in learner.models().items()}
            checkpoints.write(self.path / checkpoints.BEST, weights | self._about(history))
        if self.task.tensorboard:
            with summary_writer()(self.path / "tensorboard", purge_step=len(history)) as writer:
                for name, value in history[-1].items():
                    if isinstance(value, int | float):
                        writer.add_scalar(name, value, len(history))

    def save(self, learner: Learner, progress: dict[str, Any]) -> None:
        """Write a checkpoint with `progress`, which includes the updates done as "step", and the "history"."""
        about = self._about(progress["history"])
        checkpoints.save(self.path, progress["step"], learner.state() | about | {"progress": progress})

    def _about(self, history: list[Metrics]) -> dict[str, Any]:
        task = {"name": self.task.name, **asdict(self.task)}
        return {"backbone": self.spec.to_json(), "task": task, "epochs_done": len(history)}


def summary_writer() -> Any:
    """Return TensorBoard's writer. Raises ValueError where the package is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ValueError("TensorBoard logs need the package tensorboard: pip install tensorboard") from None
    return SummaryWriter

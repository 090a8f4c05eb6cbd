"""What every column of a table means: its unit, which end of it is the better one, where it comes from.

docs/schema.md is made from this: `python -m results.tables.schema > docs/schema.md`.
"""

import re
from typing import Literal, NamedTuple

from results.tables.columns import Column

Better = Literal["", "higher", "lower"]


class Meaning(NamedTuple):
    """`unit` is empty for texts and numbers without one; `better` for what is no merit; `text` is a phrase."""

    text: str
    unit: str = ""
    better: Better = ""


IDENTITY = {
    "backbone": Meaning("the preset of the backbone, or the label of a sweep's own"),
    "attention": Meaning("the attention with all its options"),
    "status": Meaning("the worst of the row's records: done, missing, oom (out of memory), failed"),
    "error": Meaning("what went wrong, from the last line of each traceback"),
    "warning": Meaning("why a number of the row is less than it seems"),
    "certificate": Meaning("laws that hold for the attention's code, of those tested"),
    "folder": Meaning("the folders of the row's records, where they are from several"),
}

# By the name of the metric, or a pattern of it; the first that fits.
METRICS = {
    "params": Meaning("parameters", "1"),
    "params_m": Meaning("parameters", "1e6", "lower"),
    "gmacs": Meaning("multiply-adds of products and convolutions for an image", "1e9", "lower"),
    "gmacs_fvcore": Meaning("gmacs, and what fvcore counts for norms and interpolation; papers' FLOPs", "1e9", "lower"),
    "gmacs_attention": Meaning("multiply-adds of the products inside attentions", "1e9", "lower"),
    "gmacs_projections": Meaning("multiply-adds of the projections around attentions", "1e9", "lower"),
    "gmacs_convolutions": Meaning("multiply-adds of convolutions", "1e9", "lower"),
    "gmacs_mlp": Meaning("multiply-adds of MLPs and the head", "1e9", "lower"),
    "gmacs_norms": Meaning("what fvcore counts for norms; not part of gmacs", "1e9", "lower"),
    "images_per_s": Meaning("batch over the median latency of inference", "images/s", "higher"),
    "train_images_per_s": Meaning("batch over the median time of a training step", "images/s", "higher"),
    "loop_images_per_s": Meaning("images over the time of the training loop, loading included", "images/s", "higher"),
    r"latency_ms_p(25|50|75)": Meaning("time of a batch in inference, quantile in percent", "ms", "lower"),
    r"train_step_ms_p(25|50|75)": Meaning("time of forward, backward and AdamW, quantile in percent", "ms", "lower"),
    r"(latency|train_step)_samples": Meaning("calls that the times are of", "1"),
    r"(infer|train)_peak_allocated_mib": Meaning("peak memory of tensors on the GPU", "MiB", "lower"),
    r"(infer|train)_peak_reserved_mib": Meaning("peak memory that torch took on the GPU", "MiB", "lower"),
    r"(infer|train)_peak_rss_mib": Meaning("peak resident memory of the process, on a CPU", "MiB", "lower"),
    r"(infer|train|loop)_disturbed": Meaning("what disturbed the measurement; empty if nothing did"),
    r"(infer|train)_dropped_share": Meaning("share of the measured time that was dropped as disturbed", "1"),
    r"(infer|train)_waited_share": Meaning("share of time in which threads waited for a core", "1"),
    r"(infer|train)_others_share": Meaning("share of the cores used by other processes", "1"),
    r"(infer|train)_stolen_share": Meaning("share of the cores taken by the hypervisor", "1"),
    r"(infer|train)_cores_used": Meaning("CPU seconds of the process per second", "1"),
    "loop_disturbed_share": Meaning("share of the training loop in which others took its cores", "1"),
    r"(train_|loop_)?sdpa_kernel": Meaning("kernels that ran scaled_dot_product_attention; math is not fused"),
    r"sm_clock_mhz_(before|after)": Meaning("clock of the GPU before and after the measurement", "MHz"),
    r"\w+_seconds": Meaning("time that the cell took, all in all", "s"),
    r"top1(_ema)?": Meaning("images whose class is the first guess", "%", "higher"),
    r"top5(_ema)?": Meaning("images whose class is among the first five guesses", "%", "higher"),
    r"top1(_ema)?_stderr": Meaning("binomial standard error of top1, from the choice of images alone", "points"),
    "n_images": Meaning("images that the accuracy is of", "1"),
    "val_list": Meaning("hash of the list of these images and their classes"),
    "top1_best": Meaning("top1 of the best epoch", "%", "higher"),
    "epoch_best": Meaning("the epoch of top1_best, from 1", "1"),
    "epochs": Meaning("epochs trained", "1"),
    "train_loss": Meaning("mean loss of the last epoch", "1", "lower"),
    "nonfinite_steps": Meaning("steps skipped because their gradient was not finite", "1"),
    r"lr|lr_last": Meaning("learning rate: the highest for the batch used, and the last one", "1"),
    "data_wait_share": Meaning("share of the training time in which the device waited for images", "1"),
    "ranks": Meaning("processes that worked together", "1"),
    "accumulation": Meaning("batches per update and process", "1"),
    "device_batch": Meaning("images on a device at once", "1"),
    "weights_missing": Meaning("tensors of the model that the file of weights lacks", "1"),
    "weights_unexpected": Meaning("tensors of the file that the model lacks", "1"),
    "weights_reshaped": Meaning("tensors of another shape in the file, left as initialised", "1"),
    "head_trained": Meaning("whether the head is from the file"),
}

_TASKS = ("costs", "speed", "train", "evaluate")


def meaning(column: Column) -> Meaning | None:
    """Return what a column means; None for a metric that is not the project's own."""
    if column.kind == "identity":
        return IDENTITY.get(column.path[0])
    if column.kind == "metric":
        return of_metric(column.path[0])
    if column.kind == "model":
        return Meaning(f"the model's {_words(column)}")
    if column.kind == "task":
        return Meaning(f"circumstance of {column.task}: {_words(column)}")
    if column.path[0] == "environment":
        return Meaning(f"where {column.task} was measured: {_words(column)}")
    return Meaning(f"of the record of {column.task}: {_words(column)}")


def of_metric(name: str) -> Meaning | None:
    """Return what a metric means, by its own name or behind that of its task; None if it is a user's own."""
    task, _, rest = name.partition("_")
    for each in (name, *([rest] if task in _TASKS else [])):
        for pattern, found in METRICS.items():
            if re.fullmatch(pattern, each):
                return found
    return None


def better(metric: str) -> Better:
    """Return which end of a metric is the better one, "" if there is none."""
    found = of_metric(metric)
    return found.better if found else ""


def _words(column: Column) -> str:
    return " ".join(column.path).replace("_", " ")

"""What every column of a table means: its unit, which end of it is the better one, where it comes from.

docs/schema.md is `page()`: python -c "from results.tables import schema; print(schema.page(), end='')" > docs/schema.md
"""

import re
from typing import Literal, NamedTuple

from results.tables.columns import Column
from results.tables.times import task_of_time

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

_BY_SOURCE: dict[str, dict[str, Meaning]] = {
    "task costs: parameters and multiply-adds, counted three ways that agree": {
        "params": Meaning("parameters", "1"),
        "params_m": Meaning("parameters", "1e6", "lower"),
        "gmacs": Meaning("multiply-adds of products and convolutions for an image", "1e9", "lower"),
        "gmacs_fvcore": Meaning(
            "gmacs, and what fvcore counts for norms and interpolation; papers' FLOPs", "1e9", "lower"
        ),
        "gmacs_attention": Meaning("multiply-adds of the products inside attentions", "1e9", "lower"),
        "gmacs_projections": Meaning(
            "multiply-adds of the projections around attentions, and of the head", "1e9", "lower"
        ),
        "gmacs_convolutions": Meaning("multiply-adds of convolutions", "1e9", "lower"),
        "gmacs_mlp": Meaning("multiply-adds of MLPs", "1e9", "lower"),
        "gmacs_norms": Meaning("what fvcore counts for norms; not part of gmacs", "1e9", "lower"),
    },
    "task speed; loop_... by task train": {
        "images_per_s": Meaning("batch over the median latency of inference", "images/s", "higher"),
        "train_images_per_s": Meaning("batch over the median time of a training step", "images/s", "higher"),
        r"latency_ms_p(25|50|75)": Meaning("time of a batch in inference: quartiles and median", "ms", "lower"),
        r"train_step_ms_p(25|50|75)": Meaning(
            "time of forward, backward and AdamW: quartiles and median", "ms", "lower"
        ),
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
        r"(train_|loop_)?sdpa_kernel": Meaning("kernels that ran scaled_dot_product_attention; math is not fused"),
        r"(train_)?attention_path": Meaning("how attentions with several implementations ran: plain, native, triton"),
        r"sm_clock_mhz_(before|after)": Meaning("clock of the GPU before and after the measurement", "MHz"),
    },
    "task speed in another runtime than torch, as an exported graph": {
        "runtime_outputs": Meaning("right or wrong, and by how much of eager float32's; a wrong one has no time"),
        r"runtime_difference_(normal|zeros|scaled)": Meaning(
            "relative l2 difference from eager float32, on normal inputs, zeros and inputs scaled by 10", "1"
        ),
        "runtime_provider": Meaning("what of the runtime computes: its provider or device"),
        "runtime_threads": Meaning("threads that the runtime was given, as many as torch has", "1"),
        "runtime_precision": Meaning("precision that the runtime was told to compute in"),
        "graph_exporter": Meaning("what exported the model"),
        "graph_opset": Meaning("version of the operators of the graph", "1"),
        "graph_options": Meaning("options of the export, as JSON"),
        "graph_versions": Meaning("packages that the graph was made with, as JSON"),
        "graph_operators": Meaning("how often the graph has each operator, as JSON"),
    },
    "task imported, measured by others: never ranked": {
        "imported_ms": Meaning("time of a batch in inference", "ms"),
        "imported_images_per_s": Meaning("batch over that time", "images/s"),
        "imported_command": Meaning("the command that measured it, as its source has it"),
        "imported_from": Meaning("the file that it was imported from"),
    },
    "task train": {
        "loop_images_per_s": Meaning(
            "images over the time of the training loop, loading included", "images/s", "higher"
        ),
        "loop_disturbed_share": Meaning("share of the training loop in which others took its cores", "1"),
        "top1_best": Meaning("top1 of the best epoch", "%", "higher"),
        "epoch_best": Meaning("the epoch of top1_best, from 1", "1"),
        "epochs": Meaning("epochs trained", "1"),
        "train_loss": Meaning("mean loss of the last epoch", "1", "lower"),
        "nonfinite_steps": Meaning("steps skipped because their gradient was not finite", "1"),
        r"lr|lr_last": Meaning("learning rate: the highest for the batch used, and the last one", "1"),
        "data_wait_share": Meaning("share of the training time in which the device waited for images", "1"),
        "accumulation": Meaning("batches per update and process", "1"),
        "device_batch": Meaning("images on a device at once", "1"),
    },
    "tasks train and evaluate: accuracies": {
        r"top1(_ema)?": Meaning("images whose class is the first guess", "%", "higher"),
        r"top5(_ema)?": Meaning("images whose class is among the first five guesses", "%", "higher"),
        r"top1(_ema)?_stderr": Meaning("binomial standard error of top1, from the choice of images alone", "points"),
        "n_images": Meaning("images that the accuracy is of", "1"),
        "val_list": Meaning("hash of the list of these images and their classes"),
        "ranks": Meaning("processes that worked together", "1"),
    },
    "task evaluate": {
        "weights_missing": Meaning("tensors of the model that the file of weights lacks", "1"),
        "weights_unexpected": Meaning("tensors of the file that the model lacks", "1"),
        "weights_reshaped": Meaning("tensors of another shape in the file, left as initialised", "1"),
        "head_trained": Meaning("whether the head is from the file"),
    },
    "every task": {
        r"\w+_seconds": Meaning("time that the cell took, all in all", "s"),
    },
}
"""What measures a metric, and what it means, by its name or a pattern of it; the first that fits."""

METRICS = {pattern: found for metrics in _BY_SOURCE.values() for pattern, found in metrics.items()}

_TASKS = ("costs", "speed", "train", "evaluate", "imported")


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


def tasks_of(metric: str) -> tuple[str, ...]:
    """Return the tasks that a metric of the project may be from, by its section or the name in front of its own."""
    if task := task_of_time(metric):
        return (task,)
    for task in _TASKS:
        if metric.startswith(f"{task}_") and of_metric(metric) == of_metric(metric.removeprefix(f"{task}_")):
            return (task,)
    for title, metrics in _BY_SOURCE.items():
        if any(re.fullmatch(pattern, metric) for pattern in metrics):
            return tuple(task for task in _TASKS if task in title)
    return ()


def better(metric: str) -> Better:
    """Return which end of a metric is the better one, "" if there is none."""
    found = of_metric(metric)
    return found.better if found else ""


def _words(column: Column) -> str:
    return " ".join(column.path).replace("_", " ")


def page() -> str:
    """Return docs/schema.md."""
    lines = [_HEAD]
    for title, metrics in {"every row": IDENTITY, **_BY_SOURCE}.items():
        lines += [
            f"## {title[0].upper()}{title[1:]}",
            "",
            "| Column | Unit | Better | Meaning |",
            "| --- | --- | --- | --- |",
        ]
        lines += [f"| {_names(name)} | {m.unit or '-'} | {m.better or '-'} | {m.text} |" for name, m in metrics.items()]
        lines.append("")
    return "\n".join([*lines, _FOOT])


def _names(pattern: str) -> str:
    """Return the names that a pattern stands for, as Markdown."""
    names = [pattern.replace(r"\w+", "...").replace(r"|", r"|")]
    while any(re.search(r"\([^()]*\)\??", name) for name in names):
        names = [each for name in names for each in _alternatives(name)]
    return ", ".join(f"`{each}`" for name in names for each in name.split("|"))


def _alternatives(name: str) -> list[str]:
    group = re.search(r"\(([^()]*)\)(\??)", name)
    if group is None:
        return [name]
    choices = [*group[1].split("|"), *([""] if group[2] else [])]
    return [name[: group.start()] + choice + name[group.end() :] for choice in sorted(choices)]


_HEAD = """# Columns

Every column of a table, made from `results/tables/schema.py`. [What the numbers mean](numbers.md) explains them.

A metric that two tasks of a table report is named with its task: `train_top1`, `evaluate_top1`. An empty field of a CSV
is a value that there is none of; `none` is a null of the record, `nan` a number that is not one, as a diverged loss.

Names, units and meanings are kept: where one had to change, it would get a new name and a line in the changelog. New
columns may come, so read them by name. This line reads a CSV with the values and types of the records: integers with
gaps stay integers, texts such as `None` and `none` stay texts, and NaN is not a gap:

<!-- not run: minutes of work; tests/results/tables/test_schema.py -->
```python
pd.read_csv("table.csv", engine="pyarrow", dtype_backend="pyarrow", keep_default_na=False, na_values=[""])
```

Times (`record.<task>.created`, `.environment.date`) become timestamps, in UTC. A version that looks like a number
(`record.costs.environment.cuda`) is read as one all the same; `-o table.parquet` and `-o table.json` keep every type.

A hash that looks like a number, of digits alone or around an `e`, has an apostrophe in front in a CSV, as spreadsheets
mark a text: `'9253954e51983261`, which readers would take for infinity. `.str.removeprefix("'")` takes it off.
"""

_FOOT = r"""## Circumstances and provenance

| Column | Meaning | Stability |
| --- | --- | --- |
| `model.<field>` | a field of the backbone, as `show` prints it; lists are JSON | fields may be added |
| `<task>.<field>` | a field of the task: `train.seed`, `train.recipe.lr`, `speed.runtime.batch` | fields may be added |
| `record.<task>.status`, `.key`, `.created` | the record: its status, its key and file name, its time in UTC | kept |
| `record.<task>.environment.<field>` | commit, versions, device, threads of the measurement | fields may be added |
"""

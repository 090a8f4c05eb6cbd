"""How the numbers of a page were measured, in sentences to paste: only what its records say."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from results.records import Record
from results.wording import and_more, count


def methods(records: Sequence[Record], paired: int = 0) -> list[str]:
    """Return paragraphs: of costs, speeds, accuracies, and of the software.

    `paired` is the largest number of seeds over which accuracies are compared in pairs, 0 where none are.
    """
    by_task: dict[str, list[Record]] = {}
    for record in records:
        if record.status == "done":
            by_task.setdefault(record.cell["task"]["name"], []).append(record)
    parts = (
        _costs(by_task.get("costs", [])),
        _speeds(by_task.get("speed", [])),
        _training(by_task.get("train", []), paired),
        _evaluation(by_task.get("evaluate", [])),
        _circumstances(records),
    )
    return [part for part in parts if part]


def _costs(records: Sequence[Record]) -> str:
    if not records:
        return ""
    text = (
        "Multiply-adds (GMACs) are those of the matrix products and convolutions for one image, with one multiply-add "
        "counted as 1; papers print the same number as FLOPs."
    )
    if any("gmacs_fvcore" in record.metrics for record in records):
        text += " gmacs_fvcore adds what fvcore counts for normalisation and interpolation."
    return text


def _speeds(records: Sequence[Record]) -> str:
    if not records:
        return ""
    runtimes = [record.cell["task"].get("runtime", {}) for record in records]
    said = [
        f"batch {_all(each.get('batch') for each in runtimes)}",
        f"precision {_all(each.get('precision') for each in runtimes)}",
        f"{_all(each.get('mode') for each in runtimes)} mode",
    ]
    names = [f"{each.get('runtime', 'torch')} {each.get('version') or ''}".strip() for each in runtimes]
    if set(names) != {"torch"}:
        said.append(f"runtime {_all(names)}")
    devices = _all(_device(record.environment) for record in records)
    seconds = _all(record.cell["task"].get("min_seconds") for record in records)
    text = (
        f"Speeds are the batch over the median time of a call, with the input already on the device ({devices}; "
        f"{', '.join(said)}), over at least {seconds} s of work after warming up. They were measured one after the "
        "other, so that small differences may be those of the machine."
    )
    disturbed = sum(bool(record.disturbed) for record in records)
    if disturbed:
        text += (
            f" {disturbed} of {len(records)} measurements {'was' if disturbed == 1 else 'were'} disturbed by other "
            "work on the machine, which is marked."
        )
    return text


def _training(records: Sequence[Record], paired: int) -> str:
    if not records:
        return ""
    tasks = [record.cell["task"] for record in records]
    recipes = [task.get("recipe", {}) for task in tasks]
    images = _all(f"{n:,}" for record in records if (n := record.metrics.get("n_images")))
    seeds = sorted({task["seed"] for task in tasks if "seed" in task})
    text = (
        f"Models were trained on {_all(task.get('data', {}).get('name') for task in tasks)} for "
        f"{_all(r.get('epochs') for r in recipes)} epochs with AdamW (batch {_all(r.get('batch') for r in recipes)}, "
        f"learning rate {_all(r.get('lr') for r in recipes)} per 512 images, weight decay "
        f"{_all(r.get('weight_decay') for r in recipes)}, cosine schedule), with "
        f"{count(len(seeds), 'seed')} ({and_more([str(seed) for seed in seeds], 8)})."
    )
    if images:
        text += f" Top-1 accuracies are on {images} images that were not trained on, none padded and none dropped."
    compared = _PAIRED if paired > 1 else _PAIRED_ONCE if paired else ""
    return f"{text} {_ACCURACY}{compared}"


def _evaluation(records: Sequence[Record]) -> str:
    if not records:
        return ""
    images = _all(f"{n:,}" for record in records if (n := record.metrics.get("n_images")))
    data = _all(record.cell["task"].get("data", {}).get("name") for record in records)
    return f"Given weights were evaluated on {images or 'the'} val images of {data}."


_ACCURACY = (
    "± is the binomial standard error of an accuracy, from the choice of images alone: the noise of the seed is not in "
    "it."
)
_PAIRED = (
    " Differences from a baseline are paired, image by image and seed by seed; their 95 % intervals cover both "
    "choices, and p-values are corrected for the number of comparisons by Holm's method."
)
_PAIRED_ONCE = (
    " Differences from a baseline are paired, image by image, and of one seed: their 95 % intervals cover the choice "
    "of images alone, so no difference is called better or worse."
)


def _circumstances(records: Sequence[Record]) -> str:
    environments = [record.environment for record in records]
    versions = [f"{name} {found}" for name in ("torch", "timm") if (found := _all(e.get(name) for e in environments))]
    commits = Counter(str(e["commit"])[:10] for e in environments if e.get("commit"))
    text = f"Measured with {' and '.join(versions)}" if versions else ""
    if commits:
        text += f"{', at' if text else 'Measured at'} commit {and_more(list(commits))} of attention-bench"
    dirty = sum(bool(e.get("dirty")) for e in environments)
    if dirty:
        text += f" ({count(dirty, 'record')} with changes that were not committed)"
    return f"{text}." if text else ""


def _device(environment: dict[str, Any]) -> str | None:
    name = environment.get("device_name")
    threads = environment.get("threads")
    if not name:
        return None
    return f"{name}, {count(threads, 'thread')}" if environment.get("device") == "cpu" and threads else str(name)


def _all(values: Iterable[Any]) -> str:
    """Return the distinct values that are known, in words."""
    texts = [f"{value:g}" if isinstance(value, float) else str(value) for value in values if value is not None]
    return and_more(list(dict.fromkeys(texts)), 4)

"""What the attention of each block is like, on average over images, one by one: memory does not grow with them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from attentions import Attention, ImpliedMap, implied_map
from harness.cells import DataSource
from harness.images.readers import UNREADABLE
from harness.images.sources import list_hash, open_val
from harness.process.determinism import one_thread
from harness.process.environment import environment
from harness.seeing import metrics
from harness.seeing.capture import Call, captured
from harness.seeing.models import Viewed
from harness.seeing.places import Place, places_of
from results.statistics import student
from results.tables import MEASURES

ROWS = 196
"""Cells of a map whose queries are looked at, spread evenly, where it has more; all keys are."""

WINDOWS = 8
"""Windows of an image that are looked at, spread evenly, where it has more."""


@dataclass
class Mean:
    """The mean and the standard deviation of values that come one by one (B. P. Welford, Technometrics 4, 1962)."""

    number: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        self.number += 1
        step = value - self.mean
        self.mean += step / self.number
        self.squares += step * (value - self.mean)

    @property
    def deviation(self) -> float:
        """The standard deviation, NaN for fewer than two values."""
        return math.sqrt(self.squares / (self.number - 1)) if self.number > 1 else math.nan


@dataclass
class BlockAnalysis:
    """A block of a model, and of each metric its mean over images; one that does not apply has no values.

    rank, effective_rank: of the maps of the heads, with the convolution of the values; rank_attention: without it.
    entropy: nats. distance_px: pixels of the image. focus: the share of the top 10 % of the keys. token_cosine: of the
    block's output. norm_growth: mean length of the tokens after the block over that before it. convolution_share: of
    the lengths of what the attention and its convolution add. *_time_share: of the forward pass.
    `rows`, `keys`: size of the maps that were looked at. `kind` is that of `attentions.ImpliedMap`.
    """

    stage: int
    block: int
    attention: str
    kind: str = ""
    rows: int = 0
    keys: int = 0
    metrics: dict[str, Mean] = field(default_factory=lambda: {name: Mean() for name in MEASURES})


class Analysis:
    """Collects what the blocks of a model are like, image by image; `blocks` has the result so far.

    Raises ValueError for a model that `places_of` refuses.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model.eval()
        self.places = places_of(model)
        names = {module: name for name, module in model.named_modules()}
        self._blocks = dict[str, list[Place]]()
        for place in self.places:
            self._blocks.setdefault(_block_name(names[place.module]), []).append(place)
        self.blocks = [
            BlockAnalysis(branches[0].stage, branches[0].block, branches[0].attention)
            for branches in self._blocks.values()
        ]

    def rows(self) -> list[dict[str, Any]]:
        """Return a row per block: what it is, and the mean of each metric with the ends of its 95 % interval.

        The interval is Student's, for further images of the same kind; None where a metric does not apply.
        """
        found = []
        for block in self.blocks:
            row: dict[str, Any] = {name: getattr(block, name) for name in ("stage", "block", "attention", "kind")}
            row |= {"map_rows": block.rows, "map_keys": block.keys}
            for name, mean in block.metrics.items():
                low, high = (None, None) if mean.number < 2 else student(mean.mean, mean.deviation, mean.number)
                row |= {name: mean.mean if mean.number else None, f"{name}_low": low, f"{name}_high": high}
            found.append(row)
        return found

    @torch.no_grad()
    def add(self, image: Tensor) -> None:
        """Look at one image, (1, C, H, W), normalised as the model takes it."""
        assert len(image) == 1
        modules = [place.module for place in self.places]
        blocks = [self.model.get_submodule(name) for name in self._blocks]
        with _tokens(blocks) as tokens, captured(modules) as calls:
            self.model(image)
        seconds = _seconds(self.model, [*blocks, *modules], image)
        whole = seconds[self.model]

        def measured(block: nn.Module, branches: Sequence[Place], found: BlockAnalysis) -> dict[str, float | None]:
            before, after = tokens[block]
            return {
                "token_cosine": metrics.token_cosine(after),
                "norm_growth": float((after.norm(dim=-1) / before.norm(dim=-1)).mean()),
                "attention_time_share": sum(seconds[place.module] for place in branches) / whole,
                "block_time_share": seconds[block] / whole,
                **_of_maps(branches, calls, image.shape, found),
            }

        # Blocks are many small pieces of work: threads for blocks are faster than threads inside each of them.
        threads = torch.get_num_threads()
        with one_thread(), ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            every = pool.map(measured, blocks, self._blocks.values(), self.blocks)
            for found, values in zip(self.blocks, every, strict=True):
                for metric, value in values.items():
                    if value is not None and math.isfinite(value):
                        found.metrics[metric].add(value)


def _of_maps(
    branches: Sequence[Place], calls: Mapping[Attention, Call], size: Sequence[int], found: BlockAnalysis
) -> dict[str, float | None]:
    """Return what the maps of the branches of a block are like, on average over those that know."""
    every = [_of_map(place, calls[place.module], size, found) for place in branches]
    values: dict[str, float | None] = {}
    for metric in dict.fromkeys(name for each in every for name in each):
        known = [value for each in every if (value := each.get(metric)) is not None]
        values[metric] = sum(known) / len(known) if known else None
    return values


def _block_name(module: str) -> str:
    """Return the name of the block that an attention is in: blocks of all families have it in `attn` or `attns`."""
    parts = module.split(".")
    return ".".join(parts[: next(at for at, part in enumerate(parts) if part in ("attn", "attns"))])


def _spread(number: int, most: int) -> list[int]:
    """Return at most so many of the first `number` whole numbers, spread evenly."""
    if number <= most:
        return list(range(number))
    return [(2 * each + 1) * number // (2 * most) for each in range(most)]


@torch.no_grad()
def _of_map(place: Place, call: Call, size: Sequence[int], found: BlockAnalysis) -> dict[str, float | None]:
    """Return what the maps of some windows and queries of an attention are like, on average over the windows."""
    site, given = place.site, call.arguments
    if "v" not in place.module.reads:
        found.kind = "no map: the values are not read"
        return {}
    windows = _spread(len(given["v"]), WINDOWS)
    prefix = site.queries.prefix
    rows = [prefix + each for each in _spread(site.queries.tokens - prefix, ROWS)]
    chosen = {name: x if name == "bias" and len(x) == 1 else x[windows] for name, x in given.items()}
    implied = implied_map(place.module, **chosen, queries=rows)
    found.kind, found.rows, found.keys = implied.kind, len(rows), site.keys.tokens
    maps = implied.together
    shares = metrics.shares(maps)
    rank, effective = metrics.ranks(maps)
    apart = implied.convolution is not None
    return {
        "rank": rank,
        "rank_attention": metrics.ranks(implied.weights)[0] if apart else rank,
        "effective_rank": effective,
        "entropy": metrics.entropy(shares),
        "focus": metrics.focus(shares),
        "head_similarity": metrics.head_similarity(maps),
        "distance_px": _distance(place, shares, windows, rows, size),
        "convolution_share": _convolution_share(implied, chosen["v"], call.out[windows][:, rows], site.heads)
        if apart and implied.kind == "per head"
        else None,
    }


def _distance(place: Place, shares: Tensor, windows: Sequence[int], rows: Sequence[int], size: Sequence[int]) -> float:
    site, (height, width) = place.site, size[-2:]
    found = []
    for at, window in enumerate(windows):
        # (x, y) of all cells of the window, where a shift may have brought them from another border.
        cells = torch.from_numpy(place.cells_of(window)).double().flip(-1) + 0.5
        places = cells * torch.tensor([width / place.grid.width, height / place.grid.height], dtype=torch.float64)
        keys = places if site.keys == site.queries else metrics.centres(site.keys, width, height)
        own = places[[row - site.queries.prefix for row in rows]]
        found.append(metrics.distance(shares[at][..., site.keys.prefix :].cpu(), own, keys))
    return sum(found) / len(found)


def _convolution_share(implied: ImpliedMap, v: Tensor, out: Tensor, heads: int) -> float:
    """Return how much of what is added comes from the convolution: its length over the sum of both."""
    values = v.double().unflatten(-1, (heads, -1)).transpose(1, 2)
    mixed = (implied.weights @ values).transpose(1, 2).flatten(2)
    rest = out.double() - mixed
    return float((rest.norm(dim=-1) / (rest.norm(dim=-1) + mixed.norm(dim=-1))).nanmean())


@contextmanager
def _tokens(blocks: Sequence[nn.Module]) -> Iterator[dict[nn.Module, tuple[Tensor, Tensor]]]:
    """Collect the tokens before and after each block during a forward pass."""
    found: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def keep(module: nn.Module, values: tuple[Tensor, ...], out: Tensor) -> None:
        found[module] = (values[0].detach(), out.detach())

    handles = [block.register_forward_hook(keep) for block in blocks]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _seconds(model: nn.Module, modules: Sequence[nn.Module], image: Tensor) -> dict[nn.Module, float]:
    """Return how long a forward pass takes, and how long each of these modules does in it."""
    began: dict[nn.Module, float] = {}
    found: dict[nn.Module, float] = {}

    def start(module: nn.Module, values: tuple[Tensor, ...]) -> None:
        began[module] = _now(image)

    def stop(module: nn.Module, values: tuple[Tensor, ...], out: Tensor) -> None:
        found[module] = _now(image) - began[module]

    handles = [each.register_forward_pre_hook(start) for each in (model, *modules)]
    handles += [each.register_forward_hook(stop) for each in (model, *modules)]
    try:
        model(image)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _now(image: Tensor) -> float:
    if image.is_cuda:
        torch.cuda.synchronize(image.device)
    return time.perf_counter()


def analysed(
    models: Sequence[Viewed], source: DataSource, images: int, seed: int, advance: Callable[[], None] = lambda: None
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return a row per model and block over so many val images, and what it was made from, as plain JSON.

    The images are drawn with the seed; each model gets the same ones, as its evaluation prepares them. `advance` is
    called after each image of each model.

    Raises ValueError for an image set that cannot be opened or has too few images, and an image that cannot be read.
    """
    rows: list[dict[str, Any]] = []
    about: dict[str, Any] = {"seed": seed, "data": asdict(source), "models": []}
    for viewed in models:
        reader = open_val(source, viewed.spec.num_classes)
        if images > len(reader):
            raise ValueError(f"{source.name} has {len(reader):,} val images; {images:,} are asked for")
        order = torch.randperm(len(reader), generator=torch.Generator().manual_seed(seed))[:images].tolist()
        found = Analysis(viewed.model)
        for index in order:
            try:
                image = reader.rgb(index)
            except UNREADABLE as error:
                raise ValueError(reader.unreadable(index, error)) from error
            found.add(viewed.normalised(viewed.pixels(image)))
            advance()
        rows += [{"model": viewed.label, **row, "images": images} for row in found.rows()]
        about["val_list"] = list_hash(reader)
        about["images"] = [reader.shown(index) for index in order]
        about["models"].append(
            {
                "label": viewed.label,
                "weights": viewed.weights,
                "backbone": viewed.spec.to_json(),
                "preprocessing": str(viewed.preprocessing),
            }
        )
    about["environment"] = environment(next(models[0].model.parameters()).device.type)
    return rows, about

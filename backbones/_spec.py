"""`BackboneSpec`, what a backbone is, and `Mount`, where its blocks put their attention."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import Any, ClassVar

import torch

from attentions import Attention, AttentionSpec, Grid, Macs, Site, lookup

SOFTMAX = AttentionSpec("softmax")


@dataclass(frozen=True)
class Mount:
    """One block of the resolved table: its map of tokens, and the sites of its attention (one per branch).

    `window` is the (height, width) of the group of tokens that meet, or None where all of the map meets; `shift` is
    Swin's cyclic shift; `reduction` divides the key grid in both directions.
    """

    stage: int
    block: int
    grid: Grid
    attention: AttentionSpec
    tested: bool
    sites: tuple[Site, ...]
    windows: tuple[tuple[int, int] | None, ...]
    shift: int = 0
    reduction: int = 1

    @property
    def dim(self) -> int:
        return sum(site.dim for site in self.sites)

    @property
    def heads(self) -> int:
        return sum(site.heads for site in self.sites)

    def attention_macs(self) -> Macs:
        """Multiply-adds of the attention for one image, all windows and branches together."""
        macs = Macs()
        for site in self.sites:
            groups = self.grid.height * self.grid.width // (site.queries.height * site.queries.width)
            macs += on_meta(self.attention, site).macs() * groups
        return macs


@lru_cache(maxsize=4096)
def on_meta(attention: AttentionSpec, site: Site) -> Attention:
    """The attention at a site, without weights. Raises ValueError where it cannot be mounted."""
    with torch.device("meta"):
        return attention.build(site)


@dataclass(frozen=True, kw_only=True)
class BackboneSpec(ABC):
    """A variant of a backbone family: plain values only, from which `backbones.build` makes the module.

    Fields that every family has (each is an override of `backbones.preset`):
        name: the preset it came from; a label, equality does not look at it.
        attention: the attention under test (spec or text).
        stages: a letter per stage, L = the attention under test, S = softmax, M followed by a number after the
            letters = the first so many blocks L, the others S ("LLMS3").
        image_size: (height, width) in pixels; one number means a square.
        num_classes, in_channels.

    Raises:
        ValueError: for values which do not fit each other, saying which values would.
    """

    family: ClassVar[str]
    name: str = field(compare=False)
    attention: AttentionSpec = SOFTMAX
    stages: str
    image_size: tuple[int, int] = (224, 224)
    num_classes: int = 1000
    in_channels: int = 3

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        set_(self, "attention", AttentionSpec.of(self.attention))
        set_(self, "image_size", _pair(self.image_size))
        for number in ("num_classes", "in_channels"):
            value = getattr(self, number)
            if not _is_int(value) or value < 1:
                raise self.error(f"{number}={value!r} is not allowed; it takes a number from 1 up")
        self._normalise()
        self.tested_blocks()
        step = self.image_step
        if any(side < step or side % step for side in self.image_size):
            height, width = self.image_size
            raise self.error(
                f"image size {height}x{width} does not divide: both sides must be multiples of {step}{self._near()}"
            )
        for mount in self.mounts():
            if any(site.regions > 1 for site in mount.sites) and not lookup(mount.attention.name).takes_regions:
                raise self.error(f"{mount.attention.name} cannot honour the shift mask; leave honour_shift_mask off")
            for site in mount.sites:
                try:
                    on_meta(mount.attention, site)
                except ValueError as problem:
                    raise self.error(f"{mount.attention.name}: {problem}") from None

    @abstractmethod
    def _normalise(self) -> None:
        """Bring the family's own fields to their canonical form and check them."""

    @property
    @abstractmethod
    def depths(self) -> tuple[int, ...]:
        """Blocks per stage."""

    @property
    @abstractmethod
    def image_step(self) -> int:
        """What both sides of the image must be multiples of."""

    @abstractmethod
    def mounts(self) -> list[Mount]:
        """The resolved table: every block in order. Raises ValueError where a window does not tile its map."""

    @abstractmethod
    def macs_by_part(self) -> dict[str, Macs]:
        """Closed formula: multiply-adds for one image, per part of the model ("stage 1", ..., "head")."""

    @abstractmethod
    def part_of(self, key: str) -> str:
        """The part of the model ("stage 1", ..., "head") that a parameter belongs to, by its name."""

    def tested_blocks(self) -> tuple[int, ...]:
        """How many leading blocks of each stage carry the attention under test."""
        match = re.fullmatch(r"([LSM]+)(\d*)", self.stages)
        count = len(self.depths)
        letters, digits = match.groups() if match else ("", "")
        if len(letters) != count or ("M" in letters) != bool(digits):
            raise self.error(
                f"stages={self.stages!r} is not allowed; it takes {count} letter{'s' * (count > 1)} L, S or M, "
                f"and with an M the number of its L blocks behind them (as in {'L' * (count - 1)}M2)"
            )
        tested = []
        for letter, depth in zip(letters, self.depths, strict=True):
            mixed = int(digits or 0)
            if letter == "M" and mixed > depth:
                raise self.error(f"stages={self.stages!r}: a stage of {depth} blocks cannot have {mixed} L blocks")
            tested.append({"L": depth, "S": 0, "M": mixed}[letter])
        return tuple(tested)

    def attention_of(self, stage: int, block: int) -> tuple[AttentionSpec, bool]:
        """The attention of a block (both count from 0), and whether it is the one under test."""
        tested = block < self.tested_blocks()[stage]
        return (self.attention if tested else SOFTMAX), tested

    def _near(self) -> str:
        """The nearest image size at which all else fits, if there is one nearby."""
        step = self.image_step
        rounded = [max(step, round(side / step) * step) for side in self.image_size]
        moves = sorted((step * n for n in range(-64 // step, 64 // step + 1)), key=abs)
        for size in ((rounded[0] + move, rounded[1] + move) for move in moves):
            if min(size) >= step:
                try:
                    replace(self, image_size=size)
                except ValueError:
                    continue
                return f" (near: {size[0]}x{size[1]})"
        return ""

    def error(self, text: str) -> ValueError:
        return ValueError(f"{self.name}: {text}")

    def to_json(self) -> dict[str, Any]:
        """Plain values: two specs build equal modules if these, but for `name`, are equal."""
        plain: dict[str, Any] = {"name": self.name, "family": self.family}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, AttentionSpec):
                value = str(value)
            plain[f.name] = list(value) if isinstance(value, tuple) else value
        return plain


def numbers(value: Any, count: int, error: Any, name: str) -> tuple[int, ...]:
    """A tuple of `count` positive numbers from "8421", "56-28-14-7", a sequence, or one number for all stages."""
    if isinstance(value, str):
        parts: Sequence[Any] = value.split("-") if "-" in value else list(value)
        parts = [int(part) if part.isdigit() else part for part in parts]
    elif isinstance(value, int):
        # 8421 is how the official configurations write one digit a stage.
        parts = [int(digit) for digit in str(value)] if len(str(value)) == count > 1 else [value] * count
    else:
        parts = list(value)
    if len(parts) != count or not all(_is_int(part) and part > 0 for part in parts):
        raise error(f"{name}={value!r} is not allowed; it takes {count} numbers from 1 up, one a stage")
    return tuple(parts)


def halved(grid: Grid, times: int) -> Grid:
    """The grid after so many steps that halve it, rounding up: odd maps are padded."""
    return Grid(-(-grid.height // 2**times), -(-grid.width // 2**times))


def divisors(number: int) -> str:
    return ", ".join(str(n) for n in range(1, number + 1) if number % n == 0)


def _pair(value: Any) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else value
    if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not all(_is_int(side) for side in pair):
        raise ValueError(f"image_size={value!r} is not allowed; it takes a number of pixels, or (height, width)")
    return (pair[0], pair[1])


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)

"""`BackboneSpec`, the description of a backbone, and `Mount`, where its blocks place their attention."""

from __future__ import annotations

import re
import typing
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import Any, ClassVar

import torch

from attentions import Attention, AttentionSpec, Grid, Macs, Site, error_line, lookup

SOFTMAX = AttentionSpec("softmax")

LATER = {"later": True}
"""Metadata of a field added after records existed: it is not written at its default, so that old keys stay valid."""


@dataclass(frozen=True)
class Mount:
    """One block of the resolved table: its map of tokens, and the sites of its attention (one per branch).

    `window` is the (height, width) of the group of tokens that meet, or None where the full map meets; `shift` is
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
        """Return the multiply-adds of the attention for one image, over all windows and branches.

        Raises ValueError if its formula does not work there.
        """
        macs = Macs()
        for site in self.sites:
            groups = self.grid.height * self.grid.width // (site.queries.height * site.queries.width)
            with _errors_in_one_line(self.attention, "macs()"):
                macs += on_meta(self.attention, site).macs() * groups
        return macs


def on_meta(attention: AttentionSpec, site: Site) -> Attention:
    """Return the attention at a site, without weights. Raises ValueError if it cannot be mounted there."""
    return _on_meta(lookup(attention.name), attention, site)  # type: ignore[arg-type]


# Cached by class, too: a name may later mean another version of it.
@lru_cache(maxsize=4096)
def _on_meta(_: type[Attention], attention: AttentionSpec, site: Site) -> Attention:
    with torch.device("meta"), _errors_in_one_line(attention, "the constructor"):
        return attention.build(site)


@contextmanager
def _errors_in_one_line(attention: AttentionSpec, what: str) -> Iterator[None]:
    """Turn every error inside into a ValueError of one line: the code may be in a user's file."""
    try:
        yield
    except ValueError:
        raise
    except Exception as problem:
        said = error_line(problem, lookup(attention.name).__module__)
        raise ValueError(f"{what} of {attention.name} fails: {said}") from problem


@dataclass(frozen=True, kw_only=True)
class BackboneSpec(ABC):
    """A variant of a backbone family: plain values only, from which `backbones.build` makes the module.

    Fields that every family has (each is an override of `backbones.preset`):
        name: the preset it came from; a label that equality ignores.
        attention: the attention under test (spec or text).
        stages: a letter per stage. L is the attention under test, S is softmax, and M, with a number after the
            letters, is L in that many first blocks and S in the others ("LLMS3").
        image_size: (height, width) in pixels; one number means a square.
        num_classes, in_channels.

    Raises:
        ValueError: for values that do not fit each other; the message says which would.
    """

    family: ClassVar[str]
    name: str = field(compare=False)
    attention: AttentionSpec = SOFTMAX
    stages: str
    image_size: tuple[int, int] = (224, 224)
    num_classes: int = 1000
    in_channels: int = 3

    def __post_init__(self) -> None:
        object.__setattr__(self, "attention", AttentionSpec.of(self.attention))
        object.__setattr__(self, "image_size", _pair(self.image_size))
        self._check_numbers()
        # Before the rules, which make numbers for this image size, as a hint is for another.
        step = self.image_step
        if any(side < step or side % step for side in self.image_size):
            height, width = self.image_size
            raise self.error(
                f"image size {height}x{width} is not allowed; both sides must be multiples of {step}{self._near()}"
            )
        self._apply_rules()
        self.tested_blocks()
        for mount in self.mounts():
            if any(site.regions > 1 for site in mount.sites) and not lookup(mount.attention.name).takes_regions:
                raise self.error(f"{mount.attention.name} cannot honour the shift mask; leave honour_shift_mask off")
            for site in mount.sites:
                try:
                    on_meta(mount.attention, site)
                except ValueError as problem:
                    raise self.error(f"{mount.attention.name}: {problem}") from None

    def _check_numbers(self) -> None:
        """Check each field against its annotation; numbers are 1 or more, tuples have one per stage."""
        kinds = typing.get_type_hints(type(self))
        # The number of stages is known once block_counts is checked.
        for name in sorted((f.name for f in fields(self)), key=lambda name: name != "block_counts"):
            value, kind = getattr(self, name), kinds[name]
            if name in ("attention", "image_size") or (value is None and type(None) in typing.get_args(kind)):
                continue
            if kind in (str, bool):
                if not isinstance(value, kind):
                    takes = "True or False" if kind is bool else "a string"
                    raise self.error(f"{name}={value!r} is not allowed; it takes {takes}")
            elif "tuple" in str(kind):
                count = None if name == "block_counts" else len(self.depths)
                object.__setattr__(self, name, self._numbers(name, value, count))
            elif not _is_number(value):
                raise self.error(f"{name}={value!r} is not allowed; it takes a number from 1 up")

    def _numbers(self, name: str, value: Any, count: int | None) -> tuple[int, ...]:
        """Return `count` numbers from a sequence, "56-28-14-7", or one for all stages; ratios also from "8421"."""
        # Official configurations write ratios with one digit per stage; numbers that may exceed 9 cannot be read so.
        digits = name == "block_counts" or name.endswith("ratios")
        text = str(value) if isinstance(value, (str, int)) else ""
        if "-" in text:
            parts = list(map(int, text.split("-"))) if all(map(str.isdecimal, text.split("-"))) else []
        elif text.isdecimal():
            parts = list(map(int, text)) if digits and len(text) != 1 else [int(text)] * (count or 1)
        else:
            parts = list(value) if isinstance(value, (tuple, list)) else []
        if not parts or len(parts) != (count or len(parts)) or not all(_is_number(part) for part in parts):
            many = "" if count is None else f"{count} "
            raise self.error(f"{name}={value!r} is not allowed; it takes {many}numbers from 1 up, one per stage")
        return tuple(parts)

    def _apply_rules(self) -> None:  # noqa: B027, most families have no rules
        """Fill in the fields that are None with what a rule gives, and check fields against each other."""

    @property
    @abstractmethod
    def depths(self) -> tuple[int, ...]:
        """Blocks per stage."""

    @property
    @abstractmethod
    def image_step(self) -> int:
        """The number that both sides of the image must be multiples of."""

    @abstractmethod
    def mounts(self) -> list[Mount]:
        """Return the resolved table: every block in order. Raises ValueError if a window does not tile its map."""

    def mounts_of(self, stage: int) -> list[Mount]:
        """Return the blocks of a stage, counted from 0."""
        return [mount for mount in self.mounts() if mount.stage == stage + 1]

    @abstractmethod
    def macs_by_part(self) -> dict[str, Macs]:
        """Return the multiply-adds for one image per part of the model ("stage 1", ..., "head"), by closed formulas."""

    @abstractmethod
    def part_of(self, key: str) -> str:
        """Return the part of the model ("stage 1", ..., "head") that a parameter belongs to, by its name."""

    def tested_blocks(self) -> tuple[int, ...]:
        """Return the number of leading blocks with the attention under test, per stage."""
        match = re.fullmatch(r"([LSM]+)(\d*)", self.stages)
        count = len(self.depths)
        letters, digits = match.groups() if match else ("", "")
        if len(letters) != count or ("M" in letters) != bool(digits):
            raise self.error(
                f"stages={self.stages!r} is not allowed; it takes {count} letter{'s' * (count > 1)} L, S or M, "
                f"and after an M also the number of its L blocks at the end (as in {'L' * (count - 1)}M2)"
            )
        tested = []
        for letter, depth in zip(letters, self.depths, strict=True):
            mixed = int(digits or 0)
            if letter == "M" and mixed > depth:
                raise self.error(f"stages={self.stages!r}: a stage of {depth} blocks cannot have {mixed} L blocks")
            tested.append({"L": depth, "S": 0, "M": mixed}[letter])
        return tuple(tested)

    def attention_of(self, stage: int, block: int) -> tuple[AttentionSpec, bool]:
        """Return the attention of a block (both counted from 0), and whether it is the one under test."""
        tested = block < self.tested_blocks()[stage]
        return (self.attention if tested else SOFTMAX), tested

    def _near(self) -> str:
        """Return the nearest image size at which everything else fits, as a hint; "" if there is none nearby."""
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
        """Return plain values: two specs build equal modules if these, except `name`, are equal."""
        plain: dict[str, Any] = {"name": self.name, "family": self.family}
        for f in fields(self):
            value = getattr(self, f.name)
            if "later" in f.metadata and value == f.default:
                continue
            if isinstance(value, AttentionSpec):
                value = str(value)
            plain[f.name] = list(value) if isinstance(value, tuple) else value
        return plain


def halving_maps(image_size: tuple[int, int], patch_size: int, stages: int) -> list[Grid]:
    """Return the map of each stage: the patches, then half as many per side, rounded up, as odd maps are padded."""
    height, width = (side // patch_size for side in image_size)
    return [Grid(-(-height // 2**stage), -(-width // 2**stage)) for stage in range(stages)]


def tilings(*grids: Grid) -> list[int]:
    """Return the sides of square tiles with which each of the grids can be tiled, upward from 1."""
    sides = [side for grid in grids for side in (grid.height, grid.width)]
    return [n for n in range(1, min(sides) + 1) if not any(side % n for side in sides)]


def listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))


def _pair(value: Any) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else value
    if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not all(isinstance(side, int) for side in pair):
        raise ValueError(f"image_size={value!r} is not allowed; it takes a number of pixels, or (height, width)")
    return (pair[0], pair[1])


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0

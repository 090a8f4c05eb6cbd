"""Where attentions are raced: a site, how many windows of it an image has, and the layer of a preset around it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from attentions import Grid, Site
from backbones import BackboneSpec, preset

SITE = "dim=96,heads=3,grid=56x56"


@dataclass(frozen=True)
class Place:
    """A site, with `groups` entries per image (windows, stripes); `spec` and `stage`, from 1, where a preset has it.

    `branch`: from 1, where a block has several, else 0.
    """

    label: str
    site: Site
    groups: int = 1
    spec: BackboneSpec | None = None
    stage: int = 0
    branch: int = 0


def places_of(name: str, stage: int | None = None, *, tested: bool = False) -> list[Place]:
    """Return where the first block of a stage of a preset, or of each stage, has its attention.

    A block with two branches, as CSWin's, has two places. `tested`: of the stages whose first block is under test.

    Raises:
        ValueError: for an unknown preset, or a stage that it does not have.
    """
    spec = preset(name)
    stages = range(1, len(spec.depths) + 1)
    if stage is not None and stage not in stages:
        raise ValueError(f"{name} has no stage {stage}; allowed: {', '.join(map(str, stages))}")
    found = []
    for each in stages if stage is None else (stage,):
        mount = spec.mounts_of(each - 1)[0]
        if tested and not mount.tested:
            continue
        for branch, site in enumerate(mount.sites, 1):
            groups = mount.grid.height * mount.grid.width // (site.queries.height * site.queries.width)
            if len(mount.sites) > 1:
                found.append(Place(f"{name}.{each} branch {branch}", site, groups, spec, each, branch))
            else:
                found.append(Place(f"{name}.{each}", site, groups, spec, each))
    return found


def layers_of(places: Sequence[Place]) -> list[Place]:
    """Return the places of whole layers: the branches of a block are one."""
    return [
        replace(each, label=each.label.removesuffix(f" branch {each.branch}"), branch=0)
        for each in places
        if each.branch < 2
    ]


def read_place(text: str) -> list[Place]:
    """Read `swin_t.1`, or `dim=96,heads=3,grid=56x56`, and after that `keys=7x7` and `prefix=1`.

    Raises:
        ValueError: in one line, for anything else.
    """
    if "=" not in text:
        name, dot, stage = text.rpartition(".")
        if not dot or not stage.isdecimal():
            raise ValueError(f"cannot read --site {text!r}; write it as in swin_t.1 or {SITE}")
        return places_of(name, int(stage))
    values = {}
    for pair in text.split(","):
        key, _, value = pair.partition("=")
        pattern = r"(\d+)x(\d+)" if key in ("grid", "keys") else r"(\d+)"
        match = re.fullmatch(pattern, value)
        if key not in ("dim", "heads", "grid", "keys", "prefix") or key in values or match is None:
            raise ValueError(f"cannot read {pair!r} of --site; write it as in {SITE},keys=7x7,prefix=1")
        values[key] = tuple(map(int, match.groups()))
    if missing := {"dim", "heads", "grid"} - set(values):
        raise ValueError(f"--site {text}: {', '.join(sorted(missing))} is missing, as in {SITE}")
    if 0 in (*values["dim"], *values["heads"], *values["grid"], *values.get("keys", ())):
        raise ValueError(f"--site {text}: sizes are numbers from 1 up")
    (dim,), (heads,), (prefix,) = values["dim"], values["heads"], values.get("prefix", (0,))
    queries, keys = (
        Grid(height, width, prefix) for height, width in (values["grid"], values.get("keys", values["grid"]))
    )
    return [Place(text, Site(dim, heads, queries, keys))]

"""The classifier interface of the five families: features, a head that can be replaced, and the rest timm expects.

Methods and attributes have the names of timm's models, so that its scripts and what builds on it (detectors, layer-wise
learning rates) can use ours. Parameters are not named here: each family keeps its official names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from attentions import Grid
from backbones._layers import init_weights, to_image
from backbones._linear import Linear
from backbones._spec import BackboneSpec

WITH_PREVIOUS = (99999,)
"""timm's mark, in a group matcher, for a parameter that belongs to the layer before it."""


class Level(NamedTuple):
    """A point where features can be read: a stage of a pyramid, a block of a DeiT.

    `module` is the name of its last module, `reduction` the pixels per token in each direction.
    """

    module: str
    channels: int
    reduction: int
    grid: Grid


class Backbone(nn.Module):
    """(B, in_channels, H, W) -> logits (B, num_classes), by levels.

    A family defines each level (`level`), and keeps its classifier in `head`. Images must have the size of the spec:
    position tables, windows and reductions depend on it.
    """

    head: nn.Module
    norm: nn.Module | None
    never_used: tuple[str, ...] = ()
    """Names of parameters that no output depends on."""

    def __init__(self, spec: BackboneSpec, levels: Sequence[Level]) -> None:
        super().__init__()
        self.spec = spec
        self.levels = tuple(levels)
        self.feature_info = [
            {"num_chs": level.channels, "reduction": level.reduction, "module": level.module} for level in levels
        ]
        self.num_features = self.head_hidden_size = levels[-1].channels
        self.num_classes, self.in_chans = spec.num_classes, spec.in_channels
        self.output_fmt = "NLC" if self.num_prefix_tokens else "NHWC"
        self.global_pool = "token" if self.num_prefix_tokens else "avg"
        height, width = spec.image_size
        self.wrong_size = f"{spec.name} was built for images of {height}x{width}; other sizes need another image_size"
        self.head_drop: nn.Module = nn.Identity()
        self.grad_checkpointing = False

    @property
    def num_prefix_tokens(self) -> int:
        return self.levels[-1].grid.prefix

    def level(self, index: int, x: Tensor) -> Tensor:
        """Return the tokens (B, N, C) of a level from those of the level before it, or from the image."""
        raise NotImplementedError

    def last_norm(self, x: Tensor) -> Tensor:
        """Apply what lies between the last level and the pooling."""
        assert self.norm is not None
        return self.norm(x)

    def keep_levels(self, count: int) -> None:
        """Remove the modules of all levels but the first `count`."""
        raise NotImplementedError

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return patterns that group parameters into layers, from the stem on; `coarse` makes each stage a layer."""
        raise NotImplementedError

    def no_weight_decay(self) -> set[str]:
        """Return the parameters, besides biases and norms, that the official optimiser does not decay."""
        return set()

    def run(self, blocks: Iterable[nn.Module], x: Tensor) -> Tensor:
        """Run the blocks in order; under `set_grad_checkpointing` none keeps its activations for the backward pass."""
        for block in blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.grad_checkpointing else block(x)
        return x

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass, which saves memory and takes time."""
        self.grad_checkpointing = enable

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the features of images after the last norm: a map (B, H, W, C), or, with a class token, tokens
        (B, N, C) that begin with it. Raises AssertionError, as timm's models do, for images of another size."""
        self._check_size(x)
        for index in range(len(self.levels)):
            x = self.level(index, x)
        return self._final_features(x)

    def _check_size(self, x: Tensor) -> None:
        # torch._assert can be traced; a branch cannot.
        height, width = self.spec.image_size
        torch._assert(x.shape[-2] == height, self.wrong_size)
        torch._assert(x.shape[-1] == width, self.wrong_size)

    def _final_features(self, x: Tensor) -> Tensor:
        x = self.last_norm(x)
        grid = self.levels[-1].grid
        return x if grid.prefix else x.unflatten(1, (grid.height, grid.width))

    def _chosen_levels(self, indices: int | Sequence[int] | None) -> list[int]:
        """Return the chosen levels, counted from the start."""
        levels = range(len(self.levels))
        wanted = levels if indices is None else range(-indices, 0) if isinstance(indices, int) else indices
        if not wanted or not all(-len(levels) <= index < len(levels) for index in wanted):
            raise ValueError(f"{self.spec.name} has {len(levels)} levels of features; indices={indices} is not allowed")
        return [levels[index] for index in wanted]

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Return the final features, and those of several levels as maps (B, C, H, W), without prefix tokens.

        Args:
            x: images.
            indices: the levels, negative ones from the end; a number means that many last ones, None all.
            norm: apply the last norm to the levels with its number of channels.
            stop_early: stop at the last of these levels; its tokens are returned in place of the final features.
            output_fmt: NCHW.
            intermediates_only: return only the maps.

        Raises:
            ValueError: for another format, or a level that does not exist.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt={str(output_fmt)!r} is not allowed; features of levels are NCHW")
        chosen = self._chosen_levels(indices)
        count = max(chosen) + 1 if stop_early else len(self.levels)
        maps = []
        self._check_size(x)
        for index in range(count):
            x = self.level(index, x)
            if index in chosen:
                _, channels, _, grid = self.levels[index]
                tokens = self.last_norm(x) if norm and channels == self.num_features else x
                maps.append(to_image(tokens[:, grid.prefix :], grid))
        if intermediates_only:
            return maps
        return (self._final_features(x) if count == len(self.levels) else x), maps

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove modules that these levels do not need; return the levels, counted from the start."""
        chosen = self._chosen_levels(indices)
        count = max(chosen) + 1
        shorter = count < len(self.levels)
        if shorter:
            self.keep_levels(count)
            self.levels = self.levels[:count]
            self.num_features = self.head_hidden_size = self.levels[-1].channels
        if prune_norm or shorter:
            self.norm = nn.Identity()
        if prune_head or shorter:
            self.reset_classifier(0, "")
        left = dict(self.named_parameters())
        self.never_used = tuple(name for name in self.never_used if name in left)
        return chosen

    def pool(self, x: Tensor) -> Tensor:
        """Pool the output of `forward_features` to (B, C), or return it unchanged where `global_pool` is ""."""
        if self.global_pool == "token":
            return x[:, 0]
        if self.global_pool == "avg":
            prefix = self.num_prefix_tokens
            return (x[:, prefix:] if prefix else x.flatten(1, 2)).mean(dim=1)
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Features as of `forward_features` -> logits, or with `pre_logits` what the classifier gets."""
        x = self.head_drop(self.pool(x))
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier, or remove it where `num_classes` is 0; `global_pool` is avg, token or "" (none).

        Raises:
            ValueError: for another pooling, or "token" in a model without a class token.
        """
        if global_pool is not None:
            allowed = ("avg", "token", "") if self.num_prefix_tokens else ("avg", "")
            if global_pool not in allowed:
                choice = " or ".join(map(repr, allowed))
                raise ValueError(f"{self.spec.name}: global_pool={global_pool!r} is not allowed; it takes {choice}")
            self.global_pool = global_pool
        self.num_classes = num_classes
        like = next(self.parameters())
        self.head = (
            Linear(self.num_features, num_classes, device=like.device, dtype=like.dtype)
            if num_classes
            else nn.Identity()
        )
        self.head.apply(init_weights).train(self.training)

"""Swap an attention into a model of timm: its size and costs before and after, and the resulting weights."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn

from attentions import AttentionSpec
from backbones.swap import swap
from harness.cells import Weights
from harness.measures.counters import count_with_torch
from harness.training import checkpoints
from harness.training.loading import load_as
from results.sheets import Sheet

HEADERS = ("", "blocks", "attention", "tokens", "dim", "heads", "params (M)", "GMACs")


@dataclass(frozen=True)
class Swap:
    """An attention to put into the first `first` blocks (None: all) of a model that timm makes with `arguments`."""

    name: str
    attention: AttentionSpec
    arguments: Mapping[str, Any]
    first: int | None = None

    @classmethod
    def of(cls, name: str, attention: str, arguments: Mapping[str, Any], first: int | None) -> Swap:
        """Check and return a swap.

        Raises:
            ValueError: for a model that timm does not have, weights that timm would choose, or an unknown attention.
        """
        architecture = name.partition(".")[0]
        if not timm.is_model(architecture):
            near = difflib.get_close_matches(architecture, timm.list_models(), n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_models('vit*') lists some that it has"
            raise ValueError(f"timm {timm.__version__} has no model {name!r}; {hint}")
        if given := sorted(
            {"checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay"} & set(arguments)
        ):
            raise ValueError(f"--set {given[0]}: weights are given by --checkpoint, and nothing is downloaded")
        return cls(name, AttentionSpec.of(attention), dict(arguments), first)

    def original(self) -> nn.Module:
        """Return the model as timm makes it. Raise ValueError, in one line, if it does not take the arguments."""
        try:
            return timm.create_model(self.name, **self.arguments).eval()
        except (TypeError, ValueError, AssertionError, RuntimeError) as problem:
            why = " ".join(str(problem).split()) or type(problem).__name__
            raise ValueError(f"timm cannot make {self.name} with these values of --set: {why}") from problem

    def sheet(self) -> Sheet:
        """Return the table of the model before and after, counted on the meta device.

        Raises:
            ValueError: if the attention cannot be swapped in, or an operator cannot be counted.
        """
        with torch.device("meta"):
            model, changed = self.original(), swap(self.original(), self.attention, self.first)
        count = self.first or len(changed.blocks)
        site = changed.blocks[0].attn.core.site
        grid = site.queries
        tokens = f"{grid.height}x{grid.width}" + (f"+{grid.prefix}" if grid.prefix else "")
        shape = (tokens, str(site.dim), str(site.heads))
        rows = [
            ["before", f"1-{len(changed.blocks)}", "softmax", *shape, *_counted(model)],
            ["after", f"1-{count}", str(self.attention), *shape, *_counted(changed)],
        ]
        notes = [
            f"{self.name}: {'x'.join(map(str, _image(changed).shape[1:]))} -> {changed.num_classes} classes. "
            "1 multiply-add = 1 MAC; matrix products and convolutions."
        ]
        if grid.prefix:
            notes.append(f"+{grid.prefix}: class and register tokens, which take part in the mixing outside the grid.")
        return Sheet(HEADERS, rows, frozenset(range(3, len(HEADERS))), notes)

    def save(self, weights: Weights | None, out: Path | None) -> str:
        """Load the weights (None: random ones), swap, and write the result to `out`; return a line on what fitted.

        Raises:
            ValueError: for weights that do not fit, or a file that cannot be written.
        """
        model = self.original()

        def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
            # The filter of timm, which resizes position embeddings to the image size.
            return checkpoint_filter_fn(state, model)

        report = None if weights is None else load_as(weights, model, self.name, convert)
        swap(model, self.attention, self.first)
        if out is not None:
            about = {"timm_model": self.name, "attention": str(self.attention), "first": self.first}
            checkpoints.write(out, {"model": model.state_dict(), **about, "arguments": dict(self.arguments)})
        return "weights: random" if report is None else f"weights: {report}"


def _image(model: Any) -> Tensor:
    """Return an image that the model takes, (1, C, H, W), on the meta device."""
    height, width = model.patch_embed.img_size
    return torch.empty(1, model.in_chans, height, width, device="meta")


def _counted(model: Any) -> tuple[str, str]:
    """Return the parameters in millions, and the multiply-adds for one image in 1e9."""
    params = sum(parameter.numel() for parameter in model.parameters())
    macs = count_with_torch(model, _image(model))["products and convolutions"]
    return f"{params / 1e6:.3f}", f"{macs / 1e9:.4f}"

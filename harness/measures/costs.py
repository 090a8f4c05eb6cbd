"""Parameters and multiply-adds of a backbone, counted three ways that must agree.

The model is built on the meta device, so no weights and no activations are in memory (except for a second count on the
CPU where torch cannot trace convolutions otherwise). One multiply-add counts as 1; papers print the same number as
"FLOPs". The three counts of matrix products and convolutions:

* torch: `torch.utils.flop_counter.FlopCounterMode`, halved, which sees the operators as they are dispatched;
* fvcore: `fvcore.nn.FlopCountAnalysis`, which sees the traced graph, with handles for the operators it does not know;
* formula: `backbones.macs`, closed formulas per attention and host, which see only the described shapes.

The two counters are in counters.py. They run one block of each kind that a stage repeats, see repeats.py.
"""

import torch

from attentions import Macs
from backbones import BackboneSpec, build, macs
from harness.cells import Metrics
from harness.measures.counters import Counts, count_with_fvcore, count_with_torch
from harness.measures.meta_device import as_written, without_values
from harness.measures.repeats import each_kind_once

TOLERANCE = 1e-3
"""Largest relative difference between two counts of the same thing."""


def count_costs(spec: BackboneSpec) -> Metrics:
    """Count the parameters and multiply-adds of `spec` on the meta device: the task `Costs`.

    Returns `params` (trainable, used or not), `params_m` (millions), `gmacs` (1e9 multiply-adds of products and
    convolutions), its parts `gmacs_attention`, `gmacs_projections`, `gmacs_convolutions`, `gmacs_mlp`, and besides
    `gmacs_norms` (5 operations per element) and `gmacs_fvcore` (fvcore's total, which papers report: it adds norms and
    interpolation). Raises ValueError where the three counts disagree or an operator is unknown.
    """
    with torch.device("meta"):
        model = build(spec).eval()
    image = torch.empty(1, spec.in_channels, *spec.image_size, device="meta")
    params = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    formula = macs(spec)
    with as_written(), without_values(), each_kind_once(model, image) as times:
        traced, fvcore_total = count_with_fvcore(model, image, times)
        counters = {
            "torch": count_with_torch(model, image, times),
            "fvcore": traced,
            "formula": by_category(formula),
        }
    check_agreement(counters, label=spec.name)
    return {
        "params": params,
        "params_m": params / 1e6,
        "gmacs": formula.total / 1e9,
        "gmacs_attention": formula.attention / 1e9,
        "gmacs_projections": formula.projections / 1e9,
        "gmacs_convolutions": formula.convolutions / 1e9,
        "gmacs_mlp": formula.mlp / 1e9,
        "gmacs_norms": formula.norms / 1e9,
        "gmacs_fvcore": fvcore_total / 1e9,
    }


def by_category(formula: Macs) -> Counts:
    """Return the closed formula in the categories that the counters distinguish."""
    return {
        "products and convolutions": formula.total,
        "attention": formula.attention,
        "projections and mlp": formula.projections + formula.mlp,
        "convolutions": formula.convolutions,
        "norms": formula.norms,
    }


def check_agreement(counters: dict[str, Counts], label: str) -> None:
    """Raise ValueError, naming the categories and the numbers, where two counters differ.

    They may differ by `TOLERANCE` in each category, but not at all in the convolutions.
    """
    wrong = []
    for category in counters["formula"]:
        row = {name: counts[category] for name, counts in counters.items() if category in counts}
        allowed = 0 if category == "convolutions" else TOLERANCE * max(row.values())
        if max(row.values()) - min(row.values()) > allowed:
            wrong.append(f"{category}: " + ", ".join(f"{name} {number:,}" for name, number in row.items()))
    if wrong:
        raise ValueError(f"the counts of multiply-adds of {label} disagree; {'; '.join(wrong)}")

"""Where a runtime goes wrong: the first part of a model whose output differs from eager float32's.

The graphs of the model's beginnings are exported, each up to the output of one part, and compared by bisection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attentions import Attention
from backbones import Backbone
from harness.runtimes.exports import LIMIT, Exportable, exported
from harness.runtimes.gate import Agreement, agreement
from harness.runtimes.sessions import open_session


@dataclass(frozen=True)
class FirstWrong:
    """The part that is wrong while all that was compared before it is right; its name is empty for the whole model.

    `what`: a block, an attention or the like, and the level that it is in. `before`: the part before it.
    """

    name: str
    what: str
    before: str
    agreement: Agreement

    def __str__(self) -> str:
        if not self.name:
            return f"first differs after {self.before}, which is right, by {self.agreement.worst:.1e}"
        right = f"{self.before} before it is right" if self.before else "it is the first part"
        return f"first differs in {self.name} ({self.what}), by {self.agreement.worst:.1e}; {right}"


class Until(nn.Module):
    """The beginning of a module: what the part with this name returns first."""

    def __init__(self, whole: nn.Module, name: str) -> None:
        super().__init__()
        self.whole, self.name = whole, name

    # The first input is named apart: an open batch is declared for each name, and a model has this one only.
    def forward(self, x: Tensor | None, *args: Tensor | None, **kwargs: Tensor | None) -> Tensor:
        outs: list[Tensor] = []
        part = self.whole.get_submodule(self.name)
        handle = part.register_forward_hook(lambda module, given, out: outs.append(out))
        try:
            self.whole(x, *args, **kwargs)
        finally:
            handle.remove()
        # What comes after it is not in the graph, as no output needs it.
        return outs[0]


def first_wrong(
    subject: Exportable,
    format: str,
    *,
    dynamic: bool = False,
    tried: tuple[Tensor | None, ...] | None = None,
    limit: float = LIMIT,
) -> FirstWrong:
    """Return the first part of a module that the runtime of a format computes wrongly, as it does the whole.

    `tried` are the inputs that are compared, if they are not those of the export; `limit` is the time of each export.

    Raises:
        ValueError: where `exported` and `open_session` do, and where the whole is right.
    """
    args = subject.args if tried is None else tried
    names = parts(subject)

    def at(name: str) -> Agreement:
        until = Until(subject.module, name).eval()
        begun = Exportable(until, subject.args, subject.spec, subject.kwargs, f"{subject.at} until {name}")
        session = open_session(exported(begun, format, dynamic=dynamic, limit=limit))
        return agreement(until, session, args, subject.kwargs)

    right, wrong = -1, len(names) - 1
    found = {wrong: at(names[wrong])}
    if found[wrong].right:
        raise ValueError("exported once more, the whole is right")
    while wrong - right > 1:
        middle = (right + wrong) // 2
        found[middle] = at(names[middle])
        if found[middle].right:
            right = middle
        else:
            wrong = middle
    before = names[right] if right >= 0 else ""
    return FirstWrong(names[wrong], _what(subject.module, names[wrong]), before, found[wrong])


def said_of_first_wrong(subject: Exportable, format: str, **how: Any) -> str:
    """Return one line on what `first_wrong`, which has the same arguments, finds, or on why it finds nothing."""
    try:
        return str(first_wrong(subject, format, **how))
    except ValueError as problem:
        return f"the first part that differs is not known: {problem}"


def parts(subject: Exportable) -> list[str]:
    """Return the names of a module's parts in the order in which they are done, its own empty name last.

    They are attentions, what is made of others (blocks, hosts of attentions, MLPs), and what a model has beside its
    levels; a part that runs several times is where it is first done.
    """
    names: dict[str, None] = {}
    handles = []
    for name, module in subject.module.named_modules():
        named = "." not in name and not isinstance(module, nn.Identity)
        if named or isinstance(module, Attention) or any(True for _ in module.children()):

            def done(module: nn.Module, given: Any, out: Any, name: str = name) -> None:
                if isinstance(out, Tensor) and out.is_floating_point():
                    names.setdefault(name)

            handles.append(module.register_forward_hook(done))
    try:
        with torch.inference_mode():
            subject.module(*subject.args, **subject.kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return list(names)


def _what(model: nn.Module, name: str) -> str:
    """Return what a part is, and the level that it is in."""
    part = model.get_submodule(name)
    attentions = any(isinstance(each, Attention) for each in part.modules())
    if isinstance(part, Attention):
        what = "the attention itself"
    elif hasattr(part, "mlp") and attentions:
        what = "a block"
    elif attentions:
        what = "the host of an attention"
    else:
        what = "an MLP" if name.rpartition(".")[2] == "mlp" else type(part).__name__
    levels = model.levels if isinstance(model, Backbone) else ()
    for number, level in enumerate(levels, start=1):
        if f"{name}.".startswith(f"{level.module}."):
            return f"{what}, level {number} of {len(levels)}"
    return what

"""`AttentionSpec`: an attention by name with every option spelled out, to text and back."""

from __future__ import annotations

import ast
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.parameter import is_lazy

from attentions._contract import Attention, Site
from attentions._options import canonical, fits, schema, type_text
from attentions._registry import is_registered, load, lookup, origin, unknown


@dataclass(frozen=True)
class AttentionSpec:
    """An attention by name with every option spelled out, so that equal specs mean equal modules.

    Missing options take the constructor's defaults; `str` gives the canonical text, which `parse` reads.

    Raises:
        ValueError: for an unknown name or option, or a value of the wrong type.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = schema(lookup(self.name))
        for option, value in self.options.items():
            if option not in known:
                raise ValueError(unknown(f"option of {self.name}", option, known))
            annotation = known[option].annotation
            if not fits(value, annotation):
                raise ValueError(f"{self.name}: {option}={value!r} is not allowed; it takes {type_text(annotation)}")
        filled = {
            option: canonical(self.options.get(option, parameter.default), parameter.annotation)
            for option, parameter in known.items()
        }
        object.__setattr__(self, "options", types.MappingProxyType(filled))

    @classmethod
    def parse(cls, text: str) -> AttentionSpec:
        """Read `focused` or `focused(focusing_factor=4, kernel_size=None)`; strings need no quotes."""
        try:
            node = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError):
            raise ValueError(_malformed(text)) from None
        if isinstance(node, ast.Name):
            return cls(node.id)
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.args:
            raise ValueError(_malformed(text))
        options = {}
        for keyword in node.keywords:
            if keyword.arg is None or keyword.arg in options:
                raise ValueError(_malformed(text))
            if isinstance(keyword.value, ast.Name):
                options[keyword.arg] = keyword.value.id
                continue
            try:
                options[keyword.arg] = ast.literal_eval(keyword.value)
            except ValueError:
                raise ValueError(_malformed(text)) from None
        return cls(node.func.id, options)

    @classmethod
    def of(cls, value: AttentionSpec | str) -> AttentionSpec:
        """Return a spec unchanged, or parse one from text."""
        return value if isinstance(value, AttentionSpec) else cls.parse(str(value))

    def build(self, site: Site) -> Attention:
        """Build the module at `site`; under `torch.device("meta")`, without values of its parameters and buffers.

        Raises:
            ValueError: if its mathematics or options do not work there, or the constructor leaves something undone.
        """
        described = torch.get_default_device().type == "meta"
        module = self._describe(site) if described else lookup(self.name)(site, **self.options)
        if "_parameters" not in vars(module):
            raise ValueError("its constructor does not call super().__init__(site)")
        lazy = [name for name, value in (*module.named_parameters(), *module.named_buffers()) if is_lazy(value)]
        if lazy:
            raise ValueError(
                f"no shape before the first forward pass: {', '.join(lazy)}; instead of a lazy module, it takes one "
                "whose shapes the constructor knows from `site`"
            )
        return module.to("meta") if described else module

    def _describe(self, site: Site) -> Attention:
        cls = lookup(self.name)
        try:
            return cls(site, **self.options)
        except ValueError:
            raise
        except Exception:
            # It may have asked for the value of a tensor, as in `for x in torch.linspace(0, 1, heads): x.item()`, which
            # there is on the CPU. Any other error is the same there.
            with torch.random.fork_rng(devices=()), torch.device("cpu"):
                return cls(site, **self.options)

    def __str__(self) -> str:
        inner = ", ".join(f"{option}={value!r}" for option, value in self.options.items())
        return f"{self.name}({inner})" if inner else self.name

    def __hash__(self) -> int:
        return hash(str(self))

    def __reduce__(self) -> tuple[Any, ...]:
        # A process that unpickles this may not have loaded a user's attention yet.
        return _restore, (self.name, dict(self.options), origin(self.name))


def _restore(name: str, options: dict[str, Any], where: str) -> AttentionSpec:
    if not is_registered(name):
        load(where)
    return AttentionSpec(name, options)


def _malformed(text: str) -> str:
    return f"cannot read attention {text!r}; write it as in focused(focusing_factor=4, kernel_size=None)"

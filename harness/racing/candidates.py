"""From texts to candidates of a race: an attention, a preset or a foreign callable, and how it is run.

softmax   focused(kernel_size=None)@compiled   swin_t@bf16   swin_t@onnxruntime   my_kernel.py:attention
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from attentions import PATHS, AttentionSpec, load_file, names, unknown
from backbones import ALIASES, BackboneSpec, preset, presets
from harness.cells.runtime import Mode, Precision
from harness.process.errors import first_line
from harness.runtimes.formats import RUNTIMES, check_installed

Work = Literal["forward", "both", "train"]
"""What is timed: a forward pass without gradients, forward and backward, or a training step with AdamW."""

HOW: dict[str, dict[str, Any]] = {
    "eager": {"mode": "eager"},
    "compiled": {"mode": "compiled"},
    "fp32": {"precision": "fp32"},
    "bf16": {"precision": "bf16"},
    "fp16": {"precision": "fp16"},
    "fused": {"options": {"fused": True}},
    "explicit": {"options": {"fused": False}},
    **{path: {"path": path} for path in PATHS},
    # Their graph is that of torch's operators, and neither compiled nor autocast applies to it.
    **{name: {"runtime": name, "mode": "eager", "path": None} for name in RUNTIMES if name != "torch"},
}
"""What may follow an @, and what it changes: fields of the candidate, or options of its attention."""


@dataclass(frozen=True)
class Foreign:
    """A callable of somebody else's, and what it must equal.

    Of an attention, it takes a `Site` and returns a module or a function (q, k, v) -> out; of a preset, it takes
    nothing and returns a module of images -> logits.
    """

    make: Callable[..., Any]
    reference: AttentionSpec | BackboneSpec


@dataclass(frozen=True)
class Candidate:
    """What is raced, how it is run, and the text that it was given by, which is its label.

    `path`: one of `attentions.PATHS`, if it is forced. `runtime`: one of `RUNTIMES`, which runs it as an exported graph
    unless it is torch.
    """

    label: str
    what: AttentionSpec | BackboneSpec | Foreign
    mode: Mode = "eager"
    precision: Precision = "fp32"
    path: str | None = None
    runtime: str = "torch"

    @property
    def reference(self) -> AttentionSpec | BackboneSpec:
        """The registered thing whose outputs and gradients count as correct: its own, unless it is foreign."""
        return self.what.reference if isinstance(self.what, Foreign) else self.what

    @property
    def is_model(self) -> bool:
        return isinstance(self.reference, BackboneSpec)


def read_candidates(texts: Sequence[str], precision: Precision, reference: str | None) -> list[Candidate]:
    """Read the candidates of a race; the same text may be given twice, which shows what the machine does.

    Args:
        texts: the first one is the baseline.
        precision: of those that do not say theirs.
        reference: the attention or preset that foreign ones must equal.

    Raises:
        ValueError: for fewer than two, what is unknown, models beside layers, a foreign one without a reference.
    """
    if len(texts) < 2:
        raise ValueError("a race takes two candidates or more, as in race softmax focused --at swin_t")
    known = None if reference is None else _registered(reference)
    found = [_read(text, precision, known) for text in texts]
    if len({each.is_model for each in found}) > 1:
        models = ", ".join(each.label for each in found if each.is_model)
        layers = ", ".join(each.label for each in found if not each.is_model)
        raise ValueError(f"models ({models}) and attentions ({layers}) do the same work in no place: race them apart")
    if known is not None and not any(isinstance(each.what, Foreign) for each in found):
        raise ValueError(f"--reference {reference}: no candidate is a foreign one, as in my_kernel.py:attention")
    labels = [each.label for each in found]
    again = {at: labels[:at].count(label) + 1 for at, label in enumerate(labels) if label in labels[:at]}
    return [replace(each, label=f"{each.label} #{again[at]}") if at in again else each for at, each in enumerate(found)]


def check_runtimes(candidates: Sequence[Candidate], work: Work, device: str) -> None:
    """Raise ValueError, in one line, unless all candidates of other runtimes than torch can run as they are asked to.

    That is a forward pass, in float32, on a CPU, of what is ours, where the runtime is installed.
    """
    for each in candidates:
        if each.runtime == "torch":
            continue
        if isinstance(each.what, Foreign):
            raise ValueError(f"{each.label} is foreign: {each.runtime} takes attentions and presets by name")
        if each.precision != "fp32":
            raise ValueError(f"{each.label}: {each.runtime} is raced in fp32, not {each.precision}")
        if work != "forward":
            raise ValueError(f"{each.label}: {each.runtime} has no backward pass: --work forward")
        if device != "cpu":
            raise ValueError(f"{each.label}: {each.runtime} is raced on a CPU, not on {device}")
    check_installed({each.runtime for each in candidates})


def _read(text: str, precision: Precision, reference: AttentionSpec | BackboneSpec | None) -> Candidate:
    # A folder may have an @ in its name: how a foreign callable runs follows its own name.
    path, colon, last = text.rpartition(":")
    name, *how = last.split("@")
    name = f"{path}{colon}{name}"
    fields: dict[str, Any] = {"precision": precision}
    options: dict[str, Any] = {}
    given: dict[str, str] = {}
    for word in how:
        if word not in HOW:
            raise ValueError(f"{text}: {unknown('way to run', word, HOW)}")
        for key in HOW[word]:
            if key in given:
                raise ValueError(f"{text}: @{given[key]} and @{word} contradict each other")
            given[key] = word
        changes = HOW[word]
        fields |= {key: value for key, value in changes.items() if key != "options"}
        options |= changes.get("options", {})
    what: AttentionSpec | BackboneSpec | Foreign
    if colon:
        if reference is None:
            raise ValueError(
                f"{text} is foreign: name the attention or preset that it must equal, as in --reference softmax"
            )
        what = Foreign(_callable(path, name.rpartition(":")[2]), reference)
    else:
        what = _registered(name)
    if options:
        if not isinstance(what, AttentionSpec) or not set(options) <= set(what.options):
            raise ValueError(f"{text}: @{given['options']} is for attentions with the option {', '.join(options)}")
        what = AttentionSpec(what.name, {**what.options, **options})
    return Candidate(text, what, **fields)


def _registered(text: str) -> AttentionSpec | BackboneSpec:
    """Return an attention or a preset by name, with options or overrides in brackets."""
    name = text.partition("(")[0].strip()
    if name in presets() or name in ALIASES:
        return preset(name, **_overrides(text))
    if name in names():
        return AttentionSpec.parse(text)
    if text.endswith(".py"):
        raise ValueError(f"{text} is a file: add the name of the callable in it, as in {text}:attention")
    summary = "attentions and backbones of `attention-bench list`, or file.py:callable"
    raise ValueError(unknown("candidate", name, [*names(), *presets()], summary=summary))


def in_model(candidate: Candidate, backbone: str, side: int | None = None) -> Candidate:
    """Return an attention as the model that a preset, with overrides in brackets or not, is with it.

    `side`: of its square images, from which it derives what it derives from an image size; default: its own.

    Raises:
        ValueError: where `backbone` is no preset, the candidate no attention of ours, or the two do not fit.
    """
    if not isinstance(candidate.what, AttentionSpec):
        raise ValueError(f"--backbone {backbone}: it takes attentions by name, which {candidate.label} is not")
    name = backbone.partition("(")[0].strip()
    if given := {"attention", "image_size"} & set(overrides := _overrides(backbone)):
        option = {"attention": "--attention", "image_size": "--image-size"}[min(given)]
        raise ValueError(f"--backbone {backbone}: {min(given)} is what {option} says")
    image = {} if side is None else {"image_size": side}
    return replace(candidate, what=preset(name, attention=candidate.what, **image, **overrides))


def _overrides(text: str) -> dict[str, Any]:
    """Read `swin_t(attention=focused(kernel_size=3), window=56)`; names and calls stay texts."""
    problem = f"cannot read the preset {text!r}; write it as in swin_t(attention=focused, image_size=384)"
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        raise ValueError(problem) from None
    if isinstance(node, ast.Name):
        return {}
    if not isinstance(node, ast.Call) or node.args or any(each.arg is None for each in node.keywords):
        raise ValueError(problem)
    overrides: dict[str, Any] = {}
    for keyword in node.keywords:
        assert keyword.arg is not None
        try:
            overrides[keyword.arg] = ast.literal_eval(keyword.value)
        except ValueError:
            overrides[keyword.arg] = ast.unparse(keyword.value)
    return overrides


def _callable(path: str, name: str) -> Callable[..., Any]:
    """Return the callable of a file or an installed module. Raises ValueError, in one line, if there is none."""
    if path.endswith(".py"):
        module = load_file(Path(path))
    else:
        try:
            module = importlib.import_module(path)
        except Exception as problem:
            # It is somebody else's code, which may raise anything.
            raise ValueError(f"module {path!r} cannot be loaded: {first_line(problem)}") from problem
    found = getattr(module, name, None)
    if not callable(found):
        raise ValueError(f"{path} has no callable {name!r}")
    return found

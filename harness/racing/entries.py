"""A candidate at a place, ready to run: its module, its inputs, the float64 reference and the call that is timed.

B batch entries (images times windows), N queries, M keys, C channels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from attentions import Attention, AttentionSpec, lookup, using_path
from backbones import BackboneSpec, build
from backbones import macs as macs_of
from harness.cells import Runtime
from harness.cells.runtime import AUTOCAST, Workload
from harness.measures.counters import count_with_torch
from harness.measures.memory import held
from harness.measures.roofline import Needed
from harness.measures.speed import autocast_of, prepared
from harness.racing.candidates import Candidate, Foreign, Work
from harness.racing.layers import layer_of, own_name, takes_before_norm, with_cores
from harness.racing.places import Place
from harness.runtimes.exports import Exportable
from harness.runtimes.sessions import Deployed

NOISE = 0.02
"""Standard deviation of what is added to every parameter: those that start as zeros or equal would hide mistakes."""


@dataclass(frozen=True)
class Entry:
    """A module with its arguments, as it is raced.

    `own` is the module of the project that it must equal, with the same parameters: itself unless it is foreign.
    Arguments that require gradients are those whose gradients are compared; `runtime` has the candidate's precision and
    mode, and a batch of images. `towards`: the gradients of outputs in the calls that were made of it.
    """

    candidate: Candidate
    module: nn.Module
    own: nn.Module
    runtime: Runtime
    args: tuple[Tensor | None, ...]
    kwargs: dict[str, Tensor | None] = field(default_factory=dict)
    towards: list[Tensor] = field(default_factory=list)

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """Its parameters, by the names that `own` has for them."""
        return {own_name(name): each for name, each in self.module.named_parameters()}

    @property
    def leaves(self) -> dict[str, Tensor]:
        """The arguments that have gradients, by name."""
        given = {**dict(zip(self._names, self.args, strict=False)), **self.kwargs}
        return {name: x for name, x in given.items() if x is not None and x.requires_grad}

    @property
    def _names(self) -> tuple[str, ...]:
        return ("q", "k", "v") if len(self.args) == 3 and self.args[1] is not None else ("x", "mask", "regions")

    @property
    def held(self) -> list[Tensor]:
        """What lies in memory from call to call: parameters, buffers, arguments, and what `call` sends backward."""
        given = (x for x in (*self.args, *self.kwargs.values()) if x is not None)
        return [*held(self.module), *given, *self.towards]

    def run(self) -> Callable[[], Tensor]:
        """Return the forward pass as it is raced: compiled or not, under autocast or not."""
        compiled = self.runtime.mode == "compiled"
        forward = torch.compile(self.module, dynamic=False) if compiled else self.module
        autocast = autocast_of(self.runtime)

        def call() -> Tensor:
            with autocast, forced(self.candidate.path):
                out: Tensor = forward(*self.args, **self.kwargs)
            return out

        return call

    def exact(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the output of `own` in float64 on the same arguments, and what its gradients are wanted of."""
        module = copy.deepcopy(self.own).double().train(self.module.training)

        def wide(x: Tensor | None) -> Tensor | None:
            if x is None or not x.is_floating_point():
                return x
            return x.detach().double().requires_grad_(x.requires_grad)

        twin = replace(
            self,
            module=module,
            args=tuple(map(wide, self.args)),
            kwargs={name: wide(x) for name, x in self.kwargs.items()},
        )
        return module(*twin.args, **twin.kwargs), {**twin.leaves, **twin.parameters}

    def needed(self, work: Work) -> Needed:
        """Return what it must move and do at least; the operations are those of the closed formula of `own`.

        A backward pass has twice the operations of the forward pass, and the gradient of each input, parameter and
        output. AdamW reads and writes two more numbers per parameter, and writes the parameter.
        """
        spec = self.candidate.reference
        given = [x for x in (*self.args, *self.kwargs.values()) if x is not None]
        first = given[0]
        if isinstance(spec, BackboneSpec):
            macs, out = macs_of(spec).total * len(first), 4 * len(first) * spec.num_classes
        else:
            out = first.nbytes
            own = self.own
            macs = own.macs().total * len(first) if isinstance(own, Attention) else _counted(own, self.args)
        parameters = sum(each.nbytes for each in self.parameters.values())
        moved = sum(x.nbytes for x in given) + parameters + out
        if work != "forward":
            moved += sum(x.nbytes for x in self.leaves.values()) + parameters + out
        if work == "train":
            moved += 5 * parameters
        return Needed(moved, 2 * macs * (1 if work == "forward" else 3))

    def call(self, work: Work) -> Callable[[], Any]:
        """Return what is timed; of a model, the call that is timed for the records of speeds, too."""
        spec = self.candidate.reference
        if isinstance(spec, BackboneSpec):
            (images,) = self.args
            assert images is not None
            labels = torch.randint(spec.num_classes, (len(images),), device=images.device)
            timed: Workload | Literal["both"] = "infer" if work == "forward" else work
            step = prepared(self.module, images, labels, self.runtime, timed, fused=self.runtime.device == "cuda")

            def on_its_path() -> Tensor:
                with forced(self.candidate.path):
                    return step()

            return on_its_path
        run = self.run()
        if work == "forward":
            return torch.inference_mode()(run)
        wanted = [*self.leaves.values(), *self.parameters.values()]
        towards = torch.randn_like(run())
        self.towards.append(towards)

        def both() -> Tensor:
            for x in wanted:
                x.grad = None
            out = run()
            out.backward(towards)
            return out.detach()

        return both


def forced(path: str | None) -> AbstractContextManager[None]:
    """Force one of `attentions.PATHS`, or none."""
    return nullcontext() if path is None else using_path(path)


def entered(
    candidate: Candidate, place: Place | None, work: Work, runtime: Runtime, *, layer: bool = False, seed: int = 0
) -> Entry:
    """Build a candidate at a place, or a model (place None); inputs and parameters depend on the seed alone.

    `layer`: with the projections of the preset's block around it. Raises whatever a foreign callable raises, and
    ValueError where an attention cannot be mounted.
    """
    runtime = replace(runtime, mode=candidate.mode, precision=candidate.precision)
    # Not those of a GPU: all is drawn on the CPU, so that it is the same on every device.
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        if isinstance(candidate.reference, BackboneSpec):
            entry = _model(candidate, candidate.reference, runtime)
        elif layer:
            assert place is not None
            entry = _layer(candidate, candidate.reference, place, runtime)
        else:
            assert place is not None
            entry = _core(candidate, candidate.reference, place, runtime)
    entry.module.train(work != "forward")
    return entry if candidate.runtime == "torch" else _deployed(entry, "" if place is None else place.label)


def _deployed(entry: Entry, at: str) -> Entry:
    """Return an entry whose module is run by the runtime of its candidate."""
    subject = Exportable(entry.module, entry.args, entry.candidate.reference, entry.kwargs, at)
    return replace(entry, module=Deployed(subject, entry.candidate.runtime))


def check_layers(places: Sequence[Place]) -> None:
    """Raise ValueError unless there is a layer around an attention under test at each of the places."""
    for place in places:
        if place.spec is None:
            raise ValueError(f"{place.label} has no layer: --layer layer takes --at swin_t or --site swin_t.1")
        if not place.spec.mounts_of(place.stage - 1)[0].tested:
            raise ValueError(f"{place.label}: its blocks are softmax's own; --layer layer takes a stage under test")


def _core(candidate: Candidate, spec: AttentionSpec, place: Place, runtime: Runtime) -> Entry:
    site = place.site
    own = _stirred(spec.build(site))
    module = _foreign(candidate, own, site) if isinstance(candidate.what, Foreign) else own
    batch = runtime.batch * place.groups
    torch.manual_seed(1)  # the same inputs, however many numbers the parameters have taken
    q, k, v, x = (
        _leaf((batch, tokens, site.dim), runtime)
        for tokens in (site.queries.tokens, site.keys.tokens, site.keys.tokens, site.queries.tokens)
    )
    kwargs: dict[str, Tensor | None] = {"x": x} if lookup(spec.name).takes_input else {}
    return Entry(candidate, module.to(runtime.device), own.to(runtime.device), runtime, (q, k, v), kwargs)


def _layer(candidate: Candidate, spec: AttentionSpec, place: Place, runtime: Runtime) -> Entry:
    """The host module of a block: it gets what the model gives it, but for its tokens, which are drawn."""
    assert place.spec is not None
    model_spec = replace(place.spec, attention=spec)
    own, (groups, *tokens), others = layer_of(_stirred(build(model_spec)), model_spec, place.stage)
    torch.manual_seed(1)
    shape, exact = (runtime.batch * groups, *tokens), replace(runtime, precision="fp32")
    args = (_leaf(shape, exact), *(None if each is None else each.to(runtime.device) for each in others))
    kwargs: dict[str, Tensor | None] = {"before_norm": _leaf(shape, exact)} if takes_before_norm(model_spec) else {}
    module = own
    if isinstance(candidate.what, Foreign):
        module = with_cores(own, lambda core: _foreign(candidate, core, core.site))
    return Entry(candidate, module.to(runtime.device), own.to(runtime.device), runtime, args, kwargs)


def _model(candidate: Candidate, spec: BackboneSpec, runtime: Runtime) -> Entry:
    own = _stirred(build(spec))
    module = _foreign(candidate, own) if isinstance(candidate.what, Foreign) else own
    torch.manual_seed(1)
    images = torch.randn(runtime.batch, spec.in_channels, *spec.image_size).to(runtime.device)
    return Entry(candidate, module.to(runtime.device), own.to(runtime.device), runtime, (images,))


def _leaf(shape: tuple[int, ...], runtime: Runtime) -> Tensor:
    """Return standard normal numbers in the type that projections under autocast give."""
    return torch.randn(shape).to(runtime.device, AUTOCAST[runtime.precision] or torch.float32).requires_grad_()


def _stirred(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=NOISE)
    return module


class _Around(nn.Module):
    """A layer as a module of its tokens alone."""

    def __init__(self, layer: nn.Module, rest: tuple[Tensor | None, ...]) -> None:
        super().__init__()
        self.layer, self.rest = layer, rest

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x, *self.rest)
        return out


def _counted(layer: nn.Module, args: tuple[Tensor | None, ...]) -> int:
    """Return the multiply-adds of a layer, of products and convolutions, counted in one forward pass."""
    (x, *rest) = args
    assert x is not None
    return count_with_torch(_Around(layer, tuple(rest)), x.detach())["products and convolutions"]


class Function(nn.Module):
    """A foreign function, as a module without parameters."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        return self.function(*args, **kwargs)


def _foreign(candidate: Candidate, own: nn.Module, *given: object) -> nn.Module:
    """Return what a foreign callable makes, with the parameters of `own`.

    Raises ValueError, in one line, unless the names and shapes are the same.
    """
    assert isinstance(candidate.what, Foreign)
    made = candidate.what.make(*given)
    if not callable(made):
        raise ValueError(f"returned a {type(made).__name__}; it must return a module or a function (q, k, v) -> out")
    module = made if isinstance(made, nn.Module) else Function(made)
    ours, theirs = own.state_dict(), module.state_dict()
    for some, others, what in ((ours, theirs, "lacks"), (theirs, ours, "has")):
        if names := sorted(set(some) - set(others)):
            raise ValueError(
                f"{what} {', '.join(names[:5])}{' ...' * (len(names) > 5)}, unlike {candidate.reference}: parameters "
                "are copied by name, all of them"
            )
    if unlike := [name for name in ours if ours[name].shape != theirs[name].shape]:
        raise ValueError(
            f"{unlike[0]} has the shape {tuple(theirs[unlike[0]].shape)}, not {tuple(ours[unlike[0]].shape)}"
        )
    module.load_state_dict(ours)
    return module

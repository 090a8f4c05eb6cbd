"""The laws of state: a module is its parameters and buffers, and depends on nothing else, in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import Tensor

from harness.certificate.subject import SAME, Subject, at, difference, gradients, leaves, require, shown_sites
from harness.measures.meta_device import autocast_on_meta


def state(subject: Subject) -> str:
    """A state dict or a copy reproduces the outputs, a step changes no state, and all state moves with the module."""
    for case in subject.cases:
        with at(case):
            module, other = subject.randomised(case.site, seed=0), subject.randomised(case.site, seed=5)
            before = {name: value.clone() for name, value in module.state_dict().items()}
            inputs = subject.inputs(case)
            out = module.train()(**inputs)
            gradients(out, leaves(inputs))
            for name, value in module.state_dict().items():
                require(name in before, case, f"forward() adds {name} to its state, which the constructor must make")
                require(torch.equal(value, before[name]), case, f"a training step changes {name}")
            other.load_state_dict(before)
            gap = difference(other.eval()(**inputs), module.eval()(**inputs))
            require(
                gap == 0,
                case,
                f"with the state dict of another module the output differs from that module's by {gap:.1e}",
            )
            # Moving averages and scripts do this with a model. Some kernels sum in another order in another layout.
            copy = deepcopy(module).to(memory_format=torch.channels_last)
            gap = difference(copy(**inputs), module(**inputs))
            require(gap < SAME, case, f"the output of a copy in channels-last layout differs by {gap:.1e}")
        with at(f"{case}, moved to another device"), autocast_on_meta():
            copy.to("meta")(**{name: x.to("meta") for name, x in inputs.items()})
    return shown_sites(subject.cases)


def deterministic(subject: Subject) -> str:
    """The same inputs give the same bits, in evaluation and training mode; the same seed gives the same parameters."""
    for case in subject.cases:
        with at(case):
            module, inputs = subject.randomised(case.site), subject.inputs(case)
            for mode in (True, False):
                torch.rand(1, device=subject.device)  # so that the state is not the one that a seed leaves
                generators = _generators()
                runs = [module.train(mode)(**inputs) for _ in range(2)]
                found = [gradients(out, leaves(inputs)) for out in runs]
                named = "training" if mode else "evaluation"
                require(torch.equal(runs[0], runs[1]), case, f"two runs in {named} mode differ")
                require(all(map(torch.equal, *found)), case, f"gradients of two runs in {named} mode differ")
                still = all(map(torch.equal, generators, _generators()))
                require(still, case, f"in {named} mode it advances the random number generator")
            with torch.no_grad():
                gap = difference(module(**inputs), runs[0])
            require(gap < SAME, case, f"without gradients the output differs by {gap:.1e}")
            states = [subject.build(case.site).state_dict() for _ in range(2)]
            for name, value in states[0].items():
                require(torch.equal(value, states[1][name]), case, f"{name} differs although the seed is the same")
    return shown_sites(subject.cases)


def _generators() -> list[Tensor]:
    """Return the state of every random number generator: that of the CPU, and of each GPU."""
    return [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    # As returned by a layer that projects q, k and v together.
    "slices of wider tokens": lambda x: x.repeat_interleave(3, dim=-2).unflatten(-2, (-1, 3))[..., 1, :],
    "every other channel": lambda x: x.repeat_interleave(2, dim=-1)[..., ::2],
    "transposed images": lambda x: x.transpose(-2, -1).contiguous().transpose(-2, -1),
}


def inputs(subject: Subject) -> str:
    """The inputs stay unchanged, and may be views into a larger tensor, as the projections of hosts return."""
    for case in subject.cases:
        with at(case):
            module, given = subject.randomised(case.site), {k: x.detach() for k, x in subject.inputs(case).items()}
            before = {name: x.clone() for name, x in given.items()}
            out = module(**given)
            for name, x in given.items():
                require(torch.equal(x, before[name]), case, f"forward() changes {name} in place")
        for what, view in VIEWS.items():
            with at(f"{case}, inputs that are {what}"):
                gap = difference(module(**{name: view(x) for name, x in given.items()}), out)
                require(gap < SAME, case, f"inputs that are {what} change the output by {gap:.1e}")
    return shown_sites(subject.cases)


def memory(subject: Subject) -> str:
    """Nothing depends on uninitialised memory, which is full of NaN here."""
    for case in subject.cases:
        with at(case), _poisoned():
            module = subject.build(case.site)
            for name, value in module.state_dict(keep_vars=True).items():
                require(bool(value.isfinite().all()), case, f"{name} is not initialised")
            given = {k: x.float() if x.is_floating_point() else x for k, x in subject.inputs(case).items()}
            out = module(**given)
            require(bool(out.isfinite().all()), case, "the output holds uninitialised memory")
            for g in gradients(out, [*leaves(given), *module.parameters()]):
                require(bool(g.isfinite().all()), case, "a gradient holds uninitialised memory")
    return shown_sites(subject.cases)


@contextmanager
def _poisoned() -> Iterator[None]:
    """Fill torch.empty and the like with NaN, which torch does when deterministic algorithms are requested."""
    before, warn = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn)

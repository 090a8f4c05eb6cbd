"""Races: what is wrong gets no number, what is right is measured in turn, and ratios are over the first."""

import math
import random
import shutil
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from attentions import AttentionSpec, temporary_registry, used_paths
from attentions._paths import is_forced
from backbones import _linear, build
from backbones.cswin import CSWin, CSWinSpec
from harness.cells import Runtime
from harness.certificate import definition
from harness.certificate.subject import Subject
from harness.measures.card import CardState
from harness.measures.comparison import Ratio
from harness.measures.quiet import UNWATCHED, Watch
from harness.process.usage import Usage
from harness.racing.candidates import Candidate, Work, read_candidates
from harness.racing.entries import check_layers, entered
from harness.racing.gate import check, lawful
from harness.racing.places import layers_of, places_of, read_place
from harness.racing.race import Measured, Setup, mean_ratio, race

(SMALL,) = read_place("dim=16,heads=2,grid=4x5")

FOREIGN = """
import torch
from torch import nn
from torch.nn import functional as F

def split(x, heads):
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)

def right(site):
    def attend(q, k, v):
        out = F.scaled_dot_product_attention(*(split(x, site.heads) for x in (q, k, v)))
        return out.transpose(1, 2).flatten(2)
    return attend

def unscaled(site):
    def attend(q, k, v):
        out = F.scaled_dot_product_attention(*(split(x, site.heads) for x in (q, k, v)), scale=1.0)
        return out.transpose(1, 2).flatten(2)
    return attend

class WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return 1.001 * grad

def wrong_gradient(site):
    attend = right(site)
    return lambda q, k, v: attend(q, WrongGradient.apply(k), v)

def no_gradient(site):
    attend = right(site)
    return lambda q, k, v: attend(q, k, v).detach()

def nan(site):
    return lambda q, k, v: q * float("nan")

def short(site):
    return lambda q, k, v: q[:, 1:]

def raises(site):
    raise RuntimeError("planted")

def hungry(site):
    def attend(q, k, v):
        raise torch.OutOfMemoryError("out of memory")
    return attend

def three(site):
    return 3

class Linear(nn.Module):
    def __init__(self, site, name="scale"):
        super().__init__()
        self.register_parameter(name, nn.Parameter(torch.ones(site.dim)))

    def forward(self, q, k, v):
        return q

def with_parameters(site):
    return Linear(site)

def model():
    from backbones import build, preset
    return build(preset("deit_micro"))

def wrong_model():
    made = model()
    made.blocks[1].mlp.act = nn.ReLU()
    return made
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "foreign.py"
    path.write_text(FOREIGN)
    return path


def named(*texts: str, reference: str | None = None) -> list[Candidate]:
    return read_candidates(texts, "fp32", reference)


def setup(work: Work = "both", **values: bool) -> Setup:
    return Setup(work, Runtime(batch=2), 1e-3, **values)


def raced(*texts: str, reference: str | None = None, work: Work = "both") -> Measured:
    return race(named(*texts, reference=reference), SMALL, setup(work), lambda line: None, watching=UNWATCHED)


def test_right_candidates_have_ratios_over_the_first() -> None:
    measured = raced("softmax", "focused", "softmax@explicit")
    assert [each.problem for each in measured.results] == [None] * 3
    assert [each.ratio is None for each in measured.results] == [True, False, False]
    assert measured.ran == (0, 1, 2)
    assert measured.rounds is not None
    for at, result in enumerate(measured.results):
        low, middle, high = result.quartiles
        assert 0 < low <= middle <= high
        assert result.saved_mib is not None
        assert result.saved_mib > 0
        assert "naive(): 1" in result.checked
        assert "raced inputs: largest difference" in result.checked
        if result.ratio:
            per_round = [r for block in measured.rounds.quiet.blocks for r in measured.rounds.ratios(at, 0, block)]
            assert len(per_round) == result.ratio.blocks
            assert min(per_round) <= result.ratio.low <= result.ratio.value <= result.ratio.high <= max(per_round)


def test_forward_saves_nothing() -> None:
    assert [each.saved_mib for each in raced("softmax", "focused", work="forward").results] == [None, None]


def test_ratios_are_those_of_the_clock_whatever_the_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples of 1, 2 and 4 s of however many calls: the time of one is a sample's over its calls."""
    numbers = count()
    monkeypatch.setattr("harness.measures.comparison.repeated", lambda call, times: next(numbers))

    def timed(sample: object) -> float:
        return float(2**sample) if isinstance(sample, int) else 0.0

    candidates = named("softmax", "linear", "softmax")
    measured = race(candidates, SMALL, setup(), lambda line: None, timed=timed, watching=UNWATCHED)
    for result, seconds in zip(measured.results, (1, 2, 4), strict=True):
        assert set(result.seconds) == {seconds / result.repeats}
        if result.ratio:
            expected = seconds / result.repeats * measured.results[0].repeats
            assert result.ratio.value == pytest.approx(expected)
            assert result.ratio.low == pytest.approx(expected)
    assert measured.results[2].candidate == "softmax #2"


WRONG = {
    "unscaled": "the output differs from the reference in float64 by",
    "wrong_gradient": "the gradient of k differs from the reference in float64 by 1.0e-03 of its norm",
    "no_gradient": "its output: has no gradient, and --work is not forward",
    "nan": "the output differs from the reference in float64 by inf",
    "short": "output: has the shape (2, 19, 16), not (2, 20, 16)",
    "raises": "RuntimeError: planted",
    "three": "returned a int; it must return a module or a function (q, k, v) -> out",
    "with_parameters": "has scale, unlike softmax(fused=True): parameters are copied by name",
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_gets_no_number(file: Path, name: str) -> None:
    measured = raced("softmax", f"{file}:{name}", f"{file}:right", reference="softmax")
    right, wrong, foreign = measured.results
    assert right.problem is None
    assert WRONG[name] in (wrong.problem or "")
    assert (wrong.seconds, wrong.ratio) == ((), None)
    assert foreign.problem is None
    assert foreign.ratio is not None
    assert measured.ran == (0, 2)


def test_without_gradients_only_outputs_are_compared(file: Path) -> None:
    result = raced("softmax", f"{file}:no_gradient", reference="softmax", work="forward").results[1]
    assert result.problem is None
    assert "output only" in result.checked


def test_a_foreign_one_must_have_the_parameters_of_its_reference(file: Path) -> None:
    result = raced("focused", f"{file}:right", reference="focused").results[1]
    assert "lacks dwc.weight" in (result.problem or "") or "lacks dwc" in (result.problem or "")


def test_running_out_of_memory_is_no_mistake(file: Path) -> None:
    result = raced("softmax", f"{file}:hungry", reference="softmax").results[1]
    assert (result.problem, result.out_of_memory) == ("out of memory", True)


def test_where_the_baseline_is_wrong_there_are_no_ratios(file: Path) -> None:
    measured = raced(f"{file}:nan", "softmax", "linear", reference="softmax")
    assert [each.ratio for each in measured.results] == [None] * 3
    assert measured.results[1].seconds


PLANTED = """
from attentions import Macs, register
from attentions.softmax import SoftmaxAttention

@register("half_wrong")
class HalfWrong(SoftmaxAttention):
    def forward(self, q, k, v, *, bias=None, x=None, regions=None):
        return super().forward(q * 1.01, k, v, bias=bias)
"""


def test_a_registered_one_must_equal_its_naive(tmp_path: Path) -> None:
    (tmp_path / "half_wrong.py").write_text(PLANTED)
    with temporary_registry():
        import attentions

        attentions.load(str(tmp_path / "half_wrong.py"))
        result = raced("softmax", "half_wrong").results[1]
    assert "differs from naive() by" in (result.problem or "")


def test_an_attention_that_cannot_be_there_says_why() -> None:
    (place,) = read_place("dim=18,heads=2,grid=4x5")
    results = race(named("softmax", "mlla"), place, setup(), lambda line: None, watching=UNWATCHED).results
    assert results[0].problem is None
    assert results[1].problem


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("work", ["forward", "both"])
def test_half_precisions_are_compared_with_what_they_allow(precision: str, work: Work) -> None:
    for name in ("softmax", "focused", "mlla", "inline"):
        (candidate, _) = named(f"{name}@{precision}", "softmax")
        entry = entered(candidate, SMALL, work, Runtime(batch=2))
        assert all(x.dtype in (torch.bfloat16, torch.float16) for x in entry.leaves.values())
        check(entry, work)


@pytest.mark.parametrize("preset", ["swin_micro", "deit_micro", "pvt_micro", "pvt_v2_micro"])
def test_layers_have_the_tokens_of_their_model(preset: str) -> None:
    for place in places_of(preset):
        for candidate in named("softmax", "focused"):
            entry = entered(candidate, place, "both", Runtime(batch=2), layer=True)
            check(entry, "both")
            (x,) = entry.leaves.values()
            entries = 2 * place.groups
            assert x.numel() == entries * place.site.queries.tokens * place.site.dim
            assert len(entry.parameters) > len(dict(entered(candidate, place, "both", Runtime(batch=2)).parameters))


def test_where_there_is_no_layer() -> None:
    both = named("softmax", "linear")
    with pytest.raises(ValueError, match=r"^dim=16,heads=2,grid=4x5 has no layer: --layer layer takes --at swin_t"):
        race(both, SMALL, setup(layer=True), print)
    with pytest.raises(ValueError, match="its blocks are softmax's own; --layer layer takes a stage under test"):
        check_layers(places_of("flatten_swin_t"))
    check_layers(places_of("flatten_swin_t", tested=True))
    assert [each.label for each in places_of("flatten_swin_t", tested=True)] == ["flatten_swin_t.1", "flatten_swin_t.2"]


def test_the_layer_of_a_cswin_has_both_branches() -> None:
    places = layers_of(places_of("cswin_micro"))
    assert [each.label for each in places] == [f"cswin_micro.{stage}" for stage in range(1, len(places) + 1)]
    for place in places:
        assert place.spec is not None
        (mount, *_) = place.spec.mounts_of(place.stage - 1)
        for name in ("softmax", "focused", "inline"):
            (candidate, _) = named(name, name)
            entry = entered(candidate, place, "both", Runtime(batch=2), layer=True)
            check(entry, "both")
            (x,) = entry.leaves.values()
            assert x.shape == (2, mount.grid.tokens, mount.dim)
            # A block of the model does the same with these weights, but for its norm.
            model = build(replace(place.spec, attention=AttentionSpec(name)))
            assert isinstance(model, CSWin)
            block = getattr(model, f"stage{place.stage}")[0]
            block.load_state_dict(entry.module.state_dict(), strict=False)
            assert set(dict(block.named_parameters())) >= set(entry.parameters)
            assert torch.equal(block.mix(x, x), entry.module(x))


def test_the_input_before_the_norm_is_another_one_where_the_host_gives_it() -> None:
    (place, *_) = places_of("cswin_micro")
    assert isinstance(place.spec, CSWinSpec)
    (candidate, _) = named("inline", "inline")
    before = replace(place, spec=replace(place.spec, input_before_norm=True))
    leaves = [entered(candidate, at, "both", Runtime(batch=2), layer=True).leaves for at in (place, before)]
    assert [list(each) for each in leaves] == [["x"], ["x", "before_norm"]]
    check(entered(candidate, before, "both", Runtime(batch=2), layer=True), "both")


LAYERS = """
import torch
from torch import nn
from attentions import AttentionSpec

def softmax(site):
    own = AttentionSpec("softmax", {"fused": False}).build(site)
    return lambda q, k, v, bias=None: own(q, k, v, bias=bias)

def without_bias(site):
    own = AttentionSpec("softmax", {"fused": False}).build(site)
    return lambda q, k, v: own(q, k, v)

class Focused(nn.Module):
    def __init__(self, site, factor=1.0):
        super().__init__()
        own = AttentionSpec("focused").build(site)
        for name, parameter in own.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        self.dwc, self.own, self.factor = own.dwc, [own], factor

    def forward(self, q, k, v):
        return self.own[0](q, k, self.factor * v)

def focused(site):
    return Focused(site)

def wrong(site):
    return Focused(site, 1.01)
"""


@pytest.mark.parametrize("preset", ["swin_micro", "deit_micro", "pvt_micro", "cswin_micro"])
def test_a_foreign_one_takes_the_place_of_the_core_in_a_layer(preset: str, tmp_path: Path) -> None:
    (file := tmp_path / "layers.py").write_text(LAYERS)
    for place in layers_of(places_of(preset)):
        for name in ("softmax", "focused"):
            candidates = named(f"{file}:{name}", name, reference=name)
            foreign, own = (entered(each, place, "both", Runtime(batch=2), layer=True) for each in candidates)
            check(foreign, "both")
            assert set(foreign.parameters) == set(own.parameters)
            for key, parameter in own.parameters.items():
                assert torch.equal(foreign.parameters[key], parameter)
                assert foreign.parameters[key] is not parameter
            assert torch.equal(foreign.leaves["x"], own.leaves["x"])
        candidates = named("focused", f"{file}:wrong", f"{file}:focused", reference="focused")
        measured = race(candidates, place, setup(layer=True), lambda line: None, watching=UNWATCHED)
        right, wrong, foreign_ = measured.results
        assert "differs from the reference in float64" in (wrong.problem or "")
        assert (right.problem, foreign_.problem) == (None, None)
        assert foreign_.ratio is not None


def test_a_foreign_one_that_does_not_take_the_bias_of_its_host_has_no_number(tmp_path: Path) -> None:
    (file := tmp_path / "layers.py").write_text(LAYERS)
    (place, *_) = places_of("swin_micro")
    candidates = named("softmax", f"{file}:without_bias", reference="softmax")
    wrong = race(candidates, place, setup(layer=True), lambda line: None, watching=UNWATCHED).results[1]
    assert "unexpected keyword argument 'bias'" in (wrong.problem or "")


@pytest.mark.parametrize("work", ["forward", "both", "train"])
def test_models(file: Path, work: Work) -> None:
    candidates = named(
        "deit_micro",
        "deit_micro(attention=focused)",
        "deit_micro@bf16",
        f"{file}:model",
        f"{file}:wrong_model",
        reference="deit_micro",
    )
    measured = race(candidates, None, setup(work), lambda line: None, watching=UNWATCHED)
    *right, wrong = measured.results
    assert [each.problem for each in right] == [None] * 4
    assert "the output differs from the reference" in (wrong.problem or "")


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="torch.compile needs a C++ compiler")
def test_compiled_candidates_are_compiled() -> None:
    seen: list[bool] = []
    (_, candidate) = named("softmax", "softmax@explicit@compiled")
    entry = entered(candidate, SMALL, "both", Runtime(batch=2))
    forward = entry.module.forward

    def look(*args: Tensor, **kwargs: Tensor) -> Tensor:
        seen.append(torch.compiler.is_compiling())
        out: Tensor = forward(*args, **kwargs)
        return out

    entry.module.forward = look
    entry.call("both")()
    assert set(seen) == {True}
    results = raced("softmax", "softmax@explicit@compiled").results
    assert [each.problem for each in results] == [None, None]
    assert results[1].saved_mib


def test_the_inputs_of_all_candidates_are_the_same() -> None:
    first, second = (entered(each, SMALL, "both", Runtime(batch=2)) for each in named("softmax", "focused"))
    for name in "qkv":
        assert torch.equal(first.leaves[name], second.leaves[name])


def test_heat_marks_a_race_and_a_power_cap_does_not() -> None:
    for throttles, marked in ((("power cap",), False), (("power cap", "heat (hardware)"), True)):
        state = CardState(300.0, 80.0, throttles)
        watching = Watch(lambda: Usage(0.0, 0.0, 0.0), lambda: 1000.0, lambda: None, partial(replace, state))
        measured = race(named("softmax", "linear"), SMALL, setup(), lambda line: None, watching=watching)
        said = "the GPU was slowed down: heat (hardware)" if marked else None
        assert measured.disturbed == said
        assert measured.results[1].ratio is not None
        assert measured.rounds is not None
        assert measured.rounds.quiet.blocks[0].state == state


def test_the_mean_of_ratios_at_several_places() -> None:
    same = mean_ratio([Ratio(2.0, 1.9, 2.1, 10), Ratio(2.0, 1.9, 2.1, 10)])
    assert same.value == pytest.approx(2)
    # Two independent ones are known better than one.
    assert 1.9 < same.low < 2 < same.high < 2.1
    mixed = mean_ratio([Ratio(0.5, 0.4, 0.6, 10, "noise"), Ratio(2.0, 1.9, 2.1, 10)])
    assert mixed.value == pytest.approx(1)
    assert not mixed.decided
    assert mixed.disturbed == "noise"


def test_the_mean_has_the_coverage_that_it_promises() -> None:
    noise, covered, trials, places, sigma = random.Random(0), 0, 2000, 4, 0.1
    for _ in range(trials):
        ratios = []
        for _ in range(places):
            middle = noise.gauss(0, sigma)
            low, value, high = (math.exp(middle + z * sigma) for z in (-1.96, 0, 1.96))
            ratios.append(Ratio(value, low, high, 10))
        mean = mean_ratio(ratios)
        covered += mean.low <= 1 <= mean.high
    assert 0.935 < covered / trials < 0.965


def test_a_path_is_forced_where_there_is_one() -> None:
    (place,) = read_place("dim=32,heads=2,grid=7x7")
    found = race(named("focused@plain", "focused", "softmax@plain"), place, setup("forward"), lambda line: None)
    assert [each.paths for each in found.results] == ["plain", "native", None]
    assert found.results[2].problem == "has no path 'plain' here"


def test_plain_is_what_is_around_a_foreign_implementation(monkeypatch: pytest.MonkeyPatch) -> None:
    """The projections of its layer; it has no other path."""
    monkeypatch.setattr(_linear, "LARGE", 0)
    taken: list[Tensor] = []
    product = _linear._product

    def noted(x: Tensor, *given: Any) -> Tensor:
        assert not is_forced("plain")
        taken.append(x)
        return product(x, *given)

    monkeypatch.setattr(_linear, "_product", noted)
    place = layers_of(places_of("flatten_pvt_t"))[-1]
    before = 0
    for path, problem in (("@plain", None), ("", None), ("@native", "has no path 'native' here")):
        candidates = named("focused@plain", f"tests/plain_forms.py:focused{path}", reference="focused")
        taken.clear()
        ours, theirs = race(candidates, place, setup("forward", layer=True, gate=False), lambda line: None).results
        assert (ours.problem, theirs.problem) == (None, problem)
        # Setting it up takes some by itself.
        assert len(taken) > before
        before = before or len(taken)


def test_each_forced_path_is_compared_with_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself: what one path has passed says nothing of another."""
    ran: list[set[str]] = []
    reference = definition.reference

    def watched(subject: Subject) -> str:
        with used_paths() as paths:
            said = reference(subject)
        ran.append(paths)
        return said

    lawful.cache_clear()
    monkeypatch.setattr("harness.certificate.definition.reference", watched)
    for candidate in named("focused@plain", "focused@native", "focused@plain"):
        check(entered(candidate, SMALL, "forward", Runtime(batch=2)), "forward")
    assert ran == [{"plain"}, {"native"}]

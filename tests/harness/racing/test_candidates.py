"""Texts of candidates and places: what they mean, and what is refused in one line."""

from pathlib import Path

import pytest

from attentions import AttentionSpec, Grid, Site
from backbones import BackboneSpec
from harness.racing.candidates import Foreign, read_candidates
from harness.racing.places import places_of, read_place


def test_ways_to_run_are_read_from_the_end() -> None:
    plain, explicit, compiled = read_candidates(["softmax", "softmax@explicit", "focused@compiled@bf16"], "fp16", None)
    assert plain.what == AttentionSpec("softmax", {"fused": True})
    assert explicit.what == AttentionSpec("softmax", {"fused": False})
    assert (plain.mode, plain.precision) == ("eager", "fp16")
    assert (compiled.mode, compiled.precision) == ("compiled", "bf16")


def test_presets_take_overrides() -> None:
    first, second = read_candidates(
        ["swin_t", "swin_t(attention=focused(kernel_size=3), window=14)@compiled"], "fp32", None
    )
    assert isinstance(first.what, BackboneSpec)
    assert isinstance(second.what, BackboneSpec)
    assert second.what.attention == AttentionSpec("focused", {"kernel_size": 3})
    assert second.is_model


def test_a_foreign_one_may_lie_in_a_folder_with_an_at(tmp_path: Path) -> None:
    folder = tmp_path / "a@fp16"
    folder.mkdir()
    (folder / "mine.py").write_text("def attention(site): ...")
    _, found, module = read_candidates(
        ["softmax", f"{folder / 'mine.py'}:attention@bf16", "operator:itemgetter"], "fp32", "linear"
    )
    assert isinstance(found.what, Foreign)
    assert found.precision == "bf16"
    assert found.reference == AttentionSpec("linear")
    assert isinstance(module.what, Foreign)


REFUSED = {
    "softmax": "a race takes two candidates or more",
    "softmax swin_t": r"models \(swin_t\) and attentions \(softmax\) do the same work in no place",
    "softmax nothing": r"unknown candidate 'nothing' \(allowed: attentions and backbones of",
    "softmax softmx": "did you mean softmax",
    "softmax linear@slow": "linear@slow: unknown way to run 'slow'",
    "softmax linear@bf16@fp16": "linear@bf16@fp16: @bf16 and @fp16 contradict each other",
    "softmax linear@explicit": "linear@explicit: @explicit is for attentions with the option fused",
    "swin_t swin_t@fused": "@fused is for attentions with the option fused",
    "softmax mine.py": "mine.py is a file: add the name of the callable in it",
    "softmax mine.py:attention": "mine.py:attention is foreign: name the attention or preset that it must equal",
    "swin_t swin_t(3)": "cannot read the preset",
    "swin_t swin_t(size=3)": "unknown override of swin_t",
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_is_no_race_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=REFUSED[line]) as problem:
        read_candidates(line.split(), "fp32", None)
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no_module_here:f", "module 'no_module_here' cannot be loaded: No module named"),
        ("math:nothing", "math has no callable 'nothing'"),
        ("math:pi", "math has no callable 'pi'"),
        ("missing.py:f", "there is no Python file 'missing.py'"),
    ],
)
def test_a_foreign_one_that_is_not_there(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_candidates(["softmax", text], "fp32", "softmax")


def test_a_reference_that_nothing_is_compared_with() -> None:
    with pytest.raises(ValueError, match="--reference softmax: no candidate is a foreign one"):
        read_candidates(["softmax", "linear"], "fp32", "softmax")


def test_places_of_a_preset() -> None:
    places = places_of("swin_t")
    assert [place.label for place in places] == ["swin_t.1", "swin_t.2", "swin_t.3", "swin_t.4"]
    assert places[0].site == Site(96, 3, Grid(7, 7), Grid(7, 7))
    assert [place.groups for place in places] == [64, 16, 4, 1]
    assert [place.label for place in places_of("cswin_t", 1)] == ["cswin_t.1 branch 1", "cswin_t.1 branch 2"]


def test_places_by_their_sizes() -> None:
    (place,) = read_place("dim=96,heads=3,grid=56x28,keys=7x7,prefix=1")
    assert place.site == Site(96, 3, Grid(56, 28, 1), Grid(7, 7, 1))
    assert read_place("swin_t.2") == places_of("swin_t", 2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("swin_t", "cannot read --site 'swin_t'; write it as in swin_t.1 or dim=96,heads=3,grid=56x56"),
        ("swin_t.5", "swin_t has no stage 5; allowed: 1, 2, 3, 4"),
        ("nothing.1", "unknown preset 'nothing'"),
        ("dim=96,grid=7x7", "heads is missing"),
        ("dim=96,heads=3,grid=7", "cannot read 'grid=7' of --site"),
        ("dim=96,heads=3,grid=7x0", "sizes are numbers from 1 up"),
        ("dim=96,heads=5,grid=7x7", "5 heads do not divide 96 channels"),
        ("dim=96,heads=3,grid=7x7,dim=9", "cannot read 'dim=9'"),
        ("dim=96,heads=3,grid=7x7,size=9", "cannot read 'size=9'"),
    ],
)
def test_what_is_no_place_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_place(text)

"""The forms that fast attentions are raced against are correct themselves, and are plain."""

import pytest

from attentions import used_paths
from harness.cells import Runtime
from harness.racing.candidates import read_candidates
from harness.racing.entries import entered
from harness.racing.gate import check
from harness.racing.places import read_place
from tests import plain_forms

FILE = "tests/plain_forms.py"


@pytest.mark.parametrize("name", plain_forms.FORMS)
@pytest.mark.parametrize("site", ["dim=32,heads=2,grid=7x7", "dim=24,heads=3,grid=8x6"])
def test_a_form_equals_its_attention(name: str, site: str) -> None:
    _, form = read_candidates([name, f"{FILE}:{name}"], "fp32", name)
    (place,) = read_place(site)
    with used_paths() as used:
        entry = entered(form, place, "both", Runtime(batch=2))
        entry.run()()
    assert not used
    assert "raced inputs" in check(entry, "both")


@pytest.mark.parametrize("name", plain_forms.TIMM)
def test_a_model_of_timms_has_our_parameters(name: str) -> None:
    _, candidate = read_candidates([name, f"{FILE}:timm_{name}"], "fp32", name)
    entry = entered(candidate, None, "forward", Runtime(batch=1))
    (theirs,) = vars(entry.module)["theirs"]
    assert {id(p) for p in entry.module.parameters()} == {id(p) for p in theirs.parameters()}
    assert "raced inputs" in check(entry, "forward")

"""What a refusal calls allowed is allowed: whoever follows the refusals arrives at a model."""

import re
from typing import Any

from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from backbones import preset

ALLOWED = re.compile(r"stage (\d) has a \d+x\d+ map, which .*; allowed for (\w+) there: ([\d, ]+)")

SIDES = st.integers(1, 24)
"""Of the image, in steps of the family: maps from one token to 24 x 24 in the first stage, most of them not square."""

STAGES = {
    "pvt_tiny": ("LLLL", "LLSS", "LMSL1"),
    "pvt_v2_b1": ("LLLL", "LLSS", "MSML1"),
    "swin_t": ("LLLL", "LLSS", "MMSS1", "SSSS", "SLSM1"),
    "cswin_t": ("LLLL", "LLSS", "SMML1", "SSSS"),
}
SETTINGS = {
    "pvt_tiny": ("sr_ratios", "softmax_sr_ratios"),
    "pvt_v2_b1": ("sr_ratios", "softmax_sr_ratios"),
    "swin_t": ("window", "softmax_window"),
    "cswin_t": ("split_size", "softmax_split_size"),
}
STEPS = {"pvt_tiny": 32, "pvt_v2_b1": 7, "swin_t": 4, "cswin_t": 4}


def refusal(name: str, values: dict[str, Any]) -> tuple[int, str, list[int]] | None:
    """The stage, the setting and the numbers of a refusal; None where the model is accepted."""
    said = ""
    try:
        preset(name, **values)
    except ValueError as problem:
        said = str(problem)
    found = ALLOWED.search(said)
    assert bool(found) == bool(said), said
    return (int(found[1]) - 1, found[2], list(map(int, found[3].split(", ")))) if found else None


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_whoever_takes_what_a_refusal_allows_arrives_at_a_model(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(STAGES)), label="preset")
    step = STEPS[name]
    values: dict[str, Any] = {
        "attention": "linear",
        "stages": data.draw(st.sampled_from(STAGES[name]), label="stages"),
        "image_size": (step * data.draw(SIDES, label="height"), step * data.draw(SIDES, label="width")),
    }
    for setting in SETTINGS[name]:
        number = st.integers(1, 30)
        kind = number if name == "swin_t" else st.tuples(number, number, number, number)
        values[setting] = data.draw(kind, label=setting)
    settled = set()
    while (found := refusal(name, values)) is not None:
        stage, setting, allowed = found
        # One window is for all stages; of the others, each stage has its own.
        place = setting if name == "swin_t" else (setting, stage)
        assert place not in settled, f"{setting} of an allowed value is refused: {values}"
        settled.add(place)
        assert allowed == sorted(set(allowed))
        chosen = data.draw(st.sampled_from(allowed), label=f"{setting} of stage {stage + 1}")
        whole = values[setting]
        values[setting] = chosen if name == "swin_t" else (*whole[:stage], chosen, *whole[stage + 1 :])
    event(f"{name}: {len(settled)} refusals")


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(
    st.sampled_from(["cswin_t", "flatten_cswin_t", "flatten_swin_t", "swin_t", "pvt_tiny", "pvt_v2_b0", "deit_t"]),
    st.integers(1, 300),
    st.integers(1, 300),
)
@example("flatten_cswin_t", 115, 225)
def test_an_image_size_that_is_named_as_near_is_allowed(name: str, height: int, width: int) -> None:
    try:
        preset(name, image_size=(height, width))
    except ValueError as problem:
        near = re.search(r"\(near: (\d+)x(\d+)\)", str(problem))
        if near is not None:
            preset(name, image_size=(int(near[1]), int(near[2])))

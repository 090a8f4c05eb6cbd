"""Options and sites that an attention refuses, each in one sentence."""

import pytest

from attentions import AttentionSpec, Grid, Site


@pytest.mark.parametrize(
    "text",
    [
        "performer(features=0)",
        "mlla(kernel_size=2)",
        "linformer(length=0)",
        "nystromformer(landmarks=0)",
        "nystromformer(iterations=0)",
        "nystromformer(kernel_size=4)",
        "soft(side=0)",
        "soft(iterations=0)",
    ],
)
def test_values_that_make_no_sense_are_refused(text, site):
    with pytest.raises(ValueError, match="is not allowed; it takes"):
        AttentionSpec.parse(text).build(site)


def test_a_head_that_cannot_be_turned_both_ways_is_refused():
    site = Site(12, 2, Grid(2, 2), Grid(2, 2))
    with pytest.raises(ValueError, match="a multiple of 4, and here it is 6"):
        AttentionSpec.parse("mlla").build(site)
    AttentionSpec.parse("mlla(rotary=False)").build(site)

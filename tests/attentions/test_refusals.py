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


@pytest.mark.parametrize(("dim", "heads"), [(6, 1), (12, 4)])
def test_channels_that_cannot_be_rotated_both_ways_are_refused(dim, heads):
    site = Site(dim, heads, Grid(2, 2), Grid(2, 2))
    with pytest.raises(
        ValueError, match=f"a multiple of 4 channels .*; here there are {dim} channels, {dim // heads} per "
    ):
        AttentionSpec.parse("mlla").build(site)
    AttentionSpec.parse("mlla(rotary=False)").build(site)

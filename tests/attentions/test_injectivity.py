"""The paper's fact on InLine attention: linear attention confuses a query and its multiples, InLine does not."""

import pytest
import torch

from attentions import AttentionSpec, Grid, Site, implied_map


@pytest.mark.parametrize(("name", "confused"), [("linear", True), ("inline", False), ("softmax", False)])
def test_a_query_and_three_times_that_query(name: str, confused: bool) -> None:
    """arXiv 2412.06590, section 4.1: softmax attention is injective, linear attention is not, InLine is again."""
    site = Site(dim=16, heads=2, queries=Grid(4, 4), keys=Grid(4, 4))
    torch.manual_seed(0)
    q, k, v, x = torch.randn(4, 1, 16, 16, dtype=torch.float64)
    q[:, 1] = 3 * q[:, 0]
    attention = AttentionSpec(name).build(site)
    given = {"x": x} if attention.takes_input else {}
    one, other = implied_map(attention, q, k, v, queries=[0, 1], **given).weights[0].unbind(dim=1)
    apart = float((one - other).abs().max() / one.abs().max())
    assert (apart < 1e-4) == confused, apart

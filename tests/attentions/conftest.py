import pytest

from attentions import Grid, Site


@pytest.fixture
def site() -> Site:
    """A non-square grid, so that swapped height and width show."""
    return Site(dim=32, heads=4, queries=Grid(6, 4), keys=Grid(6, 4))

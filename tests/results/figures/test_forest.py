"""The forest plot has the numbers of `comparisons`."""

from typing import Any

import pandas as pd
import pytest

import results
from results.figures import forest
from results.tables import comparisons
from tests.results.figures.common import FASHION, check, texts_of, values


@pytest.fixture(scope="module")
def compared() -> pd.DataFrame:
    return comparisons(results.read_all(FASHION)[0])


def test_it_draws_the_differences(compared: pd.DataFrame, capfd: Any) -> None:
    figure = forest(compared, "Fashion-MNIST")
    check(figure, capfd)
    expected = compared[compared["difference"].notna()]
    columns = ["attention", "difference", "low", "high", "p_holm", "verdict"]
    pd.testing.assert_frame_equal(figure.data[columns], expected[columns].reset_index(drop=True))
    assert [(p["difference"], p["low"], p["high"]) for p in values(figure, "point")] == list(
        expected[["difference", "low", "high"]].itertuples(index=False, name=None)
    )
    written = texts_of(figure)
    for text in ("Fashion-MNIST", "pvt_v2_micro", "focused(kernel_size=None)", "difference from softmax in points"):
        assert text in written
    assert "+0.66 (+0.25 to +1.08), p = 0.032" in written
    assert all(p["fill"] != "white" for p in values(figure, "point")), "each is better"


def test_what_cannot_be_told_apart_is_hollow(compared: pd.DataFrame) -> None:
    changed = compared.assign(
        verdict=["baseline", "better, but practically equal within 5 points", "not distinguishable", "one seed"],
        paired_seeds=pd.array([None, 5, 5, 1], dtype="Int64"),
    )
    figure = forest(changed)
    assert [p["fill"] == "white" for p in values(figure, "point")] == [False, True, True]
    assert any("not the noise of the seed" in line for line in figure.notes)


def test_rows_without_a_partner_are_named(compared: pd.DataFrame) -> None:
    changed = compared.copy()
    changed.loc[3, ["difference", "low", "high"]] = float("nan")
    changed.loc[3, "verdict"] = "no common seed"
    figure = forest(changed)
    assert len(figure.data) == 2
    assert "Left out: pvt_v2_micro linear: no common seed." in figure.notes
    with pytest.raises(ValueError, match=r"no difference to draw.*baseline, better, no common seed"):
        forest(changed.assign(difference=float("nan")))


def test_groups_are_panels(compared: pd.DataFrame) -> None:
    longer = compared.assign(**{"train.recipe.epochs": 300})
    figure = forest(pd.concat([compared, longer], ignore_index=True))
    assert list(dict.fromkeys(figure.data["panel"])) == ["pvt_v2_micro, epochs 3", "pvt_v2_micro, epochs 300"]

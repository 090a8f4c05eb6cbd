"""The races in results/speed: each holds its command, and the page is made of them."""

import pytest

from attentions import names
from tests.results.speed_page import FOLDER, LARGEST, REASONS, inputs, page, races, time_per_operation


def test_the_page_is_made_of_the_races() -> None:
    assert (FOLDER / "README.md").read_text() == page()


@pytest.mark.parametrize("race", [race for _, race in races()], ids=[path.stem for path, _ in races()])
def test_what_is_published_is_decided_and_of_a_commit(race: dict) -> None:
    assert race["command"].startswith("attention-bench race ")
    rows = [row for place in race["places"] for row in place["results"]]
    assert not any(row["problem"] for row in rows)
    assert all(row["own_share"] < 0.01 for row in rows)
    assert len({row["candidate"] for row in rows}) > 1


def test_who_takes_long_per_multiply_add_has_a_reason() -> None:
    long = set()
    for path, race in races():
        if not path.stem.startswith("zoo"):
            continue
        baselines = [place["results"][0] for place in race["places"]]
        assert {row["candidate"] for row in baselines} == {"linear"}
        for place, baseline in zip(race["places"], baselines, strict=True):
            assert {row["candidate"] for row in place["results"]} == set(names()), "all of them"
            long |= {row["candidate"] for row in place["results"] if time_per_operation(row, baseline) > LARGEST}
    assert long == set(REASONS)


def test_the_input_is_raced_with_timms() -> None:
    assert inputs()
    for _, race in inputs():
        assert race["command"].startswith("attention-bench data race photographs ")
        assert [row["input"] for row in race["results"]] == ["timm", "pillow", "tensor"]

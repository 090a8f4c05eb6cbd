"""The races in results/speed: each holds its command, and the page is made of them."""

import pytest

from tests.results.speed_page import FOLDER, page, races


def test_the_page_is_made_of_the_races() -> None:
    assert (FOLDER / "README.md").read_text() == page()


@pytest.mark.parametrize("race", [race for _, race in races()], ids=[path.stem for path, _ in races()])
def test_what_is_published_is_decided_and_of_a_commit(race: dict) -> None:
    assert race["command"].startswith("attention-bench race ")
    rows = [row for place in race["places"] for row in place["results"]]
    assert not any(row["problem"] for row in rows)
    assert all(row["own_share"] < 0.01 for row in rows)
    assert len({row["candidate"] for row in rows}) > 1

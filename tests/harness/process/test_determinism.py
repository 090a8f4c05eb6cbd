from harness.process.determinism import seed_of


def test_seeds_of_neighbours_differ() -> None:
    keys = [(seed, epoch, index) for seed in range(4) for epoch in range(4) for index in range(100)]
    assert len({seed_of(*key) for key in keys}) == len(keys)
    assert seed_of(1, 23) != seed_of(12, 3)

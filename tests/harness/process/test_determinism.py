from harness.process.determinism import derived_seed


def test_seeds_of_neighbours_differ() -> None:
    keys = [(seed, epoch, index) for seed in range(4) for epoch in range(4) for index in range(100)]
    assert len({derived_seed(*key) for key in keys}) == len(keys)
    assert derived_seed(1, 23) != derived_seed(12, 3)

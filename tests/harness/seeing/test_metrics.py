"""What a map is like, by closed forms: uniform maps, one-hot maps, maps of known rank, tokens of known directions."""

import math

import pytest
import torch

from attentions import Grid
from harness.seeing import metrics


def test_ranks_of_known_maps() -> None:
    eye = torch.eye(12, dtype=torch.float64).expand(2, 3, 12, 12)
    assert metrics.ranks(eye) == (12.0, pytest.approx(12.0))
    uniform = torch.full((1, 1, 12, 12), 1 / 12, dtype=torch.float64)
    assert metrics.ranks(uniform) == (1.0, pytest.approx(1.0))
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(1, 2, 30, 4, dtype=torch.float64, generator=generator)
    product = low @ torch.rand(1, 2, 4, 20, dtype=torch.float64, generator=generator)
    rank, effective = metrics.ranks(product)
    assert rank == 4.0
    assert 1 < effective < 4
    # Roy and Vetterli: exp of the entropy of singular values 3 and 1 over their sum.
    two = torch.diag(torch.tensor([3.0, 1.0], dtype=torch.float64)).expand(1, 1, 2, 2)
    assert metrics.ranks(two)[1] == pytest.approx(math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25))))


def test_entropy_and_focus_of_uniform_and_one_hot_maps() -> None:
    uniform = metrics.shares(torch.ones(1, 1, 5, 20, dtype=torch.float64))
    assert metrics.entropy(uniform) == pytest.approx(math.log(20))
    assert metrics.focus(uniform) == pytest.approx(0.1)
    one_hot = metrics.shares(torch.eye(20, dtype=torch.float64).expand(1, 1, 20, 20))
    assert metrics.entropy(one_hot) == 0
    assert metrics.focus(one_hot) == 1
    assert metrics.focus(metrics.shares(torch.ones(1, 1, 5, 3, dtype=torch.float64))) == pytest.approx(1 / 3)


def test_negative_weights_count_by_their_size_and_nothing_is_shared_evenly() -> None:
    shares = metrics.shares(torch.tensor([[[[-3.0, 1.0], [0.0, 0.0]]]], dtype=torch.float64))
    assert shares.flatten().tolist() == [0.75, 0.25, 0.5, 0.5]


def test_distance_is_in_pixels_between_the_middles_of_cells() -> None:
    places = metrics.centres(Grid(2, 2), 8.0, 4.0)
    assert places.tolist() == [[2, 1], [6, 1], [2, 3], [6, 3]]
    itself = torch.eye(4, dtype=torch.float64).unsqueeze(0)
    assert metrics.distance(itself, places, places) == 0
    right = torch.zeros(1, 4, 4, dtype=torch.float64)
    right[0, 0, 1] = right[0, 1, 0] = right[0, 2, 3] = right[0, 3, 2] = 1
    assert metrics.distance(right, places, places) == pytest.approx(4.0)
    half = torch.zeros(1, 1, 4, dtype=torch.float64)
    half[0, 0, 0] = 0.25  # the rest is at the class token, which has no place
    half[0, 0, 2] = 0.25
    assert metrics.distance(half, places[:1], places) == pytest.approx(1.0)


def test_similarity_of_heads() -> None:
    one = torch.rand(3, 1, 6, 6, dtype=torch.float64)
    assert metrics.head_similarity(one) is None
    assert metrics.head_similarity(one.repeat(1, 4, 1, 1)) == pytest.approx(1.0)
    apart = torch.zeros(1, 2, 2, 2, dtype=torch.float64)
    apart[0, 0, 0, 0] = apart[0, 1, 1, 1] = 1
    assert metrics.head_similarity(apart) == 0


def test_cosine_of_tokens_is_that_of_all_pairs() -> None:
    tokens = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(0))
    pairs = [
        float(torch.nn.functional.cosine_similarity(image[i], image[j], dim=0))
        for image in tokens.double()
        for i in range(7)
        for j in range(7)
        if i != j
    ]
    assert metrics.token_cosine(tokens) == pytest.approx(sum(pairs) / len(pairs))
    assert metrics.token_cosine(torch.ones(1, 4, 3)) == pytest.approx(1.0)

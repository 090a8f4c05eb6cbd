"""What a graph in int8 loses: which images only one of the two has right, and what follows from them."""

import pytest
import torch
from torch import Tensor

from backbones import build, preset
from harness.cells import DataSource, Preprocessing
from harness.runtimes.sessions import Session
from harness.training.deployed import ImagesOf, Loss, _InBatches

SOURCE = DataSource("fashion_mnist_14k")


def loss(own_alone: int, int8_alone: int) -> Loss:
    return Loss(2000, "list", 90.0, 90.0 + (int8_alone - own_alone) / 20, own_alone, int8_alone)


def test_a_loss_is_paired_and_wrong_where_more_than_a_point_is_certain() -> None:
    few = loss(12, 5)
    assert few.right
    assert str(few).startswith("right: top-1 89.65 %, 90.00 % in float32, -0.35 points (-0.")
    assert str(few).endswith("of 2,000 val images 12 are right in float32 alone, 5 in int8 alone")
    plain = few.plain()
    assert plain["points"] == pytest.approx(-0.35)
    assert plain["points_low"] < -0.35 < plain["points_high"]
    assert 0.05 < plain["p"] < 0.15
    # Two points are lost, and it may be one; then it is certain.
    assert loss(45, 15).right
    many = loss(100, 20)
    assert not many.right
    assert str(many).startswith("wrong, as more than 1 point is lost: ")
    assert many.plain()["right"] is False


def test_images_of_a_set_and_a_session_that_turns_some_of_them() -> None:
    spec = preset("deit_micro")
    torch.manual_seed(0)
    model = build(spec).eval()
    images = ImagesOf(SOURCE, spec, Preprocessing())
    some = images.some(11, 4)
    assert some.shape == (2, 4, spec.in_channels, *spec.image_size)
    assert (images.some(11, 4) == some).all()
    with pytest.raises(ValueError, match="fashion_mnist_14k has 12,000 train images; 12,001 are asked for"):
        images.some(12_001, 1)

    def turned(args: tuple[Tensor | None, ...], kwargs: dict[str, Tensor | None]) -> Tensor:
        (given,) = args
        assert given is not None
        assert len(given) == 150
        out: Tensor = model(given)
        return torch.where(torch.arange(len(out))[:, None] % 2 == 0, out, -out)

    found = images.lost(model, Session(turned, {}), 150)
    assert found.images == 2000
    assert found.own_alone > 0
    assert found.top1_int8 - found.top1 == pytest.approx((found.int8_alone - found.own_alone) / 20)
    same = images.lost(model, Session(lambda args, kwargs: model(*args), {}), None)
    assert (same.own_alone, same.int8_alone) == (0, 0)
    assert same.top1 == same.top1_int8 == found.top1


def test_a_graph_of_so_many_images_gets_so_many() -> None:
    seen: list[int] = []

    def twice(args: tuple[Tensor | None, ...], kwargs: dict[str, Tensor | None]) -> Tensor:
        (given,) = args
        assert given is not None
        seen.append(len(given))
        return 2 * given

    x = torch.arange(7.0)[:, None]
    assert torch.equal(_InBatches(Session(twice, {}), 3)(x), 2 * x)
    assert seen == [3, 3, 3]

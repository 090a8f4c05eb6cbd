"""Blocks over images: the paper's facts on rank, streaming means, nothing of the model changed."""

import math
import random
from statistics import mean, stdev

import pytest
import torch

from backbones import build, preset
from harness.cells import DataSource, Preprocessing
from harness.seeing.analysis import Analysis, Mean, analysed
from harness.seeing.capture import captured
from harness.seeing.models import viewed
from harness.seeing.places import places_of
from results.statistics import mean_interval
from results.tables import MEASURES
from tests.nightly import LONG


def test_means_that_come_one_by_one_are_those_of_all() -> None:
    values = [random.Random(0).gauss(1e6, 1) for _ in range(50)]
    found = Mean()
    for value in values:
        found.add(value)
    assert (found.number, found.mean, found.deviation) == (
        50,
        pytest.approx(mean(values)),
        pytest.approx(stdev(values)),
    )
    assert math.isnan(Mean().deviation)


@pytest.mark.parametrize(
    ("attention", "without", "together"),
    [
        ("softmax", 196, 196),
        ("focused(kernel_size=None)", 64, 64),
        ("focused", 64, 196),
    ],
)
def test_ranks_in_a_deit_t_are_those_of_the_paper(attention: str, without: int, together: int) -> None:
    """FLatten, arXiv 2308.00442, section 4.2: softmax has full rank, linear attention at most d, with the DWC full."""
    torch.manual_seed(0)
    analysis = Analysis(build(preset("deit_t", attention=attention)))
    analysis.add(torch.randn(1, 3, 224, 224))
    assert {block.kind for block in analysis.blocks} == {"per head"}
    assert [block.metrics["rank"].mean for block in analysis.blocks] == [together] * 12
    assert [block.metrics["rank_attention"].mean for block in analysis.blocks] == [without] * 12


@pytest.mark.parametrize("name", ["deit_micro", "pvt_micro", "pvt_v2_micro", "swin_micro", "cswin_micro"])
def test_every_family_has_every_measure(name: str) -> None:
    torch.manual_seed(0)
    spec = preset(name, attention="focused")
    analysis = Analysis(build(spec))
    images = torch.randn(3, 1, spec.in_channels, *spec.image_size)
    for image in images:
        analysis.add(image)
    rows = analysis.rows()
    assert [(row["stage"], row["block"]) for row in rows] == [(m.stage, m.block) for m in spec.mounts()]
    for row in rows:
        for metric in MEASURES:
            if metric == "head_similarity" and row[metric] is None:
                continue  # one head
            if metric == "convolution_share" and row["attention"].startswith("softmax"):
                assert row[metric] is None
                continue
            assert row[f"{metric}_low"] <= row[metric] <= row[f"{metric}_high"], metric
        assert 0 < row["focus"] <= 1
        assert 0 <= row["entropy"] <= math.log(row["map_keys"]) + 1e-9
        assert 0 < row["attention_time_share"] < row["block_time_share"] < 1
        assert row["rank"] <= min(row["map_rows"], row["map_keys"])


def test_intervals_are_students() -> None:
    spec = preset("deit_micro")
    torch.manual_seed(0)
    model = build(spec)
    images = [torch.randn(1, spec.in_channels, *spec.image_size) for _ in range(4)]
    alone = []
    for image in images:
        one = Analysis(model)
        one.add(image)
        alone.append(one.rows()[0]["entropy"])
    together = Analysis(model)
    for image in images:
        together.add(image)
    row = together.rows()[0]
    assert row["entropy"] == pytest.approx(mean(alone))
    assert (row["entropy_low"], row["entropy_high"]) == pytest.approx(mean_interval(alone))


def test_looking_changes_nothing() -> None:
    spec = preset("swin_micro", attention="focused")
    torch.manual_seed(0)
    model = build(spec).eval()
    image = torch.randn(2, spec.in_channels, *spec.image_size)
    before = model(image)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with captured([place.module for place in places_of(model)]) as calls:
        assert torch.equal(model(image), before)
    assert len(calls) == len(places_of(model))
    Analysis(model).add(image[:1])
    assert torch.equal(model(image), before)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_the_same_images_for_each_model_and_again() -> None:
    models = [
        viewed(preset("deit_micro", attention=name), None, Preprocessing("pad", 1.0)) for name in ("softmax", "xca")
    ]
    source = DataSource("fashion_mnist_14k")
    rows, about = analysed(models, source, 3, seed=1)
    again, same = analysed(models, source, 3, seed=1)
    assert about["images"] == same["images"] != analysed(models, source, 3, seed=2)[1]["images"]
    assert len(about["images"]) == 3
    assert [row["entropy"] for row in rows] == [row["entropy"] for row in again]
    assert {row["model"] for row in rows} == {model.label for model in models}
    assert {row["kind"] for row in rows if row["attention"].startswith("xca")} == {"jacobian"}
    with pytest.raises(ValueError, match=r"has 4,000 val images; 5,000 are asked for|val images; 5,000 are asked for"):
        analysed(models, source, 5000, seed=1)


@LONG
def test_a_deit_t_on_200_images_takes_two_minutes_and_two_gigabytes() -> None:
    import resource
    import time

    torch.manual_seed(0)
    analysis = Analysis(build(preset("deit_t", attention="focused")))
    began = time.monotonic()
    for _ in range(200):
        analysis.add(torch.randn(1, 3, 224, 224))
    assert time.monotonic() - began < 120
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2 * 2**20

"""Files of weights as people have them, and what becomes of them."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import backbones
from harness.training.loading import load_weights, weights_in


def deit(**changes: Any) -> backbones.BackboneSpec:
    size: dict[str, Any] = {"dim": 16, "depth": 2, "heads": 2, "image_size": (16, 16), "num_classes": 3}
    return replace(backbones.preset("deit_micro", attention="focused"), **(size | changes))


def filled(spec: backbones.BackboneSpec, seed: int) -> dict[str, Tensor]:
    """Another number in every place, so that nothing can be taken for something else."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(value.shape, generator=generator)
        for name, value in backbones.build(spec).state_dict().items()
    }


RAW, AVERAGE = filled(deit(), 1), filled(deit(), 2)


def official(state: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    return {prefix + name: value for name, value in backbones.to_official(state, deit()).items()}


def saved(path: Path, content: object, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def loaded(path: Path, spec: backbones.BackboneSpec | None = None, **options: bool) -> dict[str, Tensor]:
    model = backbones.build(spec or deit())
    load_weights(weights_in(path, **options), model, spec or deit())
    return model.state_dict()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def refusal(path: Path, spec: backbones.BackboneSpec | None = None, **options: Any) -> str:
    with pytest.raises(ValueError) as error:
        loaded(path, spec, **options)
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    return message.replace(str(path), "FILE")


def follow(message: str) -> None:
    """Run the code that a refusal gives."""
    (code,) = re.findall(r"(?:from .*?; )?torch\.save\(.*'tensors\.pth'\)", message)
    exec(code, {"torch": torch})

"""Backbones: which tokens meet. Five families, a closed set; each mounts any registered attention."""

from attentions import Macs
from backbones._build import build, from_json, macs
from backbones._model import Backbone
from backbones._spec import BackboneSpec, Mount
from backbones.official import from_official, to_official
from backbones.presets import ALIASES, preset, presets

__all__ = [
    "ALIASES",
    "Backbone",
    "BackboneSpec",
    "Macs",
    "Mount",
    "build",
    "from_json",
    "from_official",
    "macs",
    "preset",
    "presets",
    "to_official",
]

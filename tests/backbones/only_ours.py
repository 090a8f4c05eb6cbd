"""A pytest plugin that runs timm's own model tests on a few models of ours instead of timm's."""

from collections.abc import Sequence

import timm

import backbones
from backbones.timm_models import TIMM_NAMES
from harness.measures.meta_device import autocast_on_meta

MODELS = [*(name for name in backbones.presets() if name.endswith("_micro")), "pvt_v2_b0", "flatten_pvt_v2_b0"]
TOKENS = [name for name in MODELS if backbones.preset(name).mounts()[-1].grid.prefix]

# torch refuses autocast on the meta device, where timm tests shapes and linear attentions compute in float32.
_meta = autocast_on_meta()
_meta.__enter__()


def list_models(
    filter: str | Sequence[str] = "", module: str = "", pretrained: bool = False, exclude_filters: Sequence[str] = (),
    name_matches_cfg: bool = False, include_tags: bool | None = None,
) -> list[str]:  # fmt: skip
    """List models as timm's tests ask for them: features of vision transformers (deit*) are tokens, others maps."""
    if pretrained or (isinstance(filter, str) and filter):
        return []
    chosen = MODELS
    if "deit*" in filter:
        chosen = TOKENS
    elif "deit*" in exclude_filters:
        chosen = [name for name in MODELS if name not in TOKENS]
    return [TIMM_NAMES[name] for name in chosen]


timm.list_models = list_models
timm.list_pretrained = lambda *filters, **options: []

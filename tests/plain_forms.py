"""Attentions as their papers print them, in plain eager operators: what the fast ones are raced against.

They take a `Site` and have the parameters of the registered attention, by name: `attention-bench race
tests/plain_forms.py:focused focused --reference focused --at flatten_swin_t`. The functions named as a model give the
whole model with these in place of its attentions, and `timm_swin_t` and the like timm's own. They mix no regions apart:
hosts that need it are not raced.
"""

import functools
from collections.abc import Callable

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions import Attention, AttentionSpec, Site, lookup, using_path
from attentions.agent import AgentAttention
from backbones import build, preset
from backbones.official import from_timm


def by_heads(x: Tensor, heads: int) -> Tensor:
    """Split (B, N, C) into (B, heads, N, C / heads)."""
    batch, tokens, channels = x.shape
    return x.reshape(batch, tokens, heads, channels // heads).permute(0, 2, 1, 3)


class _Form(Attention):
    positional_encoding: Tensor
    scale: Tensor
    dwc: nn.Conv2d
    residual: nn.ModuleList

    def __init__(self, own: Attention) -> None:
        super().__init__(own.site)
        self.takes_input = own.takes_input  # type: ignore[misc]
        for name, parameter in own.named_parameters(recurse=False):
            self.register_parameter(name, nn.Parameter(torch.empty_like(parameter)))
        for name, module in own.named_children():
            self.add_module(name, module)


class PlainFocused(_Form):
    """arXiv 2308.00442, equations 4 to 6, with the learned scale and positional encoding of its models; p = 3."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, **given: Tensor | None) -> Tensor:
        batch, n, channels = q.shape
        m, heads = k.shape[1], self.site.heads
        k = k + self.positional_encoding
        scale = F.softplus(self.scale)
        q, k = (F.relu(q) + 1e-6) / scale, (F.relu(k) + 1e-6) / scale
        q_norm, k_norm = q.norm(dim=-1, keepdim=True), k.norm(dim=-1, keepdim=True)
        q, k = q**3, k**3
        q, k = q / q.norm(dim=-1, keepdim=True) * q_norm, k / k.norm(dim=-1, keepdim=True) * k_norm
        q, k, v = by_heads(q, heads), by_heads(k, heads), by_heads(v, heads)
        z = 1 / (q @ k.mean(dim=-2, keepdim=True).transpose(-2, -1) + 1e-6)
        kv = (k.transpose(-2, -1) * m**-0.5) @ (v * m**-0.5)
        out = (q @ kv * z).transpose(1, 2).reshape(batch, n, channels)
        if n != m:
            v = F.interpolate(v.transpose(-2, -1).reshape(batch * heads, -1, m), size=n, mode="linear")
            v = v.reshape(batch, heads, -1, n).transpose(-2, -1)
        height, width, _ = self.site.queries
        image = v.reshape(batch * heads, height, width, -1).permute(0, 3, 1, 2)
        local = F.conv2d(image, self.dwc.weight, self.dwc.bias, padding=self.dwc.padding, groups=image.shape[1])
        return out + local.reshape(batch, channels, n).permute(0, 2, 1)


class PlainAgent(_Form):
    """arXiv 2312.08874: two softmax attentions in full, with position biases, and a depthwise convolution."""

    def __init__(self, own: Attention) -> None:
        super().__init__(own)
        assert isinstance(own, AgentAttention)
        self.agents = own.agents
        for name in ("ah_bias", "aw_bias", "ha_bias", "wa_bias", "ac_bias", "ca_bias"):
            self.register_parameter(name, getattr(self, name, None))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, **given: Tensor | None) -> Tensor:
        batch, n, channels = q.shape
        heads, (height, width, _) = self.site.heads, self.site.queries
        image = q.reshape(batch, height, width, channels).permute(0, 3, 1, 2)
        agents = F.adaptive_avg_pool2d(image, self.agents).reshape(batch, channels, -1).permute(0, 2, 1)
        q, k, v, agents = (by_heads(x, heads) for x in (q, k, v, agents))
        scale = q.shape[-1] ** -0.5
        to_keys, to_queries = AgentAttention.key_bias(self), AgentAttention.query_bias(self)  # type: ignore[arg-type]
        gathered = ((agents * scale) @ k.transpose(-2, -1) + to_keys).softmax(dim=-1) @ v
        out = ((q * scale) @ agents.transpose(-2, -1) + to_queries).softmax(dim=-1) @ gathered
        out = out.transpose(1, 2).reshape(batch, n, channels)
        image = v.transpose(1, 2).reshape(batch, height, width, channels).permute(0, 3, 1, 2)
        local = F.conv2d(image, self.dwc.weight, self.dwc.bias, padding=self.dwc.padding, groups=channels)
        return out + local.permute(0, 2, 3, 1).reshape(batch, n, channels)


class PlainInline(_Form):
    """arXiv 2412.06590: scores minus their mean in linear order, and a residual with predicted kernels."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, x: Tensor, **given: Tensor | None) -> Tensor:  # type: ignore[override]
        batch, n, channels = q.shape
        heads, (height, width, _) = self.site.heads, self.site.queries
        q, k, v = (by_heads(tokens, heads) for tokens in (q, k, v))
        scale = q.shape[-1] ** -0.5
        out = q @ (k.transpose(-2, -1) * (scale / n)) @ v
        out = out + v.sum(dim=-2, keepdim=True) / n * (1 - q @ k.mean(dim=-2, keepdim=True).transpose(-2, -1) * scale)
        out = out.transpose(1, 2).reshape(batch, n, channels)
        kernels: Tensor = x.mean(dim=1).unsqueeze(-1)
        for layer in self.residual:
            kernels = layer(kernels)
        side = round((kernels.shape[1] // channels) ** 0.5)
        kernels = kernels.reshape(batch * channels, 1, side, side)
        image = v.transpose(1, 2).reshape(batch, height, width, channels).permute(0, 3, 1, 2)
        image = image.reshape(1, batch * channels, height, width)
        local = F.conv2d(image, kernels, padding=side // 2, groups=batch * channels)
        return out + local.reshape(batch, channels, n).permute(0, 2, 1)


FORMS: dict[str, type[_Form]] = {"focused": PlainFocused, "agent": PlainAgent, "inline": PlainInline}


def _form(name: str, site: Site) -> nn.Module:
    return FORMS[name](AttentionSpec(name).build(site))


def _model(name: str) -> nn.Module:
    """Build a preset of plain operators: forms in place of its attentions, explicit softmax, and its MLPs at once."""
    model = build(preset(name))
    for host in list(model.modules()):
        core = getattr(host, "core", None)
        if isinstance(core, lookup("softmax")):
            host.core = AttentionSpec("softmax", {"fused": False}).build(core.site)
        for attention, form in FORMS.items():
            if isinstance(core, lookup(attention)):
                host.core = form(core)
    model.forward = using_path("plain")(model.forward)  # type: ignore[method-assign]
    return model


class Timm(nn.Module):
    """A model of timm's, with its parameters under the names that the same model has here."""

    def __init__(self, name: str, timm_name: str) -> None:
        super().__init__()
        self.theirs = [timm.create_model(timm_name)]  # in a list, it is no module of this one
        for path, parameter in from_timm(dict(self.theirs[0].named_parameters()), preset(name)).items():
            *folders, last = path.split(".")
            module: nn.Module = self
            for folder in folders:
                if not hasattr(module, folder):
                    module.add_module(folder, nn.Module())
                module = getattr(module, folder)
            assert isinstance(parameter, nn.Parameter)
            module.register_parameter(last, parameter)

    def train(self, mode: bool = True) -> "Timm":
        self.theirs[0].train(mode)
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.theirs[0](x)
        return logits


MODELS = ("flatten_swin_t", "flatten_pvt_t", "flatten_pvt_v2_b0", "flatten_cswin_t", "agent_swin_t", "inline_swin_t")

focused, agent, inline = (functools.partial(_form, name) for name in FORMS)

TIMM = {"deit_t": "deit_tiny_patch16_224", "swin_t": "swin_tiny_patch4_window7_224", "pvt_v2_b1": "pvt_v2_b1"}

models: dict[str, Callable[[], nn.Module]] = {
    **{name: functools.partial(_model, name) for name in MODELS},
    **{f"timm_{name}": functools.partial(Timm, name, theirs) for name, theirs in TIMM.items()},
}
globals().update(models)

"""A sound attention, and copies of it with one mistake each; the certificate must find all of them.

`BUGS` lists them by the law that must fail. Each was once a real mistake, in a paper's code or in ours.
"""

import math
import threading
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions import Attention, Macs, Site
from attentions._paths import allows, note

BUGS: dict[str, list[type[Attention]]] = {}


def breaks(law: str):
    def add(cls: type[Attention]) -> type[Attention]:
        BUGS.setdefault(law, []).append(cls)
        return cls

    return add


def split(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class Sound(Attention):
    """Linear attention on relu(scale * x) / |x|, the norm over all channels, and a convolution of the values."""

    takes_regions = True
    eps = 1e-6

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.scale = nn.Parameter(torch.ones(site.dim))
        self.conv = nn.Conv2d(site.dim, site.dim, 3, padding=1, groups=site.dim)

    def features(self, x: Tensor) -> Tensor:
        return F.relu(x * self.scale.to(x.dtype)) / (x.square().sum(-1, keepdim=True) + self.eps).sqrt()

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (split(x, self.site.heads) for x in (q, k, v))
        summed = q @ k.mean(dim=-2, keepdim=True).transpose(-2, -1) + self.eps
        return (q @ (k.transpose(-2, -1) @ (v / v.shape[-2])) / summed).transpose(1, 2).flatten(2)

    def convolved(self, v: Tensor) -> Tensor:
        height, width, prefix = self.site.queries
        if self.site.keys != self.site.queries:
            return torch.zeros(v.shape[0], self.site.queries.tokens, v.shape[2], dtype=v.dtype, device=v.device)
        image = v[:, prefix:].transpose(1, 2).unflatten(-1, (height, width))
        return F.pad(self.conv(image).flatten(2).transpose(1, 2), (0, 0, prefix, 0)).to(v.dtype)

    def each_region(self, mixed, regions: Tensor | None, *tokens: Tensor) -> Tensor:
        if regions is None:
            return mixed(*tokens)
        total = torch.zeros_like(tokens[0])
        for region in range(self.site.regions):
            own = (regions == region).unsqueeze(-1).to(total.dtype)
            total = total + own * mixed(*tokens[:-2], *(x * own for x in tokens[-2:]))
        return total

    def forward(self, q, k, v, *, bias=None, x=None, regions=None):
        with torch.autocast(q.device.type, enabled=False):
            wide = torch.promote_types(q.dtype, torch.float32)
            q, k = self.features(q.to(wide)), self.features(k.to(wide))
            out = self.each_region(self.mix, regions, q, k, v.to(wide)).to(v.dtype)
        return out + self.each_region(lambda _, own: self.convolved(own), regions, v, v)

    def naive(self, q, k, v, *, bias=None, x=None, regions=None):
        site, d = self.site, self.site.dim // self.site.heads
        same: Any = 1.0 if regions is None else (regions[:, :, None] == regions[:, None, :]).double()

        def phi(t):
            return (t * self.scale).clamp(min=0) / (t.square().sum(-1, keepdim=True) + 1e-6).sqrt()

        heads = []
        for h in range(site.heads):
            part = slice(h * d, (h + 1) * d)
            scores = torch.einsum("bnc,bmc->bnm", phi(q)[..., part], phi(k)[..., part]) * same
            weights = scores / (scores.sum(-1, keepdim=True) + 1e-6 * k.shape[1])
            heads.append(weights @ v[..., part])
        out = torch.cat(heads, dim=-1)
        if site.keys != site.queries:
            return out
        height, width, prefix = site.queries
        rows = [torch.zeros_like(v[:, 0])] * prefix
        for n in range(height * width):
            assert self.conv.bias is not None
            total = self.conv.bias.expand(v.shape[0], -1)
            for m in range(height * width):
                dy, dx = m // width - n // width + 1, m % width - n % width + 1
                if dy in (0, 1, 2) and dx in (0, 1, 2):
                    near = 1.0 if regions is None else same[:, n, m, None]
                    total = total + near * v[:, prefix + m] * self.conv.weight[:, 0, dy, dx]
            rows.append(total)
        return out + torch.stack(rows, dim=1)

    @property
    def uses_positions(self) -> bool:
        return self.site.keys == self.site.queries

    def macs(self) -> Macs:
        n, m, site = self.site.queries.tokens, self.site.keys.tokens, self.site
        attention = site.regions * (m * site.head_dim + n * site.head_dim + n) * site.dim
        grid = n - site.queries.prefix
        return Macs(attention, convolutions=site.regions * grid * site.dim * 9 if site.keys == site.queries else 0)


class SoundSoftmax(Attention):
    """Softmax attention with a bias, and a gate on the input."""

    takes_bias = takes_input = True
    exponent = 2

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.gate = nn.Parameter(torch.zeros(site.dim))

    def scores(self, q, k, bias):
        q, k = (split(x, self.site.heads) for x in (q, k))
        scores = q * self.site.head_dim**-0.5 @ k.transpose(-2, -1)
        return scores if bias is None else scores + bias.to(scores.dtype)

    def weights(self, scores: Tensor) -> Tensor:
        return scores.softmax(-1)

    def forward(self, q, k, v, *, bias=None, x=None, regions=None):
        with torch.autocast(q.device.type, enabled=False):
            wide = torch.promote_types(q.dtype, torch.float32)
            weights = self.weights(self.scores(q.to(wide), k.to(wide), bias))
            out = (weights @ split(v.to(wide), self.site.heads)).transpose(1, 2).flatten(2)
            return (out * torch.sigmoid(x.to(wide) * self.gate.to(wide))).to(v.dtype)

    def naive(self, q, k, v, *, bias=None, x=None, regions=None):
        d, heads = self.site.head_dim, []
        for h in range(self.site.heads):
            part = slice(h * d, (h + 1) * d)
            scores = torch.einsum("bnc,bmc->bnm", q[..., part], k[..., part]) / math.sqrt(d)
            scores = scores if bias is None else scores + bias[:, h]
            heads.append(scores.exp() / scores.exp().sum(-1, keepdim=True) @ v[..., part])
        return torch.cat(heads, dim=-1) / (1 + torch.exp(-x * self.gate))

    def macs(self) -> Macs:
        return Macs(2 * self.site.queries.tokens * self.site.keys.tokens * self.site.dim)


# What the definition finds.


@breaks("reference")
class WrongNormaliser(Sound):
    """The normaliser sums over all channels, so that heads share it."""

    def mix(self, q, k, v):
        summed = q @ k.mean(dim=1, keepdim=True).transpose(-2, -1) + self.eps
        q, k, v = (split(x, self.site.heads) for x in (q, k, v))
        return (q @ (k.transpose(-2, -1) @ (v / v.shape[-2]))).transpose(1, 2).flatten(2) / summed


@breaks("reference")
class NormaliserOverQueries(Sound):
    def mix(self, q, k, v):
        if self.site.queries != self.site.keys:
            return super().mix(q, k, v)
        q, k, v = (split(x, self.site.heads) for x in (q, k, v))
        summed = k @ q.mean(dim=-2, keepdim=True).transpose(-2, -1) + self.eps
        return (q @ (k.transpose(-2, -1) @ (v / v.shape[-2])) / summed).transpose(1, 2).flatten(2)


@breaks("reference")
class ForgottenEpsilon(Sound):
    """The eps of the normaliser is missing: a difference of a millionth of the output."""

    def mix(self, q, k, v):
        q, k, v = (split(x, self.site.heads) for x in (q, k, v))
        summed = (q @ k.mean(dim=-2, keepdim=True).transpose(-2, -1)).clamp(min=1e-30)
        return (q @ (k.transpose(-2, -1) @ (v / v.shape[-2])) / summed).transpose(1, 2).flatten(2)


@breaks("reference")
class HeightAndWidthSwapped(Sound):
    def convolved(self, v):
        height, width, prefix = self.site.queries
        if self.site.keys != self.site.queries:
            return super().convolved(v)
        image = v[:, prefix:].transpose(1, 2).unflatten(-1, (width, height))
        return F.pad(self.conv(image).flatten(2).transpose(1, 2), (0, 0, prefix, 0)).to(v.dtype)


@breaks("reference")
class HeadsMixedUp(Sound):
    """Tokens and heads are not transposed before merging."""

    def mix(self, q, k, v):
        out = split(super().mix(q, k, v), self.site.heads)
        return out.reshape(q.shape)


@breaks("reference")
class HeadsAreTheFastAxis(Sound):
    def mix(self, q, k, v):
        q, k, v = (x.unflatten(-1, (-1, self.site.heads)).transpose(-2, -1).flatten(2) for x in (q, k, v))
        return super().mix(q, k, v).unflatten(-1, (self.site.heads, -1)).transpose(-2, -1).flatten(2)


@breaks("reference")
class NormPerHead(Sound):
    def features(self, x):
        heads = split(x, self.site.heads)
        normed = heads / (heads.square().sum(-1, keepdim=True) + self.eps).sqrt()
        return F.relu(normed.transpose(1, 2).flatten(2) * self.scale.to(x.dtype))


@breaks("reference")
class ScaledByAllChannels(SoundSoftmax):
    """dim^-0.5 in place of head_dim^-0.5: equal with one head."""

    def scores(self, q, k, bias):
        return super().scores(q * self.site.heads**-0.5, k, bias)


@breaks("reference")
class BiasAfterTheSoftmax(SoundSoftmax):
    def forward(self, q, k, v, *, bias=None, x=None, regions=None):
        out = super().forward(q, k, v, x=x)
        return out if bias is None else out + bias.mean(dim=(1, 3))[..., None].to(out.dtype)


@breaks("reference")
class ForgetsKeysBeyondAHundred(Sound):
    """Correct at every small site; a DeiT has 197 tokens."""

    def mix(self, q, k, v):
        return super().mix(q, k[:, :100], v[:, :100])


@breaks("reference")
class WantsABiasOfEachEntry(SoundSoftmax):
    """Without a shift, the bias has one entry for all windows."""

    def scores(self, q, k, bias):
        scores = super().scores(q, k, None)
        return scores if bias is None else scores + bias.reshape(scores.shape).to(scores.dtype)


@breaks("reference")
class ClampsItsScores(SoundSoftmax):
    def scores(self, q, k, bias):
        return super().scores(q, k, bias).clamp(-20, 20)


@breaks("reference")
class ItsOwnReference(SoundSoftmax):
    """The reference calls forward: comparing it with itself shows nothing."""

    def naive(self, q, k, v, *, bias=None, x=None, regions=None):
        return self(q, k, v, bias=bias, x=x)


# What gradients find.


@breaks("gradient")
class DetachedInTraining(Sound):
    def features(self, x):
        return super().features(x.detach() if self.training else x)


@breaks("gradient")
class OtherFeaturesInTraining(Sound):
    def features(self, x):
        return super().features(x + 0.01 if self.training else x)


@breaks("gradient")
class DetachedNormaliser(Sound):
    def mix(self, q, k, v):
        q, k, v = (split(x, self.site.heads) for x in (q, k, v))
        summed = (q @ k.mean(dim=-2, keepdim=True).transpose(-2, -1) + self.eps).detach()
        return (q @ (k.transpose(-2, -1) @ (v / v.shape[-2])) / summed).transpose(1, 2).flatten(2)


class _Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return F.relu(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient


@breaks("gradient")
class WrongBackward(Sound):
    """A custom kernel whose backward forgets the mask of the relu; it has no definition."""

    naive = Attention.naive

    def features(self, x):
        return _Straight.apply(x * self.scale.to(x.dtype)) / (x.square().sum(-1, keepdim=True) + self.eps).sqrt()


# What paths find: by torch's operators, all of these are sound.


class _Saving(torch.autograd.Function):
    """x^2, which keeps x in half precision for backward."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x.half())
        return x.square()

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient * ctx.saved_tensors[0].to(gradient.dtype)


class _WithAKernel(Sound):
    """It has a path of its own on a CPU."""

    def features(self, x):
        if not allows("native", x):
            return super().features(x)
        note("native")
        return self.kernel(x)

    def kernel(self, x: Tensor) -> Tensor:
        raise NotImplementedError


@breaks("paths")
class KernelOfOtherNumbers(_WithAKernel):
    """The kernel forgets the scale, which at first is 1 everywhere."""

    def kernel(self, x):
        return F.relu(x) / (x.square().sum(-1, keepdim=True) + self.eps).sqrt()


@breaks("paths")
class KernelThatRounds(_WithAKernel):
    """The kernel sums in float32 whatever it gets; in float32 nobody would see it."""

    def kernel(self, x):
        return super(_WithAKernel, self).features(x.float()).to(x.dtype)


@breaks("paths")
class KernelWithAnApproximateBackward(_WithAKernel):
    def kernel(self, x):
        return F.relu(x * self.scale.to(x.dtype)) / (_Saving.apply(x).sum(-1, keepdim=True) + self.eps).sqrt()


@breaks("paths")
class KernelThatHidesWhatIsNotANumber(_WithAKernel):
    def kernel(self, x):
        return super(_WithAKernel, self).features(torch.where(x.isnan(), 0, x))


# What the batch finds.


@breaks("batch")
class CentredOverTheBatch(Sound):
    naive = Attention.naive

    def features(self, x):
        return super().features(x - x.mean(dim=(0, 1), keepdim=True))


@breaks("batch")
class BatchStatisticsInTraining(Sound):
    naive = Attention.naive

    def features(self, x):
        return super().features(x - x.mean(dim=(0, 1), keepdim=True) if self.training else x)


@breaks("batch")
class SharedMaximum(SoundSoftmax):
    """A maximum over the batch keeps the exponential in range, but does not cancel."""

    naive = Attention.naive

    def weights(self, scores):
        return (scores - scores.detach().amax()).exp() / (
            1 + (scores - scores.detach().amax()).exp().sum(-1, keepdim=True)
        )


@breaks("batch")
class WindowsInTheWrongOrder(Sound):
    """Windows are rolled along the batch, as if it were spatial."""

    naive = Attention.naive

    def mix(self, q, k, v):
        return super().mix(q, k.roll(1, dims=0), v.roll(1, dims=0))


# What permutations find.


@breaks("permutation")
class DeniesItsConvolution(Sound):
    uses_positions = False


@breaks("permutation")
class ClaimsPositions(SoundSoftmax):
    uses_positions = True


# What masks find.


@breaks("mask")
class IgnoresRegions(Sound):
    naive = Attention.naive

    def each_region(self, mixed, regions, *tokens):
        return mixed(*tokens)


@breaks("mask")
class ConvolutionCrossesRegions(Sound):
    def forward(self, q, k, v, *, bias=None, x=None, regions=None):
        return super().forward(q, k, v, regions=regions) + 0.1 * self.convolved(v)


@breaks("mask")
class IgnoresBias(SoundSoftmax):
    naive = Attention.naive

    def scores(self, q, k, bias):
        return super().scores(q, k, None)


@breaks("mask")
class MaskIsAFactor(SoundSoftmax):
    """The mask multiplies the scores: -100 inverts them instead of suppressing them."""

    naive = Attention.naive

    def scores(self, q, k, bias):
        scores = super().scores(q, k, None)
        return scores if bias is None else scores * (1 + bias)


# What is read, and what is not.


@breaks("reads")
class ReadsInSecret(Sound):
    """The host would freeze the projection of the keys."""

    reads = "qv"


@breaks("reads")
class KeysWithoutEffect(SoundSoftmax):
    """A softmax over an axis of length 1: the scores cancel."""

    naive = Attention.naive

    def weights(self, scores):
        return scores.unsqueeze(-1).softmax(-1).squeeze(-1) / scores.shape[-1]


@breaks("reads")
class InputWithoutEffect(SoundSoftmax):
    naive = Attention.naive

    def forward(self, q, k, v, *, bias=None, x=None, regions=None):
        return super().forward(q, k, v, bias=bias, x=torch.zeros_like(q))


# What the implied map finds, where no definition is declared: values that are not only mixed.


@breaks("map")
class NormalisesItsValues(Sound):
    """One function too many gets its features: the values have length 1, whatever the projection says."""

    naive = Attention.naive

    def mix(self, q, k, v):
        return super().mix(q, k, F.normalize(v, dim=-1))


@breaks("map")
class ClampsItsValues(SoundSoftmax):
    """Meant for the range of half precision, it cuts values that are well within it."""

    naive = Attention.naive

    def forward(self, q, k, v, *, bias=None, x=None, regions=None):
        return super().forward(q, k, v.clamp(-2, 2), bias=bias, x=x)


@breaks("map")
class TakesZerosForPadding(SoundSoftmax):
    """A token without values gets no weight, so that the other weights depend on values: linear until one is zero."""

    naive = Attention.naive

    def forward(self, q, k, v, *, bias=None, x=None, regions=None):
        padding = (v == 0).all(dim=-1)[:, None, None, :].to(q.dtype) * -1e4
        return super().forward(q, k, v, bias=padding if bias is None else bias + padding, x=x)


# What parameters, state and memory find.


@breaks("parameters")
class UnusedParameter(Sound):
    def __init__(self, site):
        super().__init__(site)
        self.spare = nn.Linear(site.dim, site.dim)


@breaks("parameters")
class ParameterOutOfTheGraph(Sound):
    def features(self, x):
        return F.relu(x * self.scale.detach().to(x.dtype)) / (x.square().sum(-1, keepdim=True) + self.eps).sqrt()


@breaks("memory")
class UninitialisedBuffer(Sound):
    def __init__(self, site):
        super().__init__(site)
        self.register_buffer("offset", torch.empty(site.dim))


@breaks("memory")
class UninitialisedParameter(Sound):
    def __init__(self, site):
        super().__init__(site)
        self.scale = nn.Parameter(torch.empty(site.dim))


@breaks("memory")
class UninitialisedOutput(Sound):
    """The rows of prefix tokens are never written."""

    def convolved(self, v):
        whole = super().convolved(v)
        out = torch.empty_like(whole)
        out[:, self.site.queries.prefix :] = whole[:, self.site.queries.prefix :]
        return out


@breaks("state")
class ProjectionNotInTheState(Sound):
    """Random features that are not in the state: whoever loads the weights draws others."""

    def __init__(self, site):
        super().__init__(site)
        self.register_buffer("projection", torch.randn(site.dim), persistent=False)

    def features(self, x):
        return super().features(x * self.projection.to(x.dtype))


@breaks("state")
class RunningMean(Sound):
    mean: torch.Tensor

    def __init__(self, site):
        super().__init__(site)
        self.register_buffer("mean", torch.zeros(site.dim))

    def features(self, x):
        if self.training:
            self.mean.lerp_(x.detach().mean(dim=(0, 1)).to(self.mean.dtype), 0.1)
        return super().features(x - self.mean.to(x.dtype))


@breaks("state")
class TableThatStaysBehind(Sound):
    """A tensor that is not a buffer: it does not move to a GPU with the module."""

    def __init__(self, site):
        super().__init__(site)
        self.table = torch.full((site.dim,), 1.0, device="cpu")

    def features(self, x):
        return super().features(x * self.table.to(x.dtype))


@breaks("state")
class CannotBeCopied(Sound):
    """It cannot be deep-copied, as a moving average of the weights copies a model."""

    def __init__(self, site):
        super().__init__(site)
        self.lock = threading.Lock()


@breaks("state")
class FiveDimensions(Sound):
    """torch cannot move a parameter of five dimensions to channels_last."""

    def __init__(self, site):
        super().__init__(site)
        self.wide = nn.Parameter(torch.ones(1, 1, 1, 1, site.dim))

    def features(self, x):
        return super().features(x * self.wide.flatten().to(x.dtype))


@breaks("deterministic")
class SeedsTheGenerator(SoundSoftmax):
    """It seeds the global generator: all other random numbers of the program change."""

    def __init__(self, site):
        Attention.__init__(self, site)
        self.register_buffer("gate", torch.zeros(site.dim))

    def weights(self, scores):
        torch.manual_seed(0)
        return super().weights(scores)


@breaks("deterministic")
class AnotherPathWithoutGradients(Sound):
    def features(self, x):
        return super().features(x if torch.is_grad_enabled() else x.clamp(-2, 2))


@breaks("deterministic")
class NoiseInTraining(Sound):
    def features(self, x):
        return super().features(x + 0.01 * torch.randn_like(x) if self.training else x)


@breaks("deterministic")
class SeedOfItsOwn(Sound):
    def __init__(self, site):
        super().__init__(site)
        generator = torch.Generator()
        generator.seed()
        with torch.no_grad():
            self.scale.normal_(generator=generator)


# What inputs find.


@breaks("inputs")
class WritesIntoItsInput(Sound):
    def forward(self, q, k, v, *, bias=None, x=None, regions=None):
        with torch.no_grad():
            q.mul_(0.5)
        return super().forward(2 * q, k, v, regions=regions)


@breaks("inputs")
class ReadsRawMemory(Sound):
    """It assumes a contiguous input, as a kernel may."""

    def features(self, x):
        return super().features(torch.as_strided(x, x.shape, (x.shape[1] * x.shape[2], x.shape[2], 1)))


@breaks("inputs")
class ViewsItsHeads(Sound):
    """It uses view, but slices of a joint projection have other strides."""

    def features(self, x):
        return super().features(x.view(-1, x.shape[-1]).view(x.shape))


# What precision finds.


@breaks("finite")
class SumsInHalf(Sound):
    """Without a wider dtype and without a mean, the sum over keys exceeds float16."""

    naive = Attention.naive

    def forward(self, q, k, v, *, bias=None, x=None, regions=None):
        q, k, v = (split(t, self.site.heads) for t in (F.relu(q), F.relu(k), v))
        out = q @ (k.transpose(-2, -1) @ v) / (q @ k.sum(dim=-2, keepdim=True).transpose(-2, -1) + 1e-6)
        return out.transpose(1, 2).flatten(2)


@breaks("finite")
class NothingToDivideBy(Sound):
    """No eps: a token without a positive channel gives 0 / 0."""

    naive = Attention.naive
    eps = 0.0


@breaks("finite")
class UnshiftedExponential(SoundSoftmax):
    def weights(self, scores):
        return scores.exp() / scores.exp().sum(-1, keepdim=True)


@breaks("near")
class ReciprocalInHalf(Sound):
    """Everything in the dtype of the input, in many small steps that each round."""

    naive = Attention.naive

    def forward(self, q, k, v, *, bias=None, x=None, regions=None):
        q, k = self.features(q.to(v.dtype)), self.features(k.to(v.dtype))
        for _ in range(8):
            q, k = (t.square().clamp(min=1e-7).sqrt() * 1.3 / 1.3 for t in (q, k))
        return self.mix(q, k, v) + self.convolved(v)


# What counters and clocks find.


@breaks("macs")
class CountsHalf(SoundSoftmax):
    def macs(self):
        return Macs(self.site.queries.tokens * self.site.keys.tokens * self.site.dim)


@breaks("macs")
class ForgetsTheConvolution(Sound):
    def macs(self):
        return Macs(super().macs().attention)


@breaks("macs")
class OperatorThatNobodyCounts(SoundSoftmax):
    def scores(self, q, k, bias):
        q, k = (split(x, self.site.heads) for x in (q, k))
        rotation = torch.linalg.matrix_exp(q.new_zeros(q.shape[-1], q.shape[-1]))
        scores = q @ rotation @ k.transpose(-2, -1)
        return scores if bias is None else scores + bias.to(scores.dtype)


@breaks("growth of macs")
class QuadraticInDisguise(Sound):
    """Linear by name only: the product is taken in the quadratic order, and counted correctly."""

    def mix(self, q, k, v):
        q, k, v = (split(x, self.site.heads) for x in (q, k, v))
        scores = q @ k.transpose(-2, -1)
        return (scores @ v / (scores.sum(-1, keepdim=True) + 1e-6 * k.shape[-2])).transpose(1, 2).flatten(2)


@breaks("growth of time")
class QuadraticWithoutProducts(Sound):
    """All pairs of tokens meet in elementwise operations, which counters of products do not see."""

    def mix(self, q, k, v):
        pairs = (q.mean(-1)[:, :, None] - k.mean(-1)[:, None, :]).cos().exp().mean(-1, keepdim=True)
        return super().mix(q, k, v) + 0 * pairs


# What compilers find.


@breaks("compile")
@breaks("export")
class BranchesOnData(Sound):
    def features(self, x):
        return super().features(x if x.detach().sum() > 0 else 2 * x)


# What runtimes find: `torch.export` takes all of these, and eager PyTorch computes them as they are meant.


@breaks("onnx")
class OperatorThatOnlyTorchHas(SoundSoftmax):
    """The softmax is shifted by the median of its scores, which does not change it; ONNX knows no median."""

    def weights(self, scores):
        return super().weights(scores - scores.detach().median(dim=-1, keepdim=True).values)


@breaks("onnx")
class RangeOfItsExample(SoundSoftmax):
    """Its graph is given a range that is right for the inputs it was traced with, as a calibration gives one."""

    def weights(self, scores):
        return super().weights(scores.clamp(-20, 20) if torch.compiler.is_exporting() else scores)


@breaks("onnx")
class ViewsWhatAKernelLeaves(SoundSoftmax):
    """It views an output whose strides are those that torch's fused kernel leaves, and no other."""

    takes_bias = False

    def forward(self, q, k, v, *, bias=None, x=None, regions=None):
        with torch.autocast(q.device.type, enabled=False):
            wide = torch.promote_types(q.dtype, torch.float32)
            heads = [split(t.to(wide), self.site.heads) for t in (q, k, v)]
            out = F.scaled_dot_product_attention(heads[0], heads[1], heads[2]).transpose(1, 2).view(q.shape)
            return (out * torch.sigmoid(x.to(wide) * self.gate.to(wide))).to(v.dtype)


@breaks("openvino")
class CentresInDouble(Sound):
    """The mean square of a token is a small difference of large numbers: it asks for float64, and OpenVINO has none."""

    naive = Attention.naive
    far = 1000.0

    def features(self, x):
        wide = x.double()
        square = (wide + self.far).square().mean(-1, keepdim=True) - 2 * self.far * wide.mean(-1, keepdim=True)
        norm = ((square - self.far**2).clamp(min=0) * x.shape[-1] + self.eps).sqrt().to(x.dtype)
        return F.relu(x * self.scale.to(x.dtype)) / norm


# What sites find.


@breaks("shape")
class SquareRoot(Sound):
    """The grid is assumed to be square."""

    def convolved(self, v):
        if self.site.keys != self.site.queries:
            return super().convolved(v)
        side = math.isqrt(v.shape[1])
        return self.conv(v.transpose(1, 2).unflatten(-1, (side, side))).flatten(2).transpose(1, 2)


@breaks("shape")
class AnswersForTheKeys(Sound):
    """It returns a token per key instead of per query."""

    def forward(self, q, k, v, *, bias=None, x=None, regions=None):
        return super().forward(q, k, v, regions=regions)[:, : k.shape[1]]


@breaks("shape")
class AlwaysSingle(Sound):
    def forward(self, q, k, v, *, bias=None, x=None, regions=None):
        return super().forward(q, k, v, regions=regions).float()


@breaks("shape")
class WidensWhatIsHalf(Sound):
    """It returns float32 for bfloat16, which the next layer of a bfloat16 model refuses."""

    def forward(self, q, k, v, *, bias=None, x=None, regions=None):
        return super().forward(q, k, v, regions=regions).to(torch.promote_types(v.dtype, torch.float32))


@breaks("builds")
class RefusesBySurprise(Sound):
    def __init__(self, site):
        super().__init__(site)
        assert site.queries == site.keys


@breaks("builds")
class FitsNowhere(Sound):
    def __init__(self, site):
        raise ValueError("it needs a GPU of its own")


@breaks("random sites")
class OnePrefixTokenOnly(Sound):
    """Correct for all existing backbones; register tokens would show the mistake."""

    def mix(self, q, k, v):
        out = super().mix(q, k, v)
        return out if self.site.queries.prefix < 2 else out.flip(1)


@breaks("random sites")
class SmallHeads(Sound):
    """A kernel that needs an even number of channels per head."""

    def mix(self, q, k, v):
        if self.site.head_dim == 3:
            raise RuntimeError("head dimension must be a multiple of 2")
        return super().mix(q, k, v)

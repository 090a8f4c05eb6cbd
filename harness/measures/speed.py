"""Throughput, latency, time of a training step and peak memory of a backbone.

Inputs are synthetic and stay on the device; the machine warms up first; a GPU is timed by its own events with the L2
cache overwritten before every sample, a CPU by `time.perf_counter`. A time is that of one complete batch, and the batch
never shrinks: too large a batch raises, see `is_out_of_memory`. quiet.py keeps what others do on the machine out of the
times, or says that it could not. Absolute times of two runs are not comparable; comparison.py measures two backbones
interleaved.
"""

import time
from collections.abc import Callable
from contextlib import nullcontext
from statistics import quantiles
from typing import Literal

import torch
from torch import Tensor, nn

from attentions import used_paths
from backbones import BackboneSpec, build
from harness.cells import Metrics, Runtime, Speed
from harness.cells.runtime import DTYPES, Device, Workload
from harness.measures.card import sm_clock
from harness.measures.memory import peak_memory
from harness.measures.quiet import (
    BLOCKS,
    PATIENCE,
    Quiet,
    Watch,
    measure_quietly,
    shares,
    unsteadiness,
    wait_for_quiet,
    watch,
)
from harness.measures.sdpa import kernels_of, shown
from harness.process.determinism import numerics
from harness.process.environment import check_device

MIN_SAMPLES = 10
"""Fewest samples behind a median and its quartiles, however long they take."""


L2_BYTES = 256 * 2**20
"""Bytes overwritten between samples on a GPU: more than the L2 cache of any."""


NAMES: dict[Workload, tuple[str, str]] = {"infer": ("latency", ""), "train": ("train_step", "train_")}
"""What is measured: the beginning of its times, and of its other metrics."""

Timer = Callable[[Callable[[], object]], float]
"""Calls its argument once and returns how many seconds that took."""


def measure_backbone(spec: BackboneSpec, task: Speed, report: Callable[[str], None]) -> Metrics:
    """Measure `spec` as `task` says; see `measure_speed` for the metrics and errors."""
    image = (spec.in_channels, *spec.image_size)
    return measure_speed(lambda: build(spec), image, spec.num_classes, task.runtime, task.min_seconds, report)


def measure_speed(
    build_model: Callable[[], nn.Module],
    image: tuple[int, int, int],
    num_classes: int,
    runtime: Runtime,
    min_seconds: float,
    report: Callable[[str], None],
    watching: Watch | None = None,
) -> Metrics:
    """Measure a model of (B, C, H, W) images and (B, num_classes) logits; `image` is (C, H, W).

    Returns `images_per_s` and `train_images_per_s` (batch over the median), `latency_ms_p25/p50/p75` of a
    batch in inference and `train_step_ms_p25/p50/p75` of a training step (forward, loss, backward, AdamW),
    both `_samples` counts; memory in MiB, of inference and training separately: on a GPU
    `..._peak_allocated_mib` and `..._peak_reserved_mib` of the caching allocator, on a CPU `..._peak_rss_mib`, the
    peak resident set of the entire process while the work ran once more; the SM clock before and after; and of
    inference and training each, what disturbed it: `..._disturbed`, a sentence, or None where the machine was quiet;
    `..._dropped_share` of the time measured; and those of `shares`. `sdpa_kernel` and `train_sdpa_kernel`: what
    scaled_dot_product_attention ran, see `kernels_of`. `attention_path` and `train_attention_path`: the paths that
    attentions with several took, see `attentions.used_paths`. What is not available is None.

    `watching`: where it is learned what others do (default: from this machine).

    Raises ValueError where the device is missing or the runtime is not torch, FloatingPointError for outputs that are
    not finite, and what torch raises when memory runs out, see `is_out_of_memory`.
    """
    watching = watching or watch(runtime.device)
    metrics: Metrics = {"sm_clock_mhz_before": _sm_clock(runtime.device)}
    with numerics(compiled=runtime.mode == "compiled"):
        model = build_model()
        for work in NAMES:
            call = prepare(model, image, num_classes, runtime, work)
            metrics |= measure_work(call, work, runtime, min_seconds, report, watching)
    return metrics | {"sm_clock_mhz_after": _sm_clock(runtime.device)}


def measure_work(
    call: Callable[[], Tensor],
    work: Workload,
    runtime: Runtime,
    min_seconds: float,
    report: Callable[[str], None],
    watching: Watch,
) -> Metrics:
    """Warm up, and measure a call of inference or of a training step; see `measure_speed` for metrics and errors."""
    label, prefix = NAMES[work]
    report(f"{label.replace('_', ' ')}: warming up")
    # The memory of the optimiser, and of what compilers and cuDNN try out, settles in the first calls.
    warm_up(call, runtime.device, min_seconds / 4)
    memory = peak_memory(call, runtime.device)
    with used_paths() as paths:
        kernel = kernels_of(call)
    wait_for_quiet(watching, PATIENCE * min_seconds, report)
    report(f"{label.replace('_', ' ')}: measuring")
    found = sample(call, timer(runtime.device), watching, min_seconds)
    times = found.times
    low, middle, high = quantiles(times, n=4, method="inclusive")
    return {
        f"{prefix}images_per_s": runtime.batch / middle,
        f"{label}_ms_p25": low * 1e3,
        f"{label}_ms_p50": middle * 1e3,
        f"{label}_ms_p75": high * 1e3,
        f"{label}_samples": len(times),
        f"{prefix}sdpa_kernel": kernel,
        f"{prefix}attention_path": shown(paths),
        f"{work}_disturbed": found.disturbed,
        f"{work}_dropped_share": found.dropped,
    } | {f"{work}_{name}": value for name, value in (shares(found.spent) | memory).items()}


def prepare(
    model: nn.Module,
    image: tuple[int, int, int],
    num_classes: int,
    runtime: Runtime,
    work: Workload | Literal["both"],
) -> Callable[[], Tensor]:
    """Put `model` and a batch on the device and return the call to be timed: inference or a training step.

    "both" is a training step without the optimizer's. The call returns logits (B, num_classes) or the loss. Raises
    ValueError where the machine has no CUDA device, and for another runtime than torch.
    """
    if runtime.runtime != "torch":
        what = "a model is run there as an exported graph" if work == "infer" else "there is no training step"
        raise ValueError(f"{runtime.runtime} is not torch: {what}")
    check_device(runtime.device)
    layout = torch.channels_last if runtime.channels_last else torch.contiguous_format
    model = model.to(runtime.device).to(memory_format=layout)
    images = torch.randn(runtime.batch, *image, device=runtime.device).to(memory_format=layout)
    labels = torch.randint(num_classes, (runtime.batch,), device=runtime.device)
    return prepared(model, images, labels, runtime, work, fused=runtime.device == "cuda")


def prepared(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    runtime: Runtime,
    work: Workload | Literal["both"],
    *,
    fused: bool,
) -> Callable[[], Tensor]:
    """Return the call of `prepare` for what is on the device already; `fused`: whether the optimizer is."""
    forward = torch.compile(model, dynamic=False) if runtime.mode == "compiled" else model
    autocast = autocast_of(runtime)

    if work == "infer":
        model.eval()

        @torch.inference_mode()
        def infer() -> Tensor:
            with autocast:
                return forward(images)

        return infer

    model.train()
    # Fused as in a training run, where any other optimizer would make each float16 step wait for the scaler's verdict.
    # On a CPU nothing waits, and its times remain comparable with those that are recorded.
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=fused)
    # float16 trains with a scaled loss; otherwise the scaler does nothing.
    scaler = torch.amp.GradScaler(runtime.device, enabled=runtime.precision == "fp16")

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with autocast:
            loss = nn.functional.cross_entropy(forward(images), labels)
        scaler.scale(loss).backward()
        if work == "train":
            scaler.step(optimizer)
            scaler.update()
        return loss.detach()

    return step


def autocast_of(runtime: Runtime) -> torch.autocast | nullcontext:
    """Return the autocast that the forward pass runs under."""
    if runtime.precision == "fp32":
        return nullcontext()
    return torch.autocast(runtime.device, DTYPES[runtime.precision])


def timer(device: Device) -> Timer:
    """Return the clock of `device`."""
    if device == "cpu":
        return _perf_counter
    flush = torch.empty(L2_BYTES, dtype=torch.int8, device=device)

    def by_events(call: Callable[[], object]) -> float:
        flush.zero_()
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3

    return by_events


def _perf_counter(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def sample(
    call: Callable[[], object], timed: Timer, watching: Watch, min_seconds: float, min_samples: int = MIN_SAMPLES
) -> Quiet:
    """Time calls for at least `min_seconds` of undisturbed work and `min_samples` calls, or as quiet as it gets."""

    def block() -> list[float]:
        times: list[float] = []
        while not times or sum(times) < min_seconds / BLOCKS:
            times.append(timed(call))
        return times

    return measure_quietly(block, watching, min_seconds, min_samples, unsteadiness)


def warm_up(call: Callable[[], Tensor], device: Device, seconds: float) -> None:
    """Call for so many seconds. Raises FloatingPointError if what is returned is not finite."""
    result = call()
    # A module that computes nothing useful has no speed.
    if not torch.isfinite(result).all():
        raise FloatingPointError("the model's outputs are not finite, so its speed means nothing")
    start = time.perf_counter()
    calls = 0
    while time.perf_counter() - start < seconds or calls < 2:
        call()
        calls += 1
        if device == "cuda":
            torch.cuda.synchronize()


def _sm_clock(device: Device) -> int | None:
    return sm_clock() if device == "cuda" else None

"""Which device and precision to compute with, and about how long that takes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, get_args

from vqa_train.core.errors import UsageError

if TYPE_CHECKING:
    import torch

    from vqa_train.backbones.base import Compute, Precision, VideoBackbone

PrecisionChoice = Literal["auto", "float32", "bfloat16"]

_MATMUL_SIZE = 1024
_MATMUL_SECONDS = 0.2
# Networks reach about this share of what a large matrix product reaches on the same device.
_SHARE_OF_MATMUL = 0.5


def resolve_compute(
    device: str = "auto", precision: PrecisionChoice = "auto", batch: int = 0, *, compiled: bool = False
) -> Compute:
    """How to compute on this machine.

    Args:
        device: "auto" takes the first CUDA device, else the CPU; or as torch names it.
        precision: "auto" is bfloat16 on a GPU and float32 on the CPU.
        batch: clips per forward; 0 is found by timing on a GPU.
        compiled: use torch.compile.

    Raises:
        UsageError: a device that is not there, or bfloat16 on a CPU that has no instructions for it.
    """
    import torch

    from vqa_train.backbones.base import Compute

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    kind = _checked_device(device).type
    if precision not in get_args(PrecisionChoice):
        raise UsageError(f"precision must be one of {', '.join(get_args(PrecisionChoice))}, got {precision!r}")
    chosen: Precision = ("bfloat16" if kind == "cuda" else "float32") if precision == "auto" else precision
    if kind == "cpu" and chosen == "bfloat16" and not _cpu_has_bfloat16():
        raise UsageError(
            "this CPU has no bfloat16 instructions, so bfloat16 would be slower than float32 and less exact",
            hint="leave --precision out",
        )
    threads = (os.cpu_count() or 1) if kind == "cpu" else 0
    return Compute(device=device, precision=chosen, batch=batch, compile=compiled, threads=threads)


def _checked_device(device: str) -> torch.device:
    import torch

    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"unknown device {device!r}", hint="cpu, cuda, or cuda:1 for the second GPU") from error
    if found.type not in ("cpu", "cuda"):
        raise UsageError(f"device {device!r} is not supported", hint="cpu, cuda, or cuda:1 for the second GPU")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device {device!r} is not there: torch finds {torch.cuda.device_count()} CUDA devices")
    return found


def _cpu_has_bfloat16() -> bool:
    """AVX-512 BF16 or AMX on x86, BF16 on Arm, as the kernel lists them."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as handle:  # noqa: PTH123  a file of the kernel's
            flags = next((line for line in handle if line.lower().startswith(("flags", "features"))), "")
    except OSError:
        return False
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags.split()))


def network_seconds(backbones: Iterable[VideoBackbone], compute: Compute) -> float:
    """Rough seconds that the networks take for one video, from their operations and the speed of a matrix product
    here; backbones that do not know their operations count as nothing."""
    flops = 0.0
    for backbone in backbones:
        views = backbone.spec.sampling.views if backbone.spec.sampling else 1
        flops += getattr(backbone, "flops_per_clip", 0.0) * views
    return flops / (_matmul_rate(compute) * _SHARE_OF_MATMUL) if flops else 0.0


def _matmul_rate(compute: Compute) -> float:
    """Operations per second of a large matrix product."""
    import torch

    dtype = torch.bfloat16 if compute.precision == "bfloat16" else torch.float32
    matrix = torch.ones((_MATMUL_SIZE, _MATMUL_SIZE), dtype=dtype, device=compute.device)
    (matrix @ matrix)[0, 0].item()  # the first one warms up
    count, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < _MATMUL_SECONDS:
        (matrix @ matrix)[0, 0].item()  # waits for the device
        count += 1
    return 2.0 * _MATMUL_SIZE**3 * count / elapsed


def in_words(seconds: float) -> str:
    """Seconds as people say them: "40 s", "12 min", "3.5 h", "2 days"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"

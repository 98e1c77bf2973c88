"""Chooses what a GPU is fastest with by timing it: the attention kernel, and how many clips go through at once."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch.nn.attention import SDPBackend

KERNELS = (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH)
_LARGEST = 32
_REPEATS = 3
# A larger batch must bring at least this much, or it only costs memory.
_GAIN = 1.03


def fastest_attention(
    trial: Callable[[SDPBackend], None], clock: Callable[[], float] = time.perf_counter
) -> SDPBackend | None:
    """The attention kernel with which `trial` takes the least time; None leaves the choice to torch.

    A kernel that cannot run this network is passed over.
    """
    times: dict[SDPBackend, float] = {}
    for kernel in KERNELS:
        try:
            times[kernel] = _time(lambda kernel=kernel: trial(kernel), clock)  # type: ignore[misc]
        except RuntimeError:  # torch says "No available kernel", and running out of memory is one too
            continue
    return min(times, key=lambda kernel: times[kernel]) if times else None


def fastest_batch(trial: Callable[[int], None], clock: Callable[[], float] = time.perf_counter) -> int:
    """The number of clips, a power of two, from which doubling brings less than 3 % or no longer fits."""
    best, seconds = 1, _time(lambda: trial(1), clock)
    size = 2
    while size <= _LARGEST:
        try:
            found = _time(lambda size=size: trial(size), clock) / size  # type: ignore[misc]
        except torch.OutOfMemoryError:
            break
        if seconds < found * _GAIN:
            break
        best, seconds, size = size, found, size * 2
    return best


def _time(call: Callable[[], None], clock: Callable[[], float]) -> float:
    """Seconds of the quickest of a few calls, after one that warms up."""
    call()
    times = []
    for _ in range(_REPEATS):
        start = clock()
        call()
        times.append(clock() - start)
    return min(times)

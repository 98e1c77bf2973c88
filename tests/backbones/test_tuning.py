"""What a GPU is fastest with, decided by a clock that the tests set."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend

from vqa_train.backbones.tuning import fastest_attention, fastest_batch


class Clock:
    """Goes on by what `spend` is told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def spend(self, seconds: float) -> None:
        self.now += seconds


def test_the_quickest_kernel_is_taken_and_one_that_cannot_run_is_passed_over() -> None:
    clock = Clock()
    seconds = {SDPBackend.FLASH_ATTENTION: 2.0, SDPBackend.EFFICIENT_ATTENTION: 1.5, SDPBackend.MATH: 9.0}

    def trial(kernel: SDPBackend) -> None:
        if kernel not in seconds:
            raise RuntimeError("No available kernel. Aborting execution.")
        clock.spend(seconds[kernel])

    assert fastest_attention(trial, clock) is SDPBackend.EFFICIENT_ATTENTION


def test_torch_chooses_where_no_kernel_runs() -> None:
    def trial(kernel: SDPBackend) -> None:
        raise RuntimeError("none")

    assert fastest_attention(trial, Clock()) is None


def test_warming_up_does_not_count() -> None:
    clock = Clock()
    seen: set[SDPBackend] = set()

    def trial(kernel: SDPBackend) -> None:
        clock.spend(1.0 if kernel in seen else {SDPBackend.CUDNN_ATTENTION: 100.0}.get(kernel, 1.5))
        clock.spend(0.0 if kernel is SDPBackend.CUDNN_ATTENTION else 0.5)
        seen.add(kernel)

    assert fastest_attention(trial, clock) is SDPBackend.CUDNN_ATTENTION


@pytest.mark.parametrize(
    ("overhead", "memory", "expected"),
    [
        (1.0, 1000, 32),  # doubling always brings something
        (0.08, 1000, 2),  # 1.08 s a clip, then 1.04, then 1.02: less than 3 % better
        (0.0, 1000, 1),
        (1.0, 5, 4),  # 8 do not fit
        (1.0, 1, 1),
    ],
)
def test_the_batch_stops_growing_when_it_brings_nothing_or_does_not_fit(
    overhead: float, memory: int, expected: int
) -> None:
    clock = Clock()

    def trial(size: int) -> None:
        if size > memory:
            raise torch.OutOfMemoryError
        clock.spend(overhead + size)

    assert fastest_batch(trial, clock) == expected

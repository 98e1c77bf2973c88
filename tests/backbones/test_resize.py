"""resize.py against a plain float64 rendering of ATen's weights, and against torch itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from vqa_train.backbones.resize import axis_weights, block_bounds, resize_window

# Both sides of every precision from 14 to 19 bits, upscaling, the same size, and primes.
AXES = [
    (1, 292), (17, 292), (64, 389), (240, 292), (291, 292), (292, 292), (293, 292), (427, 292), (480, 438), (720, 292),
    (1080, 292), (1167, 292), (1280, 519), (1920, 519), (2160, 292), (3840, 519), (4320, 292), (4099, 438), (9600, 292),
]  # fmt: skip


def aten_weights(source: int, target: int) -> np.ndarray:
    """HelperInterpLinear's 16-bit weights (UpSampleKernel.cpp), in float64 as there; float64 (target, source)."""
    scale = source / target
    support = max(scale, 1.0)
    weights = np.zeros((target, source))
    for i in range(target):
        centre = scale * (i + 0.5)
        first = max(int(centre - support + 0.5), 0)
        last = min(int(centre + support + 0.5), source)
        row = np.array([max(0.0, 1 - abs((j - centre + 0.5) / support)) for j in range(first, last)])
        weights[i, first:last] = row / row.sum()
    precision = 0
    while precision < 22 and int(0.5 + weights.max() * (1 << (precision + 1))) < 1 << 15:
        precision += 1
    return np.floor(0.5 + weights * (1 << precision)) / (1 << precision)


def scalar(value: int) -> torch.Tensor:
    return torch.tensor(value)


@pytest.mark.parametrize(("source", "target"), AXES)
def test_weights_are_those_of_aten(source: int, target: int) -> None:
    found = axis_weights(scalar(source), scalar(target), scalar(0), target)
    np.testing.assert_array_equal(found.numpy(), aten_weights(source, target))


def test_a_window_has_the_weights_of_the_whole_axis() -> None:
    # The precision belongs to the axis: its largest weight is at the borders, outside this window.
    whole = axis_weights(scalar(1280), scalar(519), scalar(0), 519)
    window = axis_weights(scalar(1280), scalar(519), scalar(131), 256)
    assert torch.equal(window, whole[131:387])


@pytest.mark.parametrize(("source", "target"), AXES)
def test_block_bounds_hold_all_weights_and_few_others(source: int, target: int) -> None:
    count = min(target, 70)
    first = (target - count) // 2
    weights = axis_weights(scalar(source), scalar(target), scalar(first), count)
    bounds = block_bounds(scalar(source), scalar(target), scalar(first), count)
    for i, (low, high) in enumerate(bounds.tolist()):
        block = weights[32 * i : 32 * (i + 1)]
        assert 0 <= low < high <= source
        assert torch.equal(block[:, low:high].sum(1), block.sum(1))
        assert high - low <= (len(block) + 2) * max(1, source / target) + 2 * math.ceil(max(1, source / target)) + 2


@pytest.mark.parametrize(
    "size", [(270, 480), (480, 270), (90, 160), (31, 17), (1, 3), (601, 599), (2160, 3840)], ids=str
)
@pytest.mark.parametrize("kind", ["noise", "white", "black"])
def test_a_window_is_what_torch_gives_there(size: tuple[int, int], kind: str) -> None:
    height, width = size
    tall, wide, top, left, rows, columns = 150, 170, 11, 23, 128, 120
    generator = torch.Generator().manual_seed(5)
    frame = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=generator)
    if kind != "noise":
        frame.fill_(255 if kind == "white" else 0)
    down = (scalar(height), scalar(tall), scalar(top), rows)
    across = (scalar(width), scalar(wide), scalar(left), columns)
    found = resize_window(frame, axis_weights(*across), axis_weights(*down), block_bounds(*down), block_bounds(*across))
    planes = frame.permute(2, 0, 1)[None]
    expected = functional.interpolate(planes, size=(tall, wide), mode="bilinear", antialias=True)
    assert torch.equal(found, expected[0, :, top : top + rows, left : left + columns])

"""torch's antialiased bilinear resize of uint8 frames on the CPU, bit for bit, as products with exact weight matrices.

ONNX has no such operator before opset 18, and none that rounds as torch does. Here the weights are integer arithmetic
on the sizes, so that one graph serves frames of every size, and their products are exact in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Outputs that share one product: they see a small part of a row, so that a small part of the matrix is multiplied.
_BLOCK = 32
_MOST_BITS = 22


def axis_weights(source: Tensor, target: Tensor, first: Tensor, count: int) -> Tensor:
    """Weights of one axis in the fixed point that torch uses, float64 (count, source), for some of the outputs.

    A triangle filter of half-width max(source / target, 1) pixels about the output's centre, normalised over the
    pixels that exist, then rounded to p bits after the point. p is the same for the whole axis: the most for which the
    largest weight, times 2^p and rounded, is below 2^15, but at most 22 (ATen, UpSampleKernel.cpp).

    Args:
        source, target: int64 scalars, pixels before and after.
        first: int64 scalar, the first output wanted.
        count: outputs wanted.
    """
    scale = _scale(source, target)
    pixels = torch.arange(source, device=source.device)  # type: ignore[call-overload]  # a tensor, so that it is traced
    outputs = first + torch.arange(count, device=source.device)
    weights = _triangle(source, target, outputs[:, None], pixels)
    total = weights.sum(1, keepdim=True)
    rounded = (2 * weights * scale + total).div(2 * total, rounding_mode="floor")
    return rounded.double() / scale


def resize_window(frame: Tensor, across: Tensor, down: Tensor, tops: Tensor, lefts: Tensor) -> Tensor:
    """The wanted outputs of one resized frame, uint8 (3, h, w): first across, then down, rounded after each.

    Args:
        frame: uint8 (H, W, 3).
        across, down: `axis_weights` (w, W) and (h, H).
        tops, lefts: `block_bounds` of both axes.
    """
    # Products and sums are integers below 2^31 over 2^p: exact. Weights are not negative and sum to 1 but for rounding
    # below half a level, so that nothing leaves 0..255.
    planes = frame.permute(2, 0, 1).double()
    top, bottom = tops[0, 0], tops[-1, 1]
    rows = _blockwise(planes[:, top:bottom], across, lefts)
    columns = _blockwise(rows.transpose(1, 2), down[:, top:bottom], tops - top)
    return columns.transpose(1, 2).to(torch.uint8)


def block_bounds(source: Tensor, target: Tensor, first: Tensor, count: int) -> Tensor:
    """First and last + 1 pixel that each block of outputs sees, int64 (blocks, 2)."""
    starts = torch.arange(0, count, _BLOCK, device=source.device)
    ends = (starts + _BLOCK).clamp(max=count) - 1
    low = _first_tap(source, target, first + starts).clamp(min=0)
    high = _first_tap(source, target, first + ends) + _taps(source, target)
    return torch.stack([low, torch.minimum(high, source)], 1)


def _blockwise(planes: Tensor, weights: Tensor, bounds: Tensor) -> Tensor:
    """Rounded products of (3, R, source) and (count, source)ᵀ, (3, R, count)."""
    parts = []
    for i in range(-(-weights.shape[0] // _BLOCK)):
        low, high = bounds[i, 0], bounds[i, 1]
        block = weights[i * _BLOCK : (i + 1) * _BLOCK, low:high]
        parts.append((planes[:, :, low:high] @ block.T + 0.5).floor())
    return torch.cat(parts, 2)


def _scale(source: Tensor, target: Tensor) -> Tensor:
    """2^p, int64 scalar."""
    outputs = torch.arange(target, device=source.device)[:, None]  # type: ignore[call-overload]  # as above
    taps = torch.arange(_taps(source, target), device=source.device)  # type: ignore[call-overload]  # as above
    pixels = _first_tap(source, target, outputs) + taps
    weights = _triangle(source, target, outputs, pixels) * ((pixels >= 0) & (pixels < source))
    total, largest = weights.sum(1)[:, None], weights.amax(1)[:, None]
    powers = torch.tensor([1 << bits for bits in range(_MOST_BITS + 1)], device=source.device)
    # The largest weight with p + 1 bits after the point, for each p.
    rounded = (largest * 4 * powers[:_MOST_BITS] + total).div(2 * total, rounding_mode="floor")
    return powers[(rounded.amax(0) < 1 << 15).sum()]


def _triangle(source: Tensor, target: Tensor, outputs: Tensor, pixels: Tensor) -> Tensor:
    """The filter at pixels about outputs, not normalised, in units that make it an integer; int64."""
    distance = ((2 * pixels + 1) * target - (2 * outputs + 1) * source).abs()
    return (2 * torch.maximum(source, target) - distance).clamp(min=0)


def _first_tap(source: Tensor, target: Tensor, outputs: Tensor) -> Tensor:
    """The first pixel within the filter's half-width of each output's centre; may be negative."""
    start = (2 * outputs + 1) * source - 2 * torch.maximum(source, target) + target
    return start.div(2 * target, rounding_mode="floor")


def _taps(source: Tensor, target: Tensor) -> Tensor:
    """Pixels that an output sees at most."""
    return 2 * (torch.maximum(source, target) + target - 1).div(target, rounding_mode="floor") + 1

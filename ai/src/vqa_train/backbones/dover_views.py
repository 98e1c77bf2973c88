"""DOVER's views of a video: fragments cut from a grid at their own resolution, and a plain resize.

One piece of code serves eager use and the ONNX graph: what depends on the size of the frames is a tensor computed from
it. Interpolated pixels are computed from their four neighbours in the very operations of torch's kernel for x86-64, so
that they are the same bits on every processor, on a GPU and in onnxruntime.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.onnx import is_in_onnx_export, operators

from vqa_train.backbones.graph_loop import export_map

GRID = 7
PATCH = 32
# Frames that share the offsets of their fragments, and make one clip.
ALIGNED = 32
SIDE = GRID * PATCH
CLIPS = 3
DRAWS = 2 * GRID * GRID * CLIPS
# Interpolated at once: on a processor what stays in its cache, on a GPU what fills it.
_CPU_FRAMES, _GPU_FRAMES = 1, 8


class _Axis(NamedTuple):
    """Source pixels of output pixels along one axis (int64), and the weight of the second (float32)."""

    first: Tensor
    second: Tensor
    weight: Tensor


def fragment_corners(frames: Tensor, draws: Tensor | None) -> tuple[Tensor, Tensor]:
    """Top and left corners of the fragments, int64 (GRID, GRID, G): per row and column of the grid and clip.

    A cell of the grid is (H // 7, W // 7) pixels. Where that is over PATCH there is room for as many offsets as it is
    larger: with draws `(draw * room) >> 32`, without the middle. Where it is not, cells overlap and offsets are 0.

    Args:
        frames: uint8 (T, H, W, 3) of at least PATCH x PATCH pixels; only their size matters.
        draws: int64 (2 * GRID * GRID * G,) in [0, 2**32): of rows, then of columns; None gives the middle, for CLIPS.
    """
    size = operators.shape_as_tensor(frames).to(frames.device)
    offsets = (None, None) if draws is None else draws.reshape(2, GRID, GRID, -1)
    places = torch.arange(GRID, device=frames.device)
    tops = _corners(size[1], offsets[0], places[:, None, None])
    return tops, _corners(size[2], offsets[1], places[:, None])


def _corners(length: Tensor, draws: Tensor | None, places: Tensor) -> Tensor:
    cell = length.div(GRID, rounding_mode="floor")
    starts = torch.minimum(places * cell, length - PATCH)
    room = (cell - PATCH).clamp(min=0)
    if draws is None:
        return (starts + room.div(2, rounding_mode="floor")).expand(GRID, GRID, CLIPS)
    return starts + (draws * room).div(1 << 32, rounding_mode="floor")


def fragments(frames: Tensor, tops: Tensor, lefts: Tensor) -> Tensor:
    """Patches of PATCH x PATCH pixels side by side in the order of the grid, uint8 (G, 3, ALIGNED, SIDE, SIDE).

    Frames with a side under SIDE are enlarged until it is SIDE: bilinear on values in 0..1, then truncated to grey
    levels. Corners still come from the original size, so that only the top left of the enlarged frames is seen; the
    official code does so.

    Args:
        frames: uint8 RGB (T, H, W, 3), of which the first G * ALIGNED are used.
        tops, lefts: int64 (GRID, GRID, G), within the original frames.
    """
    height, width = operators.shape_as_tensor(frames)[1:3]
    shorter = torch.minimum(height, width)
    steps = torch.arange(PATCH, device=frames.device)
    rows = tops.permute(2, 0, 1)[:, :, None, :, None] + steps[:, None, None]
    columns = lefts.permute(2, 0, 1)[:, :, None, :, None] + steps
    # Without this, corners outside frames that are too small would silently wrap around in the graph.
    outside = (shorter < PATCH).long() * height
    ratio = shorter.double() / SIDE
    one = torch.ones_like(ratio)
    scale = (one / (one / ratio)).float()
    enlarged = (shorter < SIDE).long() * ALIGNED
    views = []
    for clip in range(tops.shape[2]):
        times = torch.arange(ALIGNED, device=frames.device) + clip * ALIGNED
        down = _sources(rows[clip], scale, height)
        down = down._replace(first=down.first + outside)
        across = _sources(columns[clip], scale, width)

        def enlarge(times: Tensor, down: _Axis = down, across: _Axis = across) -> Tensor:
            return (_bilinear(frames, times, down, across, divisor=255) * 255).to(torch.uint8)

        # One of the two parts is empty: no branch that the graph would have to hold.
        plain = _take(frames, times[enlarged:], rows[clip] + outside, columns[clip])
        views.append(torch.cat([_in_chunks(enlarge, times[:enlarged]), plain]))
    return torch.stack(views).reshape(-1, ALIGNED, SIDE, SIDE, 3).permute(0, 4, 1, 2, 3).contiguous()


def resized(frames: Tensor, side: int, *, antialias: bool = False) -> Tensor:
    """Frames of side x side pixels whatever their shape was, bilinear, rounded half to even; uint8 (3, T, side, side).

    With `antialias` the filter is as wide as the reduction; the graph then sums in another order than torch and may
    differ from it by one grey level in a few of 100,000 pixels.

    Args:
        frames: uint8 RGB (T, H, W, 3).
        side: pixels.
    """

    def step(part: Tensor) -> Tensor:
        if antialias:
            values = _antialiased(part, side)
        else:
            height, width = operators.shape_as_tensor(part)[1:3]
            places = torch.arange(side, device=part.device)
            down = _sources(places[:, None], height.float() / side, height)
            across = _sources(places, width.float() / side, width)
            values = _bilinear(part, torch.arange(len(part), device=part.device), down, across, divisor=1)
        return values.round().to(torch.uint8).reshape(-1, side, side, 3)

    views = export_map(step, frames) if is_in_onnx_export() else _in_chunks(step, frames)
    return views.permute(3, 0, 1, 2).contiguous()


def _in_chunks(step: Callable[[Tensor], Tensor], frames: Tensor) -> Tensor:
    """`step(frames)`, computed for a few frames (or their numbers) at a time."""
    if is_in_onnx_export():
        return step(frames)
    size = _GPU_FRAMES if frames.is_cuda else _CPU_FRAMES
    return torch.cat([step(frames[i : i + size]) for i in range(0, max(1, len(frames)), size)])


def _sources(places: Tensor, scale: Tensor, length: Tensor) -> _Axis:
    """Where output pixels `places` of an axis come from: (place + 0.5) * scale - 0.5, rounded once to float32."""
    at = ((places.double() + 0.5) * scale.double() - 0.5).float()
    first = torch.minimum(at.long(), length - 1)
    weight = (at - first.float()).clamp(min=0)
    return _Axis(first, torch.minimum(first + 1, length - 1), weight)


def _bilinear(frames: Tensor, times: Tensor, down: _Axis, across: _Axis, divisor: int) -> Tensor:
    """Interpolated values / divisor of frames number `times`, float32 (t, N, 3), N over `down` times `across`."""

    def tap(rows: Tensor, columns: Tensor) -> Tensor:
        values = _take(frames, times, rows, columns).float()
        # By a tensor: a GPU divides by a number as a multiplication with its inverse, which rounds otherwise.
        return values if divisor == 1 else values / values.new_full((1,), divisor)

    shape = torch.broadcast_shapes(down.weight.shape, across.weight.shape)  # type: ignore[no-untyped-call]
    below, right = (weight.expand(shape).reshape(-1, 1) for weight in (down.weight, across.weight))
    upper, lower = (
        _mixed(tap(rows, across.first), tap(rows, across.second), right) for rows in (down.first, down.second)
    )
    return _mixed(upper, lower, below)


def _mixed(first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
    """first * (1 - weight) + second * weight as torch's kernel has it: the second product rounded, the first fused.

    The product of two float32 is exact in float64. Rounding twice differs from a fused operation once in 2**29.
    """
    return (first.double() * (1 - weight).double() + (second * weight).double()).float()


def _take(frames: Tensor, times: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Pixels of frames number `times`, uint8 (t, N, 3), N over the broadcast shape of `rows` and `columns`."""
    height, width = operators.shape_as_tensor(frames)[1:3]
    places = (rows * width + columns).reshape(-1)
    # Out of all frames at once: to cut out the wanted ones first would copy them in the graph.
    chosen = (times[:, None] * (height * width) + places).reshape(-1)
    return frames.flatten(0, 2).index_select(0, chosen).reshape(-1, places.shape[0], 3)


def _antialiased(frames: Tensor, side: int) -> Tensor:
    """Values before rounding, float32 (T, side, side, 3)."""
    planes = frames.permute(0, 3, 1, 2).float()
    if is_in_onnx_export():
        height, width = operators.shape_as_tensor(frames)[1:3]
        found = _triangles(height, side) @ (planes @ _triangles(width, side).T)
    else:
        size = (side, side)
        found = functional.interpolate(planes.contiguous(), size, mode="bilinear", align_corners=False, antialias=True)
    return found.permute(0, 2, 3, 1)


def _triangles(length: Tensor, side: int) -> Tensor:
    """Weights of the antialiased filter along one axis, float32 (side, length)."""
    scale = length.float() / side
    centres = scale * (torch.arange(side) + 0.5)
    pixels = torch.arange(length) + 0.5  # type: ignore[call-overload]  # a tensor, so that it is traced
    weights: Tensor = (1 - (pixels - centres[:, None]).abs() / scale.clamp(min=1)).clamp(min=0)
    return weights / weights.sum(1, keepdim=True)

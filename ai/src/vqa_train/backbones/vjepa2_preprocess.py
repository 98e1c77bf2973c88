"""V-JEPA 2's official preprocessing without torchvision: resize the shorter side, crop the centre, normalise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.onnx import is_in_onnx_export, operators

from vqa_train.backbones.graph_loop import export_loop
from vqa_train.backbones.resize import axis_weights, block_bounds, resize_window

# The mean and standard deviation of ImageNet's red, green and blue, of values in 0..1.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
# Frames resized in float at once: a whole clip would take four times its memory.
_FLOAT_FRAMES = 8


def resized(height: Any, width: Any, crop: int) -> tuple[Any, Any]:
    """Height and width after the resize, rounded down: the shorter side is int(crop * 256 / 224).

    Args:
        height, width: numbers, or int64 scalars while a graph is traced.
        crop: side of the square that is cut out afterwards.
    """
    shorter = torch.minimum(height, width) if isinstance(height, Tensor) else min(height, width)
    side = crop * 256 // 224
    return side * height // shorter, side * width // shorter


def centre_views(frames: Tensor, crop: int) -> Tensor:
    """The official processor's frames before normalisation, uint8 (T, 3, crop, crop).

    Bit-equal to it on the CPU and in the ONNX graph; within one grey level on other devices.

    Args:
        frames: uint8 RGB (T, H, W, 3) of any size; small frames are enlarged.
        crop: side in pixels.
    """
    if is_in_onnx_export():
        return graph_views(frames, crop)
    if frames.device.type == "cpu":
        return _resized_window(frames, crop).contiguous()
    return float_views(frames, crop)


def float_views(frames: Tensor, crop: int) -> Tensor:
    """`centre_views` where torch resizes in float only: at most one grey level from it."""
    parts = [_resized_window(part.float(), crop) for part in torch.split(frames, _FLOAT_FRAMES)]
    return torch.cat(parts).round_().clamp_(0, 255).to(torch.uint8)


def graph_views(frames: Tensor, crop: int) -> Tensor:
    """`centre_views` by exact matrix products, for frames of any size in one traced graph; the same bits."""
    rows, columns = _axes(frames, crop)
    down, across = axis_weights(*rows, crop), axis_weights(*columns, crop)

    def step(frame: Tensor, across: Tensor, down: Tensor) -> Tensor:
        rows, columns = _axes(frame, crop)
        return resize_window(frame[0], across, down, block_bounds(*rows, crop), block_bounds(*columns, crop))[None]

    if is_in_onnx_export():
        return export_loop(step, frames, across, down)
    return torch.cat([step(frames[i : i + 1], across, down) for i in range(len(frames))])


def _axes(frames: Tensor, crop: int) -> tuple[tuple[Tensor, Tensor, Tensor], ...]:
    """Pixels before and after the resize and the first pixel of the crop, of rows and of columns."""
    height, width = operators.shape_as_tensor(frames)[1:3]
    tall, wide = resized(height, width, crop)
    return (height, tall, (tall - crop) // 2), (width, wide, (wide - crop) // 2)


def normalise(views: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(views - mean) / std, float32; uint8 (..., 3, h, w), and 255 times MEAN and STD as `grey_levels` gives them."""
    return (views.float() - mean) / std


def grey_levels(values: tuple[float, ...]) -> Tensor:
    """255 times one value per channel, float32 (3, 1, 1), rounded as the official processor rounds it."""
    return (torch.tensor(values) * 255).reshape(3, 1, 1)


def _resized_window(frames: Tensor, crop: int) -> Tensor:
    """torch's resize of (T, H, W, 3) and its centre, (T, 3, crop, crop), in the type of `frames`."""
    size = resized(frames.shape[1], frames.shape[2], crop)
    top, left = ((length - crop) // 2 for length in size)
    found = functional.interpolate(frames.permute(0, 3, 1, 2), size=size, mode="bilinear", antialias=True)
    return found[:, :, top : top + crop, left : left + crop]

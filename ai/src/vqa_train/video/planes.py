"""Stored YUV 4:2:0 planes as they are, for conversion on a GPU: which videos have them, and how they are packed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import av
import numpy as np

from vqa_train.core.types import YuvFormat

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FULL_RANGE = 2
# AVColorSpace -> matrix; FFmpeg takes what is not tagged for BT.601.
_MATRICES = {1: "bt709", 2: "bt601", 4: "fcc", 5: "bt601", 6: "bt601", 9: "bt2020"}


def yuv_format(frame: av.VideoFrame) -> YuvFormat | None:
    """What the planes of a decoded frame mean; None where they are not 8-bit 4:2:0 of even size with a known matrix."""
    if frame.format.name not in ("yuv420p", "yuvj420p", "nv12") or frame.width % 2 or frame.height % 2:
        return None
    matrix = _MATRICES.get(int(frame.colorspace))
    full = frame.format.name == "yuvj420p" or int(frame.color_range) == _FULL_RANGE
    return YuvFormat(matrix=matrix, full_range=full) if matrix else None


def pack(frame: av.VideoFrame, out: NDArray[np.uint8]) -> None:
    """Copy the planes of a frame into uint8 (3 * H / 2, W): H rows of luma, then U, then V, flattened into rows."""
    height, width = frame.height, frame.width
    out[:height] = _stored(frame.planes[0], height, width)
    chroma = out[height:].reshape(2, height // 2, width // 2)
    if frame.format.name == "nv12":
        chroma[...] = np.moveaxis(
            _stored(frame.planes[1], height // 2, width).reshape(height // 2, width // 2, 2), 2, 0
        )
    else:
        for plane, samples in zip(frame.planes[1:], chroma, strict=True):
            samples[...] = _stored(plane, height // 2, width // 2)


def _stored(plane: Any, rows: int, row_bytes: int) -> NDArray[np.uint8]:
    """The bytes of a plane; its rows are padded, and NumPy's strides step over the padding without a copy."""
    return np.ndarray((rows, row_bytes), np.uint8, buffer=plane, strides=(plane.line_size, 1))

"""From stored pictures to what a player shows: square pixels and the turn or mirror of the display matrix."""

from __future__ import annotations

import struct
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vqa_train.video.probe import VideoInfo

# Display matrix [a b; c d] (ISO/IEC 14496-12, 6.2.2; x right, y down) -> (degrees clockwise, mirrored first).
_TURNS = {
    (1, 0, 0, 1): (0, False),
    (0, 1, -1, 0): (90, False),
    (-1, 0, 0, -1): (180, False),
    (0, -1, 1, 0): (270, False),
    (-1, 0, 0, 1): (0, True),
    (0, -1, -1, 0): (90, True),
    (1, 0, 0, -1): (180, True),
    (0, 1, 1, 0): (270, True),
}


def orientation(frame: av.VideoFrame) -> tuple[int, bool] | None:
    """(degrees clockwise in {0, 90, 180, 270}, mirrored left-right before turning) of a decoded frame.

    None when the display matrix is no turn by quarters (within about one degree): scaled, skewed or empty.
    """
    side_data: Any = frame.side_data.get("DISPLAYMATRIX") if len(frame.side_data) else None
    if side_data is None:
        return 0, False
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(side_data))
    norm = max(abs(v) for v in (a, b, c, d)) or 1
    unit = [v / norm for v in (a, b, c, d)]
    if any(min(abs(v), abs(abs(v) - 1)) > 0.02 for v in unit):
        return None
    return _TURNS.get((round(unit[0]), round(unit[1]), round(unit[2]), round(unit[3])))


def displayed_size(width: int, height: int, sample_aspect_ratio: Fraction, rotation: int) -> tuple[int, int]:
    """(width, height) in square pixels after turning: the stored width is scaled, the stored height kept."""
    square = max(1, round(width * sample_aspect_ratio)), height
    return (square[1], square[0]) if rotation in (90, 270) else square


def to_display(rgb: av.VideoFrame, info: VideoInfo) -> NDArray[np.uint8]:
    """A stored rgb24 picture as shown: uint8 (info.height, info.width, 3), maybe a view of the frame's memory."""
    width = max(1, round(rgb.width * info.sample_aspect_ratio))
    if width != rgb.width:
        rgb = rgb.reformat(width=width, interpolation="BICUBIC")
    plane: Any = rgb.planes[0]
    shape = (rgb.height, rgb.width, 3)
    # Rows of a plane are padded; NumPy's strides step over the padding without a copy.
    stored = np.ndarray(shape, np.uint8, buffer=plane, strides=(plane.line_size, 3, 1))
    if info.mirrored:
        stored = stored[:, ::-1]
    return np.rot90(stored, -info.rotation // 90)

"""YUV 4:2:0 planes to RGB on whatever device they are, as swscale does it on the CPU, within one grey level.

Coefficients follow from the matrix's luma weights as in ITU-R BT.601, BT.709 and BT.2020; like swscale's, the sums take
each product rounded down, and each chroma sample stands for its four pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vqa_train.core.types import YuvFormat

# Weights of red and blue in luma.
_LUMA_WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593), "fcc": (0.3, 0.11)}


def planes_to_rgb(planes: Tensor, yuv: YuvFormat) -> Tensor:
    """RGB of packed planes.

    Args:
        planes: uint8 (T, 3 * H / 2, W): H rows of luma, then the H / 2 x W / 2 samples of U and of V, each plane
            flattened into rows of W.
        yuv: matrix and range.

    Returns:
        uint8 (T, H, W, 3), on the same device.
    """
    count, rows, width = planes.shape
    height = rows * 2 // 3
    luma = planes[:, :height].float()
    chroma = planes[:, height:].reshape(count, 2, height // 2, width // 2).float() - 128.0
    red, blue = _LUMA_WEIGHTS[yuv.matrix]
    green = 1.0 - red - blue
    scale = 1.0 if yuv.full_range else 255.0 / 224.0
    if not yuv.full_range:
        luma = ((luma - 16.0) * (255.0 / 219.0)).floor()
    u, v = chroma.unbind(1)
    shifts = torch.stack(
        [
            (v * (2 * (1 - red) * scale)).floor(),
            (u * (-2 * blue * (1 - blue) / green * scale)).floor()
            + (v * (-2 * red * (1 - red) / green * scale)).floor(),
            (u * (2 * (1 - blue) * scale)).floor(),
        ],
        dim=-1,
    )
    # Each chroma sample onto its four pixels, without making four copies of it.
    grid = luma.reshape(count, height // 2, 2, width // 2, 2, 1) + shifts[:, :, None, :, None, :]
    return grid.clamp_(0, 255).to(torch.uint8).reshape(count, height, width, 3)

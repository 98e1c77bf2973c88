"""Full-reference measures of how far a distorted clip is from its pristine source, from published formulas.

- gradient magnitude similarity: Xue, Zhang, Mou, Bovik 2014, "Gradient Magnitude Similarity Deviation", IEEE TIP 23(2);
- over scales: Zhang, Sun, Liang 2017, "Gradient Magnitude Similarity Deviation on Multiple Scales", ICASSP;
- chromaticity similarity: Nafchi et al. 2016, "Mean Deviation Similarity Index", IEEE Access 4;
- delay of repeated frames: Wolf and Pinson 2011, "Video Quality Model for Variable Frame Delay", NTIA TM-11-482.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

GRADIENT_C = 170.0
CHROMA_C = 550.0
MOTION_C = 20.0
_BLOCK = 4


def halve(planes: NDArray[np.uint8] | Array) -> Array:
    """Mean of 2 x 2 pixels over the last two axes; odd last rows and columns are dropped; float32."""
    height, width = planes.shape[-2] // 2 * 2, planes.shape[-1] // 2 * 2
    even = planes[..., :height, :width].astype(np.float32)
    rows = even[..., 0::2, :] + even[..., 1::2, :]
    return (rows[..., 0::2] + rows[..., 1::2]) * np.float32(0.25)


def gradient_magnitude(luma: Array) -> Array:
    """Prewitt gradient magnitude of (..., H, W), kernels divided by 3; borders dropped: (..., H - 2, W - 2)."""
    down = luma[..., :-2, :] + luma[..., 1:-1, :] + luma[..., 2:, :]
    across = luma[..., :-2] + luma[..., 1:-1] + luma[..., 2:]
    gx = (down[..., 2:] - down[..., :-2]) / np.float32(3)
    gy = (across[..., 2:, :] - across[..., :-2, :]) / np.float32(3)
    return np.sqrt(gx * gx + gy * gy)


def similarity(a: Array, b: Array, c: float) -> Array:
    """(2ab + c) / (a^2 + b^2 + c): 1 where equal, towards 0 as they differ by far more than sqrt(c)."""
    constant = np.float32(c)
    return (2 * a * b + constant) / (a * a + b * b + constant)


def chroma_similarity(a: Array, b: Array) -> Array:
    """Joint similarity of two chroma planes (..., 2, H, W) centred on 0; (..., H, W), in (-1, 1]."""
    cross = (a * b).sum(axis=-3)
    power = (a * a).sum(axis=-3) + (b * b).sum(axis=-3)
    constant = np.float32(CHROMA_C)
    return np.asarray((2 * cross + constant) / (power + constant))


def departure(similar: Array) -> Array:
    """Root mean square of 1 - similarity over the last two axes.

    Its square is (1 - mean)^2 + variance: it holds both the mean pooling and the deviation pooling of Xue et al.
    """
    missing = 1 - similar
    return np.asarray(np.sqrt(np.mean(missing * missing, axis=(-2, -1))))


def block_motion(luma: Array, steps: int) -> Array:
    """RMS of the change since `steps` frames earlier in blocks of 4 x 4: (T, H, W) -> (T - steps, H // 4, W // 4)."""
    height, width = luma.shape[1] // _BLOCK * _BLOCK, luma.shape[2] // _BLOCK * _BLOCK
    change = luma[steps:, :height, :width] - luma[:-steps, :height, :width]
    return np.sqrt(halve(halve(change * change)))


def shown_frames(reference: Array, distorted: Array, most: int) -> NDArray[np.int64]:
    """Which frame of the reference each distorted frame shows: its own, or one up to `most` frames earlier.

    An earlier frame is chosen when the thumbnails (T, h, w), freed of their means, differ by less than half the
    squared error of the frame that is due: a repeated frame, not a coding error.
    """
    ref = (reference - reference.mean(axis=(1, 2), keepdims=True)).reshape(len(reference), -1)
    dis = (distorted - distorted.mean(axis=(1, 2), keepdims=True)).reshape(len(distorted), -1)
    shown = np.arange(len(dis))
    for t in range(len(dis)):
        errors = np.mean((ref[max(0, t - most) : t + 1] - dis[t]) ** 2, axis=1)
        best = int(np.argmin(errors))
        if errors[best] < 0.5 * errors[-1]:
            shown[t] = t - (len(errors) - 1 - best)
    return shown

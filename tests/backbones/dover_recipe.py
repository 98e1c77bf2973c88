"""Weights, inputs and videos that DOVER's golden numbers were made with, from NumPy's frozen random stream alone.

Every tensor is decided by its own key or seed, so weights and inputs are the same bits everywhere.
"""

from __future__ import annotations

import hashlib
import math
import re
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BEFORE_A_NORM = re.compile(
    r"(patch_embed\.(proj|norm)|attn\.proj|mlp\.fc2|downsample\.reduction"
    r"|downsample_layers\.(0\.0|0\.1|[123]\.1)|dwconv|pwconv2)\.(weight|bias)"
)


def uniform(seed: int, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Mean 0, variance 1."""
    return (2 * np.random.RandomState(seed).random_sample(shape) - 1) * math.sqrt(3)


def fill(key: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The tensor of one floating state-dict key."""
    values = uniform(zlib.crc32(key.encode("ascii")), shape)
    leaf = key.rsplit(".", maxsplit=1)[-1]
    if leaf in ("gamma", "beta"):
        # Four dimensions are a response normalisation, one is a layer scale.
        values = 0.5 * values if len(shape) == 4 else 0.5 + 0.1 * values
    elif leaf == "bias":
        values = 0.1 * values
    elif len(shape) == 1:
        values = 1 + 0.1 * values
    elif not leaf.endswith("_bias_table"):
        values = values / math.sqrt(math.prod(shape[1:]))
    return values.astype(np.float32)


def faint(key: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """`fill`, but what goes into a LayerNorm is a hundred times smaller, so that its epsilon shows."""
    values = fill(key, shape)
    if _BEFORE_A_NORM.search(key) and not key.endswith("dwconv.weight"):
        values = values * np.float32(0.01)
    return values


def digest(state: Mapping[str, NDArray[Any]]) -> str:
    """sha256 over the floating entries, by sorted key."""
    found = hashlib.sha256()
    for key in sorted(state):
        found.update(key.encode("ascii"))
        found.update(np.ascontiguousarray(state[key], "<f4").tobytes())
    return found.hexdigest()


def clip(seed: int, batch: int, frames: int, height: int, width: int) -> NDArray[np.float32]:
    """Normalised clips (B, 3, T, H, W): noise, and a ramp along time, height and width in one channel each."""
    values = uniform(seed, (batch, 3, frames, height, width))
    for channel, length in enumerate((frames, height, width)):
        ramp = np.arange(length, dtype=np.float64) / (length - 1) * 2 - 1
        values[:, channel] += ramp.reshape([length if axis == channel else 1 for axis in range(3)])
    return values.astype(np.float32)


def frames(seed: int, count: int, height: int, width: int) -> NDArray[np.uint8]:
    """RGB video (T, H, W, 3): noise of half the range, and a ramp down, across and along the diagonal."""
    noise = np.random.RandomState(seed).randint(0, 128, (count, height, width, 3), np.uint8)
    row, column = np.mgrid[:height, :width]
    ramps = (row * 127 // (height - 1), column * 127 // (width - 1), (row + column) * 127 // (height + width - 2))
    return noise + np.stack(ramps, -1).astype(np.uint8)

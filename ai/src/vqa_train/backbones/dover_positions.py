"""Where tokens stand in DOVER's technical network: windows, mini-patch distances, shift regions, relative index.

Everything follows from the size of the token grid; no weights are involved.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

Grid = tuple[int, int, int]

WINDOW: Grid = (8, 7, 7)


@dataclass(frozen=True, eq=False)
class Windows:
    """How a token grid is cut into windows; all tensors int64 (windows, N), N tokens in one window.

    Windows are in row-major order (d, h, w), and so are the tokens of one window.

    Attributes:
        padded: the grid, grown at the end of each axis to a multiple of the window.
        window: the nominal window, or the whole axis where that is no longer.
        shift: by how much the grid is rolled before it is cut; 0 along an axis that is one window.
        tokens: row-major position in the padded grid.
        rows, columns: mini-patch coordinates of the token, 0 .. window - 1; padding has them too.
        regions: tokens of one window attend to each other only within a region; all 0 without a shift.
    """

    padded: Grid
    window: Grid
    shift: Grid
    tokens: Tensor
    rows: Tensor
    columns: Tensor
    regions: Tensor


def relative_position_index() -> Tensor:
    """Row of a bias table for query i and key j of a nominal window: int64 (392, 392), 0 .. 2534."""
    axes = torch.meshgrid(*(torch.arange(n) for n in WINDOW), indexing="ij")
    d, h, w = ((axis.flatten()[:, None] - axis.flatten() + n - 1) for axis, n in zip(axes, WINDOW, strict=True))
    return (d * (2 * WINDOW[1] - 1) + h) * (2 * WINDOW[2] - 1) + w


@lru_cache(maxsize=16)
def windows_of(grid: Grid, *, shifted: bool) -> Windows:
    """The windows of a token grid (D, H, W), on the CPU; `shifted` for the second block of each pair."""
    window = grid_of(min(n, m) for n, m in zip(grid, WINDOW, strict=True))
    shift = grid_of(m // 2 if shifted and n > m else 0 for n, m in zip(grid, WINDOW, strict=True))
    padded = grid_of(-(-n // m) * m for n, m in zip(grid, window, strict=True))
    # A value per position of the rolled grid, cut into windows like the tokens themselves.
    positions = [torch.arange(n).roll(-s) for n, s in zip(padded, shift, strict=True)]
    regions = [_regions(n, m, s) for n, m, s in zip(padded, window, shift, strict=True)]

    def cut(d: Tensor, h: Tensor, w: Tensor) -> Tensor:
        return cut_windows((d[:, None, None] + h[:, None] + w)[None, ..., None], window)[0, ..., 0].contiguous()

    d, h, w = positions
    nought = [torch.zeros_like(axis) for axis in positions]
    return Windows(
        padded=padded,
        window=window,
        shift=shift,
        tokens=cut(d * padded[1] * padded[2], h * padded[2], w),
        rows=cut(nought[0], h * window[1] // padded[1], nought[2]),
        columns=cut(nought[0], nought[1], w * window[2] // padded[2]),
        regions=cut(regions[0] * 9, regions[1] * 3, regions[2]),
    )


def gate_of(rows: Tensor, columns: Tensor) -> Tensor:
    """Mini-patches between each pair of tokens, |rows| + |columns|: (..., N) -> (..., N, N), same dtype.

    An integer, not a flag: the published networks were trained so, although their paper describes a binary gate.
    """
    return (rows[..., :, None] - rows[..., None, :]).abs() + (columns[..., :, None] - columns[..., None, :]).abs()


def mask_of(regions: Tensor) -> Tensor:
    """Pairs of tokens that must not attend to each other: (..., N) -> bool (..., N, N)."""
    return regions[..., :, None] != regions[..., None, :]


def cut_windows(x: Tensor, window: Grid) -> Tensor:
    """(B, D, H, W, C) with axes that are multiples of the window -> (B, windows, N, C)."""
    b, d, h, w, c = x.shape
    i, j, k = window
    x = x.view(b, d // i, i, h // j, j, w // k, k, c).permute(0, 1, 3, 5, 2, 4, 6, 7)
    return x.reshape(b, d // i * (h // j) * (w // k), i * j * k, c)


def join_windows(x: Tensor, window: Grid, grid: Grid) -> Tensor:
    """The inverse of `cut_windows`: (B, windows, N, C) -> (B, D, H, W, C)."""
    (i, j, k), (d, h, w) = window, grid
    x = x.view(x.shape[0], d // i, h // j, w // k, i, j, k, x.shape[3]).permute(0, 1, 4, 2, 5, 3, 6, 7)
    return x.reshape(x.shape[0], d, h, w, x.shape[7])


def grid_of(values: Iterable[int]) -> Grid:
    """Three integers, as a grid."""
    d, h, w = values
    return d, h, w


def _regions(length: int, window: int, shift: int) -> Tensor:
    """0 before the last window, 1 up to where the rolled axis wraps around, 2 from there; int64 (length,)."""
    position = torch.arange(length)
    if not shift:
        return torch.zeros_like(position)
    return (position >= length - window).long() + (position >= length - shift).long()

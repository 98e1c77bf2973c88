"""A grid of tokens as boxes that attend within themselves: shifted windows without rolls and masks.

A shifted window that wraps around the grid falls apart into regions that do not see each other. Each region is a box
of its own here, so what a mask would hide is not computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from vqa_train.backbones.dover_positions import WINDOW, Grid, Windows, windows_of

# Tokens of a part, unless one box has more.
ROWS = 784


@dataclass(frozen=True, eq=False)
class Pattern:
    """Boxes of one part whose tokens stand to each other in the same way, and so share their biases.

    Attributes:
        kind: number of their `Boxes.kinds`.
        rows, columns: mini-patch coordinates of a box's tokens, float32 (N,).
        boxes: the boxes, as rows of the part.
    """

    kind: int
    rows: Tensor
    columns: Tensor
    boxes: tuple[slice, ...]


@dataclass(frozen=True, eq=False)
class Part:
    """A few boxes of a grid, one after the other.

    Attributes:
        tokens: position of each token in the grid, int64 (n,), 0 for padding.
        kept: which of them are no padding, int64 (<= n,); None where all are.
        padding: which of them are padding, int64; None where none is.
        patterns: of the boxes.
    """

    tokens: Tensor
    kept: Tensor | None
    padding: Tensor | None
    patterns: tuple[Pattern, ...]


@dataclass(frozen=True, eq=False)
class Boxes:
    """All boxes of a grid.

    Attributes:
        kinds: of boxes that read a table of biases in the same way, the positions of the tokens in the nominal window,
            int64 (N,).
        parts: the boxes.
    """

    kinds: tuple[Tensor, ...]
    parts: tuple[Part, ...]


@lru_cache(maxsize=16)
def boxes_of(grid: Grid, *, shifted: bool) -> Boxes:
    """The boxes of a grid (D, H, W); at 16 x 56 x 56 about a megabyte of positions."""
    windows = windows_of(grid, shifted=shifted)
    kinds: dict[bytes, tuple[int, Tensor]] = {}
    patterns: dict[tuple[int, bytes], list[tuple[int, Tensor]]] = {}
    for window, regions in enumerate(windows.regions):
        for region in regions.unique():
            tokens = (regions == region).nonzero().flatten()
            kind, _ = kinds.setdefault(_key(*_nominal(tokens)), (len(kinds), tokens))
            key = _key(windows.rows[window, tokens], windows.columns[window, tokens])
            patterns.setdefault((kind, key), []).append((window, tokens))
    parts: list[Part] = []
    waiting: list[tuple[int, list[tuple[int, Tensor]]]] = []
    for (kind, _), boxes in patterns.items():
        size = len(boxes[0][1])
        step = max(1, ROWS // size)
        for start in range(0, len(boxes), step):
            group = boxes[start : start + step]
            if sum(len(tokens) for _, held in waiting for _, tokens in held) + size * len(group) > ROWS and waiting:
                parts.append(_part(windows, grid, waiting))
                waiting = []
            waiting.append((kind, group))
    parts.append(_part(windows, grid, waiting))
    return Boxes(kinds=tuple(tokens for _, tokens in kinds.values()), parts=tuple(parts))


def _nominal(tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Coordinates (d, h, w) in the nominal window, which decide where a table is read."""
    area = WINDOW[1] * WINDOW[2]
    return tokens // area, tokens % area // WINDOW[2], tokens % WINDOW[2]


def _key(*coordinates: Tensor) -> bytes:
    """What is left of coordinates when only their differences count."""
    return torch.stack([axis - axis.min() for axis in coordinates]).numpy().tobytes()


def _part(windows: Windows, grid: Grid, groups: list[tuple[int, list[tuple[int, Tensor]]]]) -> Part:
    places, patterns, start = [], [], 0
    for kind, boxes in groups:
        slices = []
        for window, tokens in boxes:
            places.append(windows.tokens[window, tokens])
            slices.append(slice(start, start + len(tokens)))
            start += len(tokens)
        window, tokens = boxes[0]
        rows, columns = (axis[window, tokens].float() for axis in (windows.rows, windows.columns))
        patterns.append(Pattern(kind=kind, rows=rows, columns=columns, boxes=tuple(slices)))
    place = torch.cat(places)
    _, height, width = windows.padded
    d, h, w = place // (height * width), place // width % height, place % width
    inside = (d < grid[0]) & (h < grid[1]) & (w < grid[2])
    tokens = torch.where(inside, (d * grid[1] + h) * grid[2] + w, 0)
    if inside.all():
        return Part(tokens=tokens, kept=None, padding=None, patterns=tuple(patterns))
    kept, padding = inside.nonzero().flatten(), (~inside).nonzero().flatten()
    return Part(tokens=tokens, kept=kept, padding=padding, patterns=tuple(patterns))

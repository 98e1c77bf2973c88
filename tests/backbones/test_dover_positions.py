"""Windows, gates, masks and the relative index of DOVER against the official code's, and the boxes made of them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vqa_train.backbones.dover_boxes import boxes_of
from vqa_train.backbones.dover_positions import (
    WINDOW,
    Grid,
    cut_windows,
    gate_of,
    join_windows,
    mask_of,
    relative_position_index,
    windows_of,
)

GOLDEN: dict[str, NDArray[np.generic]] = dict(np.load(Path(__file__).parents[1] / "golden" / "dover_grpb.npz"))
CASES = sorted({key.rsplit("/", 1)[0] for key in GOLDEN if "shift" in key})
# The usual grids, padded ones, and ones smaller than a window along some axes.
GRIDS: list[Grid] = [(16, 14, 7), (16, 7, 7), (8, 9, 13), (9, 8, 5), (3, 4, 15), (8, 7, 7), (1, 1, 1)]


def sha256(array: NDArray[np.generic]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def parsed(case: str) -> tuple[Grid, Grid]:
    grid, shift = case.split("/shift")
    d, h, w = (int(n) for n in grid.split("x"))
    return (d, h, w), (int(shift[0]), int(shift[1]), int(shift[2]))


def test_the_relative_index_is_the_official_one() -> None:
    index = relative_position_index().numpy()
    assert index.dtype == np.int64
    assert index.shape == tuple(GOLDEN["relative_position_index/shape"])
    assert sha256(index) == str(GOLDEN["relative_position_index/sha256_int64"])
    np.testing.assert_array_equal(index[0], GOLDEN["relative_position_index/row0"])
    np.testing.assert_array_equal([index.min(), index.max()], GOLDEN["relative_position_index/minmax"])


@pytest.mark.parametrize("case", CASES)
def test_gates_are_the_official_ones(case: str) -> None:
    grid, shift = parsed(case)
    windows = windows_of(grid, shifted=any(shift))
    assert windows.shift == shift
    gate = gate_of(windows.rows, windows.columns).numpy().astype(np.uint8)
    assert sha256(gate) == str(GOLDEN[f"{case}/gate_sha256_u8"])
    assert gate.max() == GOLDEN[f"{case}/gate_max"]
    np.testing.assert_array_equal(gate.sum((1, 2), dtype=np.int64), GOLDEN[f"{case}/gate_window_sum"])
    np.testing.assert_array_equal(gate[-1, 0], GOLDEN[f"{case}/gate_last_window_row0"])


@pytest.mark.parametrize("case", [case for case in CASES if f"{case}/mask_sha256_bool" in GOLDEN])
def test_masks_are_the_official_ones(case: str) -> None:
    windows = windows_of(parsed(case)[0], shifted=True)
    mask = mask_of(windows.regions).numpy()
    assert sha256(mask.astype(np.uint8)) == str(GOLDEN[f"{case}/mask_sha256_bool"])
    np.testing.assert_array_equal(mask.sum((1, 2)), GOLDEN[f"{case}/mask_window_count"])
    gate = gate_of(windows.rows, windows.columns).numpy()
    assert gate[~mask].max() == GOLDEN[f"{case}/gate_max_unmasked"]


def test_mini_patches_are_as_many_as_the_window_is_long() -> None:
    windows = windows_of((8, 5, 14), shifted=False)
    assert windows.window == (8, 5, 7)
    assert windows.rows[0].view(8, 5, 7)[3, :, 2].tolist() == [0, 1, 2, 3, 4]
    assert windows.columns[1].view(8, 5, 7)[3, 2].tolist() == [3, 4, 4, 5, 5, 6, 6]
    wide = windows_of((8, 7, 20), shifted=False)
    assert wide.padded == (8, 7, 21)
    assert wide.columns.view(3, 8, 7, 7)[:, 0, 0].flatten().tolist() == [i for i in range(7) for _ in range(3)]


@pytest.mark.parametrize("grid", [(16, 14, 21), (8, 7, 7)])
def test_windows_are_cut_as_tokens_are_numbered(grid: Grid) -> None:
    x = torch.arange(2 * np.prod(grid) * 3).view(2, *grid, 3)
    cut = cut_windows(x, WINDOW)
    tokens = windows_of(grid, shifted=False).tokens
    assert torch.equal(cut[1, :, :, 2], x[1, ..., 2].flatten()[tokens])
    assert torch.equal(join_windows(cut, WINDOW, grid), x)


def test_a_rolled_grid_is_numbered_by_where_its_tokens_came_from() -> None:
    windows = windows_of((16, 14, 14), shifted=True)
    numbered = torch.arange(16 * 14 * 14).view(1, 16, 14, 14, 1).roll([-4, -3, -3], (1, 2, 3))
    assert torch.equal(windows.tokens, cut_windows(numbered, WINDOW)[0, ..., 0])


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("grid", GRIDS)
def test_boxes_hold_the_pairs_that_the_mask_leaves(grid: Grid, shifted: bool) -> None:
    """Every pair of tokens with its gate and its place in the tables: from windows and masks, and from boxes."""
    windows, boxes = windows_of(grid, shifted=shifted), boxes_of(grid, shifted=shifted)
    index = relative_position_index()
    in_padded = torch.full(windows.padded, -1)
    in_padded[: grid[0], : grid[1], : grid[2]] = torch.arange(int(np.prod(grid))).view(grid)

    def pairs(tokens: torch.Tensor, *matrices: torch.Tensor) -> NDArray[np.int64]:
        i, j = tokens[:, None].expand(-1, len(tokens)), tokens.expand(len(tokens), -1)
        return torch.stack([i, j, *(matrix.long() for matrix in matrices)], -1).flatten(0, -2).numpy()

    expected = []
    for window in range(len(windows.tokens)):
        n = len(windows.tokens[window])
        gate = gate_of(windows.rows[window], windows.columns[window])
        found = pairs(in_padded.flatten()[windows.tokens[window]], gate, index[:n, :n])
        expected.append(found[~mask_of(windows.regions[window]).flatten().numpy()])
    actual, seen = [], []
    for part in boxes.parts:
        tokens = part.tokens.clone()
        if part.padding is not None:
            tokens[part.padding] = -1
            assert part.kept is not None
            assert sorted([*part.kept.tolist(), *part.padding.tolist()]) == list(range(len(tokens)))
        seen.append(tokens)
        for pattern in part.patterns:
            gate, places = gate_of(pattern.rows, pattern.columns), boxes.kinds[pattern.kind]
            actual += [pairs(tokens[box], gate, index[places][:, places]) for box in pattern.boxes]
    np.testing.assert_array_equal(*(rows[np.lexsort(rows.T)] for rows in map(np.concatenate, (expected, actual))))
    kept = torch.cat(seen)
    assert torch.equal(kept[kept >= 0].sort().values, torch.arange(int(np.prod(grid))))

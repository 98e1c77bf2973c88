"""What is shown against the matrix arithmetic of ISO/IEC 14496-12, for all eight turns and mirrors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vqa_train.core.types import Sampling
from vqa_train.video.decode import read_clips
from vqa_train.video.display import displayed_size

ONE = 1 << 16
MATRICES = [(1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0), (-1, 0, 0, 1), (0, -1, -1, 0), (1, 0, 0, -1)]
MATRICES.append((0, 1, 1, 0))


def shown_by_matrix(stored: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """Every pixel (x, y) goes to (a x + c y, b x + d y), shifted so that the picture begins at the origin."""
    a, b, c, d = matrix
    height, width = stored.shape[:2]
    y, x = np.mgrid[:height, :width]
    to_x, to_y = a * x + c * y, b * x + d * y
    to_x, to_y = to_x - to_x.min(), to_y - to_y.min()
    shown = np.empty((to_y.max() + 1, to_x.max() + 1, 3), np.uint8)
    shown[to_y, to_x] = stored
    return shown


@pytest.mark.parametrize("matrix", MATRICES)
def test_every_turn_and_mirror_follows_the_matrix(
    tmp_path: Path, make_video: Callable[..., Path], every_frame: Callable[..., np.ndarray], matrix: tuple[int, ...]
) -> None:
    a, b, c, d = (v * ONE for v in matrix)
    path = make_video(tmp_path / "turned.mp4", frames=2, matrix=[a, b, 0, c, d, 0, 0, 0, 1 << 30])
    [[clip]] = read_clips(path, [Sampling(mode="uniform", n=2)])
    expected = np.stack([shown_by_matrix(frame, matrix) for frame in every_frame(path)])
    np.testing.assert_array_equal(clip.frames, expected)
    assert (clip.height, clip.width) == expected.shape[1:3]


def test_oblong_pixels_become_square(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    disc = np.full((96, 128, 3), 255, np.uint8)
    y, x = np.mgrid[:96, :128]
    disc[((x - 64) * 4 / 3) ** 2 + (y - 48) ** 2 < 40**2] = 0
    path = make_video(tmp_path / "disc.mp4", frames=[disc], sar="4/3")
    [[clip]] = read_clips(path, [Sampling(mode="uniform", n=1)])
    black = clip.frames[0, :, :, 0] < 128
    assert clip.frames.shape == (1, 96, 171, 3)
    assert abs(int(black.any(0).sum()) - int(black.any(1).sum())) <= 2


@pytest.mark.parametrize(("turn", "size"), [(0, (171, 96)), (90, (96, 171)), (180, (171, 96)), (270, (96, 171))])
def test_displayed_size(turn: int, size: tuple[int, int]) -> None:
    from fractions import Fraction

    assert displayed_size(128, 96, Fraction(4, 3), turn) == size

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats

from vqa_train.core.errors import MediaError
from vqa_train.datasets.ladder import pseudo_mos
from vqa_train.datasets.ladder.distortions import KINDS, LEVELS, available_kinds
from vqa_train.datasets.ladder.frames import Frames, read_frames
from vqa_train.datasets.ladder.pseudo_mos import Reference

RNG = np.random.default_rng(0)
PREWITT = np.array([[1, 0, -1], [1, 0, -1], [1, 0, -1]]) / 3


def gradient_similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Xue et al. 2014 with SciPy's convolution."""
    squares = []
    for image in (a, b):
        gx, gy = (scipy.ndimage.convolve(image, kernel)[1:-1, 1:-1] for kernel in (PREWITT, PREWITT.T))
        squares.append(gx**2 + gy**2)
    return (2 * np.sqrt(squares[0] * squares[1]) + 170) / (squares[0] + squares[1] + 170)


def spatial_by_hand(a: np.ndarray, a_chroma: np.ndarray, b: np.ndarray, b_chroma: np.ndarray) -> float:
    """The documented formula, written again without the package's helpers."""
    colour = (2 * (a_chroma * b_chroma).sum(0) + 550) / ((a_chroma**2).sum(0) + (b_chroma**2).sum(0) + 550)
    total = 0.0
    for scale, weight in enumerate((0.096, 0.596, 0.289)):
        similar = gradient_similarity(a, b) * (colour[1:-1, 1:-1] if scale == 1 else 1)
        total += weight * ((1 - similar) ** 2).mean()
        a, b = (x.reshape(x.shape[0] // 2, 2, x.shape[1] // 2, 2).mean((1, 3)) for x in (a, b))
    return float(np.sqrt(total / 0.981))


def test_the_spatial_part_agrees_with_an_independent_implementation() -> None:
    a, b = RNG.uniform(0, 255, (2, 32, 48))
    a_chroma, b_chroma = RNG.uniform(-60, 60, (2, 2, 16, 24))
    expected = spatial_by_hand(a, a_chroma, b, b_chroma)
    got = pseudo_mos.spatial_departure(
        (a.astype(np.float32), a_chroma.astype(np.float32)), (b.astype(np.float32), b_chroma.astype(np.float32))
    )
    assert got == pytest.approx(expected, rel=1e-5)


def test_the_logistic_by_hand() -> None:
    assert pseudo_mos.to_pseudo_mos(0, 0) == 5
    assert pseudo_mos.to_pseudo_mos(0.12, 0) == pytest.approx(3)
    assert pseudo_mos.to_pseudo_mos(0, 0.2) == pytest.approx(3)
    assert pseudo_mos.to_pseudo_mos(0.24, 0) == pytest.approx(1 + 4 / 5)
    assert 1 < pseudo_mos.to_pseudo_mos(1, 1) < 1.05


def test_pooling_by_hand() -> None:
    values = np.zeros(20, np.float32)
    values[[3, 7]] = (1.0, 0.5)
    # Mean 0.075; worst tenth: the two of twenty, mean 0.75.
    assert pseudo_mos.pool(values) == pytest.approx((0.075 + 0.75) / 2)


def test_the_pristine_clip_has_the_highest_score(clips: dict[str, Frames]) -> None:
    for pristine in clips.values():
        score = Reference(pristine).score(pristine)
        assert (score.pseudo_mos, score.spatial, score.temporal) == (5, 0, 0)


@pytest.mark.parametrize("scene", ["foliage-0", "clouds-0"])
@pytest.mark.parametrize("kind", available_kinds())
def test_every_level_is_worse_than_the_one_below(clips: dict[str, Frames], scene: str, kind: str) -> None:
    pristine = clips[scene]
    reference = Reference(pristine)
    files = (KINDS[kind].render(pristine, level, np.random.default_rng(1)) for level in range(1, LEVELS + 1))
    scores = [reference.score(read_frames(file)).pseudo_mos for file in files]
    assert scipy.stats.spearmanr(range(LEVELS), scores).statistic == pytest.approx(-1)
    assert scores[0] < 5
    assert scores[0] - scores[-1] > 0.5


def grey(values: np.ndarray, fps: int = 24) -> Frames:
    """A clip without any structure, of one grey level per frame."""
    luma = np.broadcast_to(values[:, None, None], (len(values), 64, 64)).astype(np.uint8)
    return Frames(luma, np.full((len(values), 2, 32, 32), 128, np.uint8), Fraction(fps))


def test_flicker_is_seen_by_the_temporal_part_alone() -> None:
    still = grey(np.full(24, 100))
    flickering = grey(100 + 10 * (np.arange(24) % 2))
    score = Reference(still).score(flickering)
    assert score.spatial == 0
    # Steps 1, 2, 4 and 8: the first changes by 10 in every frame (similarity 20 / 120), the others not at all.
    assert score.temporal == pytest.approx((23 / 24 + 1) / 2 * (1 - 20 / 120) / 4, rel=1e-5)


def test_a_freeze_is_seen_by_the_temporal_part_alone(clips: dict[str, Frames]) -> None:
    pristine = clips["foliage-0"]
    shown = np.arange(len(pristine))
    shown[10:20] = 10
    frozen = replace(pristine, luma=pristine.luma[shown], chroma=pristine.chroma[shown])
    score = Reference(pristine).score(frozen)
    assert score.spatial < 0.01
    assert score.temporal > 0.1


def test_a_clip_of_another_length_is_refused(clips: dict[str, Frames]) -> None:
    pristine = clips["foliage-0"]
    shorter = Frames(pristine.luma[:-1], pristine.chroma[:-1], pristine.fps)
    with pytest.raises(MediaError, match=r"\(47, 90, 160\), its reference \(48, 90, 160\)"):
        Reference(pristine).score(shorter)


def test_a_large_clip_is_measured_at_a_smaller_size() -> None:
    noise = RNG.integers(16, 236, (4, 800, 800), dtype=np.uint8)
    chroma = np.full((4, 2, 400, 400), 128, np.uint8)
    large = Reference(Frames(noise, chroma, Fraction(24))).score(Frames(noise[::-1], chroma, Fraction(24)))
    halved = np.rint(noise.reshape(4, 200, 4, 200, 4).mean((2, 4))).astype(np.uint8)
    small = Frames(halved, chroma[..., :100, :100], Fraction(24))
    expected = Reference(small).score(Frames(halved[::-1], small.chroma, Fraction(24)))
    assert large.pseudo_mos == pytest.approx(expected.pseudo_mos, abs=0.02)

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage

from vqa_train.datasets.ladder import measures

RNG = np.random.default_rng(0)
PREWITT = np.array([[1, 0, -1], [1, 0, -1], [1, 0, -1]]) / 3


def published_gmsd(reference: np.ndarray, distorted: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of the gradient similarity at one scale, as in Xue et al., with SciPy."""
    magnitude = []
    for image in (reference, distorted):
        gx = scipy.ndimage.convolve(image, PREWITT)[1:-1, 1:-1]
        gy = scipy.ndimage.convolve(image, PREWITT.T)[1:-1, 1:-1]
        magnitude.append(np.sqrt(gx**2 + gy**2))
    a, b = magnitude
    similar = (2 * a * b + 170) / (a**2 + b**2 + 170)
    return float(similar.mean()), float(similar.std())


def test_gradient_similarity_agrees_with_the_published_formula() -> None:
    reference = RNG.uniform(0, 255, (40, 50))
    distorted = np.clip(reference + RNG.normal(0, 30, (40, 50)), 0, 255)
    mean, deviation = published_gmsd(reference, distorted)
    gradients = (measures.gradient_magnitude(image.astype(np.float32)) for image in (reference, distorted))
    similar = measures.similarity(*gradients, measures.GRADIENT_C)
    assert similar.shape == (38, 48)
    assert similar.mean() == pytest.approx(mean, abs=1e-5)
    assert similar.std() == pytest.approx(deviation, abs=1e-5)
    assert float(measures.departure(similar)) == pytest.approx(np.hypot(1 - mean, deviation), abs=1e-5)


def test_gradient_of_a_ramp_is_twice_its_slope() -> None:
    # Prewitt spans two pixels: (3 s * 2) / 3.
    ramp = np.tile(np.arange(10, dtype=np.float32) * 5, (8, 1))
    np.testing.assert_allclose(measures.gradient_magnitude(ramp), 10.0)


def test_chroma_similarity_by_hand() -> None:
    a = np.array([30.0, 40.0], np.float32).reshape(2, 1, 1)
    b = np.array([30.0, -40.0], np.float32).reshape(2, 1, 1)
    # (2 (900 - 1600) + 550) / (2500 + 2500 + 550)
    assert measures.chroma_similarity(a, b).item() == pytest.approx((-1400 + 550) / 5550)
    assert measures.chroma_similarity(a, a).item() == pytest.approx(1)


@pytest.mark.parametrize("shape", [(6, 8), (7, 9), (2, 6, 8)])
def test_halving_is_the_mean_of_four(shape: tuple[int, ...]) -> None:
    planes = RNG.integers(0, 256, shape, dtype=np.uint8)
    even = planes[..., : shape[-2] // 2 * 2, : shape[-1] // 2 * 2].astype(float)
    expected = even.reshape(*shape[:-2], shape[-2] // 2, 2, shape[-1] // 2, 2).mean(axis=(-3, -1))
    np.testing.assert_allclose(measures.halve(planes), expected)


def test_block_motion_is_the_rms_of_the_change_in_each_block() -> None:
    luma = np.zeros((3, 8, 9), np.float32)
    luma[2, :4, :4] = 6
    luma[2, 4, 4] = 8
    np.testing.assert_allclose(measures.block_motion(luma, 2), [[[6, 0], [0, 2]]])


def test_a_frozen_picture_is_matched_with_the_frame_it_repeats() -> None:
    reference = RNG.uniform(0, 255, (8, 4, 6)).astype(np.float32)
    distorted = reference[[0, 1, 1, 1, 4, 5, 5, 7]] + RNG.normal(0, 2, (8, 4, 6)).astype(np.float32) + 20
    assert measures.shown_frames(reference, distorted, most=8).tolist() == [0, 1, 1, 1, 4, 5, 5, 7]
    assert measures.shown_frames(reference, distorted, most=1).tolist() == [0, 1, 1, 3, 4, 5, 5, 7]


def test_a_still_scene_with_noise_is_matched_with_its_own_frames() -> None:
    still = np.repeat(RNG.uniform(0, 255, (1, 8, 8)).astype(np.float32), 10, axis=0)
    noisy = still + RNG.normal(0, 5, still.shape).astype(np.float32)
    assert measures.shown_frames(still, noisy, most=9).tolist() == list(range(10))

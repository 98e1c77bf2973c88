from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage

from vqa_train.datasets.ladder import fields


@pytest.mark.parametrize("slope", [0.7, 1.0, 1.7])
def test_the_amplitude_spectrum_of_a_fractal_falls_with_its_slope(slope: float) -> None:
    field = fields.fractal(np.random.default_rng(0), 256, 256, slope)
    amplitude = np.abs(np.fft.fft2(field))
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(256), np.fft.fftfreq(256)))
    band = (radius > 0.02) & (radius < 0.4)
    measured = np.polyfit(np.log(radius[band]), np.log(amplitude[band]), 1)[0]
    assert measured == pytest.approx(-slope, abs=0.03)
    assert field.mean() == pytest.approx(0, abs=1e-5)
    assert field.std() == pytest.approx(1, abs=1e-5)


def test_a_window_at_whole_offsets_is_a_copy_that_wraps() -> None:
    texture = np.arange(20, dtype=np.float32).reshape(4, 5)
    np.testing.assert_array_equal(fields.window(texture, 3, 4, 2, 3), np.roll(texture, (-3, -4), (0, 1))[:2, :3])


def test_a_window_at_a_fractional_offset_follows_a_smooth_texture() -> None:
    x = np.arange(64) / 64 * 2 * np.pi
    texture = np.cos(x)[None, :] * np.sin(2 * x)[:, None]
    moved = fields.window(texture.astype(np.float32), 0.3, 0.6, 64, 64)
    shift = 2 * np.pi / 64
    exact = np.cos(x + 0.6 * shift)[None, :] * np.sin(2 * (x + 0.3 * shift))[:, None]
    np.testing.assert_allclose(moved, exact, atol=2e-3)


def test_sampling_agrees_with_scipy() -> None:
    rng = np.random.default_rng(1)
    texture = rng.random((17, 23), dtype=np.float32)
    y, x = rng.uniform(-40, 40, (2, 30, 30))
    expected = scipy.ndimage.map_coordinates(texture, [y, x], order=1, mode="grid-wrap")
    np.testing.assert_allclose(fields.sample(texture, y, x), expected, atol=1e-5)


def test_smoothing_agrees_with_scipy() -> None:
    image = np.random.default_rng(2).random((48, 64)).astype(np.float32)
    expected = scipy.ndimage.gaussian_filter(image, 2.0, mode="wrap", truncate=6)
    np.testing.assert_allclose(fields.smooth(image, 2.0), expected, atol=1e-4)


def test_a_path_that_wanders_has_no_energy_far_above_its_frequency() -> None:
    path = fields.wander(np.random.default_rng(3), 240, 24, 1.0)
    power = np.abs(np.fft.rfft(path)) ** 2
    fast = np.fft.rfftfreq(240, 1 / 24) > 3.5
    assert power[fast].sum() < 1e-3 * power.sum()
    assert path.std() == pytest.approx(1, abs=0.3)

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from vqa_train.datasets.ladder.dead_leaves import Shape, dead_leaves

GREYS = [(0.1, 0.1, 0.1), (0.9, 0.9, 0.9)]


def test_its_derivatives_are_heavy_tailed_as_those_of_photographs() -> None:
    image = dead_leaves(np.random.default_rng(0), 256, 256, radii=(3, 80), colours=GREYS)[..., 0]
    derivative = np.diff(image, axis=1).ravel()
    # Natural images: kurtosis far above the Gaussian's 0 (Ruderman 1994).
    assert scipy.stats.kurtosis(derivative) > 5


def test_its_spectrum_falls_as_that_of_photographs() -> None:
    image = dead_leaves(np.random.default_rng(1), 256, 256, radii=(3, 100), colours=GREYS)[..., 1]
    windowed = (image - image.mean()) * np.outer(np.hanning(256), np.hanning(256))
    power = np.abs(np.fft.fft2(windowed)) ** 2
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(256), np.fft.fftfreq(256)))
    band = (radius > 0.02) & (radius < 0.2)
    exponent = -np.polyfit(np.log(radius[band]), np.log(power[band]), 1)[0]
    assert 1.5 < exponent < 3.5


@pytest.mark.parametrize("shape", ["disc", "leaf", "box"])
def test_a_layer_leaves_gaps_and_an_opaque_picture_does_not(shape: Shape) -> None:
    rng = np.random.default_rng(2)
    layer = dead_leaves(rng, 96, 96, radii=(3, 12), colours=GREYS, shape=shape, coverage=0.5, opaque=False)
    assert layer[..., 3].min() == 0
    assert layer[..., 3].max() == pytest.approx(1)
    assert 0.1 < layer[..., 3].mean() < 0.7
    full = dead_leaves(rng, 96, 96, radii=(3, 12), colours=GREYS, shape=shape)
    assert full[..., 3].min() == pytest.approx(1, abs=1e-5)

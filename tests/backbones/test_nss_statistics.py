"""Fits against SciPy's generalised Gaussian, the rest against NumPy and scipy.ndimage in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage, optimize, special, stats

from vqa_train.backbones import nss_statistics as nss
from vqa_train.backbones.nss_statistics import SHAPE_MAX, SHAPE_MIN, Measured

SIDE = 700


def ratio(shape: float) -> float:
    return float(special.gamma(2 / shape) ** 2 / (special.gamma(1 / shape) * special.gamma(3 / shape)))


def aggd_samples(shape: float, left: float, right: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """From the density of Lasmar et al.: each side has the weight of its width; (1, SIDE, SIDE)."""
    size = (1, SIDE, SIDE)
    unit = np.abs(stats.gennorm.rvs(shape, size=size, random_state=rng)) / stats.gennorm.std(shape)
    below = rng.random(size) < left / (left + right)
    return np.where(below, -left * unit, right * unit).astype(np.float32)


def test_gamma_ratio_is_the_ratio_of_moments_of_gennorm() -> None:
    for shape in (0.3, 1.0, 2.0, 6.0):
        assert nss.gamma_ratio(shape) == pytest.approx(ratio(shape), rel=1e-9)
    assert nss.gamma_ratio(1) == pytest.approx(0.5)
    assert nss.gamma_ratio(2) == pytest.approx(2 / np.pi)


@given(st.floats(SHAPE_MIN * 1.001, SHAPE_MAX * 0.999))
def test_the_table_inverts_the_ratio_as_a_root_finder_does_to_1e_4(shape: float) -> None:
    value = ratio(shape)
    expected = optimize.brentq(lambda a: ratio(a) - value, SHAPE_MIN, SHAPE_MAX, xtol=1e-12)
    assert nss.shape_from_ratio(torch.tensor(value)).item() == pytest.approx(expected, rel=1e-4)


def test_ratios_beyond_the_table_give_its_ends() -> None:
    ends = nss.shape_from_ratio(torch.tensor([0.0, 0.05, 0.75, 1.0]))
    np.testing.assert_allclose(ends, [SHAPE_MIN, SHAPE_MIN, SHAPE_MAX, SHAPE_MAX], rtol=1e-5)


@pytest.mark.parametrize("shape", [0.3, 0.5, 1.0, 2.0, 4.0, 6.0])
def test_a_fit_recovers_the_generalised_gaussian_that_scipy_draws(shape: float) -> None:
    rng = np.random.default_rng(1)
    drawn = stats.gennorm.rvs(shape, scale=3, size=(1, SIDE, SIDE), random_state=rng).astype(np.float32)
    alpha, deviation = nss.ggd_fit(nss.ggd_moments(torch.from_numpy(drawn)))
    assert alpha.item() == pytest.approx(shape, rel=0.03)
    assert deviation.item() == pytest.approx(stats.gennorm.std(shape, scale=3), rel=0.02)


@pytest.mark.parametrize(
    ("shape", "left", "right"), [(0.5, 1, 1), (0.5, 0.3, 1.2), (1, 0.5, 2), (2, 1, 0.4), (4, 0.7, 0.9), (6, 0.5, 0.3)]
)
def test_a_fit_recovers_the_asymmetric_generalised_gaussian(shape: float, left: float, right: float) -> None:
    drawn = aggd_samples(shape, left, right, np.random.default_rng(2))
    alpha, mean, low, high = (part.item() for part in nss.aggd_fit(nss.aggd_moments(torch.from_numpy(drawn))))
    assert alpha == pytest.approx(shape, rel=0.05)
    assert low == pytest.approx(left, rel=0.02)
    assert high == pytest.approx(right, rel=0.02)
    assert mean == pytest.approx(drawn.mean(), abs=0.01)


def test_mirrored_samples_swap_the_sides() -> None:
    drawn = torch.from_numpy(aggd_samples(1, 0.5, 2, np.random.default_rng(3)))
    alpha, mean, left, right = nss.aggd_fit(nss.aggd_moments(drawn))
    mirrored = nss.aggd_fit(nss.aggd_moments(-drawn))
    torch.testing.assert_close(mirrored, (alpha, -mean, right, left), rtol=1e-4, atol=1e-4)


def test_zeros_fit_to_the_smallest_shape_and_no_deviation() -> None:
    zeros = torch.zeros(1, 8, 8)
    torch.testing.assert_close(nss.ggd_fit(nss.ggd_moments(zeros)), (torch.tensor([SHAPE_MIN]), torch.tensor([0.0])))
    fit = torch.cat(nss.aggd_fit(nss.aggd_moments(zeros)))
    torch.testing.assert_close(fit, torch.tensor([SHAPE_MIN, 0, 0, 0]))


def test_the_window_is_a_7_x_7_gaussian_of_deviation_7_6ths() -> None:
    plane = np.random.default_rng(4).uniform(0, 255, (40, 50))
    weights = stats.norm.pdf(np.arange(-3, 4), scale=7 / 6)
    weights /= weights.sum()
    expected = ndimage.correlate1d(ndimage.correlate1d(plane, weights, 0), weights, 1)[3:-3, 3:-3]
    found = nss.gaussian_blur(torch.from_numpy(plane)[None])[0]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_local_normalisation_follows_brisque() -> None:
    plane = ndimage.gaussian_filter(np.random.default_rng(5).uniform(0, 255, (60, 70)), 1) - 128
    weights = stats.norm.pdf(np.arange(-3, 4), scale=7 / 6)
    window = np.outer(weights, weights) / weights.sum() ** 2
    mean = ndimage.correlate(plane, window)
    deviation = np.sqrt(np.maximum(ndimage.correlate(plane**2, window) - mean**2, 0))
    expected = ((plane - mean) / (deviation + 1))[3:-3, 3:-3]
    mscn, found_deviation, found_mean = nss.local_normalise(torch.from_numpy(plane).float()[None])
    np.testing.assert_allclose(mscn[0], expected, atol=2e-4)
    np.testing.assert_allclose(found_deviation[0], deviation[3:-3, 3:-3], atol=2e-3)
    np.testing.assert_allclose(found_mean[0], mean[3:-3, 3:-3], atol=1e-3)


def test_means_and_deviations_are_numpys() -> None:
    planes = np.random.default_rng(6).normal(100, 20, (3, 33, 47)).astype(np.float32)
    np.testing.assert_allclose(nss.mean_hw(torch.from_numpy(planes)), planes.mean((1, 2), np.float64), rtol=1e-6)
    np.testing.assert_allclose(nss.std_hw(torch.from_numpy(planes)), planes.std((1, 2), np.float64), rtol=1e-5)


def test_halving_averages_two_by_two_and_leaves_out_an_odd_edge() -> None:
    plane = torch.arange(15.0).reshape(1, 3, 5)
    torch.testing.assert_close(nss.halve(plane), torch.tensor([[[3.0, 5.0]]]))


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=12), st.floats(0, 1))
def test_quantiles_are_numpys(values: list[float], q: float) -> None:
    found = nss.quantile(torch.tensor(values, dtype=torch.float64), q, len(values))
    assert found.item() == pytest.approx(float(np.quantile(values, q)), abs=1e-9)


def test_a_soft_share_falls_from_one_at_the_threshold_to_zero_at_twice_that() -> None:
    share = nss.soft_share(torch.tensor([0.0, 2.0, 3.0, 4.0, 9.0]), 2.0)
    torch.testing.assert_close(share, torch.tensor([1.0, 1.0, 0.5, 0.0, 0.0]))


def test_measured_fits_every_plane_under_its_own_name() -> None:
    rng = np.random.default_rng(7)
    planes = {shape: torch.from_numpy(rng.laplace(size=(2, 90, 90)).astype(np.float32)) * shape for shape in (1, 2)}
    moments = {f"p{k}": nss.ggd_moments(plane) for k, plane in planes.items()}
    measured = Measured(shapes={"s": moments["p1"]}, ggd=moments, aggd={"a": nss.aggd_moments(planes[2])})
    measured |= Measured({"v": torch.ones(2)})
    features = measured.fitted()
    assert set(features) == {
        *("v", "s_alpha", "p1_alpha", "p1_std", "p2_alpha", "p2_std"),
        *("a_alpha", "a_mean", "a_left", "a_right"),
    }
    torch.testing.assert_close(features["p2_std"], 2 * np.sqrt(2) * torch.ones(2), rtol=0.05, atol=0)
    torch.testing.assert_close(features["s_alpha"], features["p1_alpha"])


def test_the_mean_of_halves_pairs_the_first_with_the_second_half() -> None:
    measured = Measured(ggd={"p": torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]])})
    torch.testing.assert_close(measured.mean_of_halves().ggd["p"], torch.tensor([[3.0, 4.0], [5.0, 6.0]]))

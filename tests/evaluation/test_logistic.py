"""The four-parameter logistic against known curves and against a search by brute force, and what it refuses."""

from itertools import product

import numpy as np
import pytest
from scipy.optimize import curve_fit, minimize
from scipy.special import expit

from vqa_train.evaluation.curve import MappingFitError
from vqa_train.evaluation.logistic import Logistic4, fit_logistic
from vqa_train.evaluation.plcc import plcc
from vqa_train.evaluation.rmse import rmse
from vqa_train.evaluation.srocc import srocc

CURVE = Logistic4(beta1=4.5, beta2=1.5, beta3=0.3, beta4=0.7)


def test_the_curve_has_the_published_form():
    # Halfway at beta3; one width above it, 1 / (1 + e^-1) of the way up.
    assert CURVE(0.3) == pytest.approx(3.0)
    assert CURVE(1.0) == pytest.approx(1.5 + 3 / (1 + np.exp(-1)))
    assert CURVE(1e6) == pytest.approx(4.5)
    assert CURVE(-1e6) == pytest.approx(1.5)


def test_the_sign_of_the_width_does_not_matter():
    other = Logistic4(beta1=4.5, beta2=1.5, beta3=0.3, beta4=-0.7)
    np.testing.assert_array_equal(other([0.0, 1.0]), CURVE([0.0, 1.0]))


@pytest.mark.parametrize("unit", [1.0, 1e-6, 1e6], ids=["around 1", "millionths", "millions"])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_an_exact_curve_is_recovered_whatever_the_unit_of_the_prediction(unit, offset):
    x = np.linspace(-2, 3, 200)
    fit = fit_logistic((x + offset) * unit, CURVE(x))
    expected = (4.5, 1.5, (0.3 + offset) * unit, 0.7 * unit)
    assert (fit.beta1, fit.beta2, fit.beta3, fit.beta4) == pytest.approx(expected, rel=1e-5)


def test_a_noisy_fit_is_the_least_squares_fit():
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1.5, 500)
    y = CURVE(x) + rng.normal(0, 0.3, 500)

    def curve(x, b1, b2, b3, b4):
        return b2 + (b1 - b2) / (1 + np.exp(-(x - b3) / abs(b4)))

    reference, _ = curve_fit(curve, x, y, p0=[y.max(), y.min(), x.mean(), 0.5], maxfev=20000)
    fit = fit_logistic(x, y)
    assert (fit.beta1, fit.beta2, fit.beta3, fit.beta4) == pytest.approx(reference, rel=1e-4)


def test_predictions_that_fall_as_labels_rise_get_a_falling_curve():
    x = np.linspace(-2, 3, 100)
    fit = fit_logistic(-x, CURVE(x))
    assert fit.beta1 < fit.beta2
    np.testing.assert_allclose(fit(-x), CURVE(x), atol=1e-6)


@pytest.mark.parametrize("shape", ["line", "exponential", "step", "noise"])
def test_other_shapes_are_mapped_monotonely_and_no_worse_than_their_mean(shape):
    rng = np.random.default_rng(0)
    x = np.linspace(-3, 3, 300)
    y = {"line": x, "exponential": np.exp(x), "step": (x > 0.5) * 1.0, "noise": rng.normal(size=300)}[shape]
    mapped = fit_logistic(x, y)(x)
    assert rmse(mapped, y) <= y.std() * (1 + 1e-9)
    steps = np.diff(mapped)
    assert (steps >= 0).all() or (steps <= 0).all()
    if shape != "noise":
        assert plcc(mapped, y) >= plcc(x, y) - 1e-3


def test_an_outlier_among_the_predictions_does_not_break_the_fit():
    x = np.linspace(-2, 3, 200)
    y = CURVE(x)
    x[0] = -1e4
    mapped = fit_logistic(x, y)(x)
    assert srocc(mapped, y) > 0.99
    assert plcc(mapped, y) > 0.99


def test_rows_without_a_score_are_left_out():
    x = np.linspace(-2, 3, 50)
    y = CURVE(x)
    holed_x, holed_y = np.append(x, [np.nan, 1.0]), np.append(y, [1.0, np.nan])
    assert fit_logistic(holed_x, holed_y) == fit_logistic(x, y)


def test_the_order_of_the_rows_changes_no_bit_of_the_curve():
    rng = np.random.default_rng(3)
    x = rng.normal(0, 1.5, 101)
    y = CURVE(x) + rng.normal(0, 0.3, 101)
    fits = {fit_logistic(x[order], y[order]) for order in (rng.permutation(101) for _ in range(5))}
    assert len(fits) == 1


@pytest.mark.parametrize(
    ("x", "y", "reason"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4], "at least 5 rows"),
        ([2] * 9, range(9), "predictions are constant"),
        (range(9), [3] * 9, "labels are constant"),
        ([0, 1] * 5, range(10), "distinct predictions"),
    ],
)
def test_what_cannot_be_fitted_is_said_and_not_papered_over(x, y, reason):
    with pytest.raises(MappingFitError, match=reason):
        fit_logistic(list(x), list(y))


def cases():
    rng = np.random.default_rng(1)
    for rows in (20, 60, 240):
        x = rng.normal(0, 1.5, rows)
        yield f"curve {rows}", x, CURVE(x) + rng.normal(0, 0.3, rows)
        yield f"weak {rows}", x, x + rng.normal(0, 4, rows)
        yield f"step {rows}", x, (x > 0.5) + rng.normal(0, 0.1, rows)
        yield f"exponential {rows}", x, np.exp(x) + rng.normal(0, 0.2, rows)
        yield f"ties {rows}", x.round(), (x + rng.normal(0, 0.5, rows)).round()


@pytest.mark.parametrize(("x", "y"), [pytest.param(x, y, id=name) for name, x, y in cases()])
def test_no_curve_of_a_brute_force_search_is_better(x, y):
    spread = np.subtract(*np.quantile(x, [0.75, 0.25]))

    def cost(parameters):
        s = expit((x - parameters[0]) / (spread * np.exp(parameters[1])))
        columns = np.stack([s, np.ones_like(s)], axis=1)
        return np.mean((y - columns @ np.linalg.lstsq(columns, y, rcond=None)[0]) ** 2) / y.var()

    grid = sorted(product(np.linspace(x.min(), x.max(), 20), np.log(np.geomspace(0.03, 10, 10))), key=cost)
    bounds = [(x.min() - np.ptp(x), x.max() + np.ptp(x)), np.log([0.02, 10 * np.ptp(x) / spread])]
    reference = min(minimize(cost, start, method="Nelder-Mead", bounds=bounds).fun for start in grid[:5])
    assert np.mean((fit_logistic(x, y)(x) - y) ** 2) / y.var() <= reference + 1e-6

"""The five-parameter logistic and the straight line against SciPy, and how a mapping is chosen by name."""

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import curve_fit

from vqa_train.core.errors import UsageError
from vqa_train.evaluation.curve import MappingFitError
from vqa_train.evaluation.linear import fit_line
from vqa_train.evaluation.logistic import fit_logistic
from vqa_train.evaluation.logistic5 import Logistic5, fit_logistic5
from vqa_train.evaluation.mapping import MAPPINGS, fit_mapping

CURVE = Logistic5(beta1=2.0, beta2=1.5, beta3=0.3, beta4=0.4, beta5=3.0)


def published(x, b1, b2, b3, b4, b5):
    return b1 * (0.5 - 1 / (1 + np.exp(b2 * (x - b3)))) + b4 * x + b5


def test_the_five_parameter_curve_has_the_published_form():
    x = np.linspace(-3, 3, 31)
    np.testing.assert_allclose(CURVE(x), published(x, 2.0, 1.5, 0.3, 0.4, 3.0), atol=1e-12)
    assert np.isnan(CURVE([np.nan])).all()


@pytest.mark.parametrize("unit", [1.0, 1e-6, 1e6], ids=["around 1", "millionths", "millions"])
def test_an_exact_five_parameter_curve_is_recovered(unit):
    x = np.linspace(-4, 4, 200)
    fit = fit_logistic5(x * unit, CURVE(x))
    expected = (2.0, 1.5 / unit, 0.3 * unit, 0.4 / unit, 3.0)
    assert tuple(fit.parameters().values()) == pytest.approx(expected, rel=1e-4)


def test_a_noisy_five_parameter_fit_is_the_least_squares_fit():
    rng = np.random.default_rng(0)
    x = rng.normal(0, 2, 600)
    y = CURVE(x) + rng.normal(0, 0.2, 600)
    reference, _ = curve_fit(published, x, y, p0=[1, 1, 0, 0, 3], maxfev=20000)
    assert tuple(fit_logistic5(x, y).parameters().values()) == pytest.approx(reference, rel=1e-3)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("rows", [12, 60, 240])
def test_five_parameters_fit_no_worse_than_four_or_a_line(rows, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1, rows)
    y = np.tanh(x) + rng.normal(0, 0.5, rows)
    errors = [np.mean((fit(x, y)(x) - y) ** 2) for fit in (fit_logistic5, fit_logistic, fit_line)]
    assert errors[0] <= min(errors[1:]) + 1e-6


def test_the_straight_line_is_scipys():
    rng = np.random.default_rng(0)
    x = rng.normal(1000, 1e-3, 50)
    y = 3 * (x - 1000) + rng.normal(0, 0.1, 50)
    reference = stats.linregress(x, y)
    fit = fit_line(x, y)
    assert fit.slope == pytest.approx(reference.slope, rel=1e-9)
    np.testing.assert_allclose(fit(x), reference.intercept + reference.slope * x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in MAPPINGS if name != "none"])
def test_every_mapping_says_its_name_and_number_of_parameters(name):
    rng = np.random.default_rng(0)
    x = rng.normal(size=50)
    fit = fit_mapping(name, x, x + rng.normal(0, 0.1, 50))
    assert fit.kind == name
    assert fit.degrees == len(fit.parameters())


@pytest.mark.parametrize("name", [name for name in MAPPINGS if name != "none"])
@pytest.mark.parametrize(
    ("x", "y", "reason"),
    [
        ([1.0, 2.0], [1.0, 2.0], "needs at least"),
        ([2.0] * 9, range(9), "predictions are constant"),
        (range(9), [3.0] * 9, "labels are constant"),
        ([np.nan] * 9, range(9), "got 0"),
        ([np.inf] * 9, range(9), "got 0"),
    ],
)
def test_no_mapping_is_made_up_where_none_can_be_fitted(name, x, y, reason):
    with pytest.raises(MappingFitError, match=reason):
        fit_mapping(name, list(x), list(y))


def test_none_is_no_mapping_and_a_misspelt_name_is_told():
    assert fit_mapping("none", [1.0], [1.0]) is None
    with pytest.raises(UsageError, match="did you mean 'logistic5'"):
        fit_mapping("logistc5", [1.0], [1.0])

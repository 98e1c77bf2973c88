"""Measures of select-features against their definitions, SciPy and a search by hand."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from vqa_train.pipelines.select_features import measures
from vqa_train.pipelines.select_features.measures import (
    linear_cka,
    mutual_information,
    nearest,
    rank_correlation,
    ranks,
    standardised,
    stepwise,
)


def hsic_by_definition(a: Any, b: Any) -> float:
    """The U-statistic that the unbiased estimator is (Song et al. 2012, theorem 5), over all ordered quadruples."""
    k, m = a @ a.T, b @ b.T
    terms = [k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q]) for i, j, q, r in itertools.permutations(range(len(a)), 4)]
    return float(np.mean(terms))


def test_cka_is_its_definition() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(8, 3))
    b = a @ rng.normal(size=(3, 2)) + 0.5 * rng.normal(size=(8, 2))
    expected = hsic_by_definition(a, b) / math.sqrt(hsic_by_definition(a, a) * hsic_by_definition(b, b))
    assert linear_cka(a, b) == pytest.approx(expected)


def test_cka_is_one_for_a_rotation_and_about_zero_for_wide_unrelated_sets() -> None:
    rng = np.random.default_rng(1)
    a = rng.normal(size=(60, 5))
    turned = 7 * a @ np.linalg.qr(rng.normal(size=(5, 5)))[0]
    assert linear_cka(a, turned) == pytest.approx(1)
    # The biased estimator says 0.9 here.
    wide = [linear_cka(rng.normal(size=(60, 600)), rng.normal(size=(60, 600))) for _ in range(8)]
    assert abs(np.mean(wide)) < 0.02
    assert math.isnan(linear_cka(a[:3], a[:3]))
    assert math.isnan(linear_cka(a, np.zeros((60, 2))))


def test_standardised_columns_have_gaps_filled_with_the_mean() -> None:
    x = np.float32([[1, np.nan, 5, 1e9], [3, 2, 5, 1e9], [5, 4, 5, 1e9], [np.inf, 6, 5, 1e9]])
    values, varies = standardised(x)
    assert varies.tolist() == [True, True, False, False]
    np.testing.assert_allclose(values[:, 0], [-math.sqrt(1.5), 0, math.sqrt(1.5), 0])
    np.testing.assert_allclose(values[:, 1], [0, -math.sqrt(1.5), 0, math.sqrt(1.5)])
    assert (values[:, 2:] == 0).all()


def test_mutual_information_of_gaussians_is_the_closed_form() -> None:
    rng = np.random.default_rng(2)
    y = rng.normal(size=2000)
    for rho in (0.0, 0.6, 0.95):
        x = rho * y + math.sqrt(1 - rho**2) * rng.normal(size=2000)
        found = mutual_information(x[:, None], y, 0)[0]
        assert found == pytest.approx(-0.5 * math.log(1 - rho**2), abs=0.06)
    # The same of part of the labels; none, where they do not vary.
    y[1500:] = np.nan
    assert mutual_information(x[:, None], y, 0)[0] == pytest.approx(-0.5 * math.log(1 - rho**2), abs=0.08)
    assert np.isnan(mutual_information(x[:, None], np.full(2000, 3.0), 0)).all()
    assert np.isnan(mutual_information(x[:4, None], y[:4], 0)).all()


def test_rank_correlations_are_those_of_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    x = rng.integers(0, 6, size=(50, 5)).astype(np.float64)
    x[:, 3] = -x[:, 0] + 0.1 * rng.normal(size=50)
    x[:, 4] = 2
    ranked = ranks(x)
    found = rank_correlation(ranked)
    np.testing.assert_allclose(found[:4, :4], stats.spearmanr(x[:, :4]).statistic, atol=1e-12)
    assert np.isnan(found[4]).all()
    assert np.isnan(found[:, 4]).all()
    # The last block holds a single column.
    monkeypatch.setattr(measures, "_BLOCK", 2)
    other, value = nearest(ranked)
    apart = np.abs(found)
    np.fill_diagonal(apart, -1)
    apart[np.isnan(apart)] = -1
    assert other[:4].tolist() == apart[:4].argmax(axis=1).tolist()
    assert (other[0], other[3]) == (3, 0)
    np.testing.assert_allclose(value[:4], [found[i, other[i]] for i in range(4)])
    assert value[0] < -0.9
    assert np.isnan(value[4])
    assert np.isnan(nearest(ranked[:, 3:])[1]).all()


def test_missing_values_have_the_mean_rank() -> None:
    found = ranks(np.array([[1.0], [np.nan], [5.0], [2.0]]))
    np.testing.assert_allclose(found[:, 0], np.array([-1, 0, 1, 0]) / math.sqrt(2))


def test_stepwise_takes_the_column_that_lowers_the_error_most() -> None:
    """Against a search by hand with least squares."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(80, 7)) @ rng.normal(size=(7, 7))
    y = x @ rng.normal(size=(7, 2)) + rng.normal(size=(80, 2))
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    taken: list[int] = []
    for _ in range(6):
        left = [column for column in range(7) if column not in taken]
        errors = [np.linalg.lstsq(x[:, [*taken, column]], y)[1].sum() for column in left]
        taken.append(left[int(np.argmin(errors))])
    assert stepwise(x, y, 6).tolist() == taken


def test_stepwise_takes_copies_last() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(40, 3))
    x -= x.mean(axis=0)
    y = (3 * x[:, [0]]) + x[:, [1]]
    twice = np.hstack([x, x[:, [0]], np.zeros((40, 1))])
    assert stepwise(twice, y, 5).tolist() == [0, 1, 2, 3, 4]
    assert stepwise(twice, y, 2).tolist() == [0, 1]

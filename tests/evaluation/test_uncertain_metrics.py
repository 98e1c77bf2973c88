"""Outlier ratio and RMSE* of ITU-T P.1401, and the confidence intervals they rest on, by hand and against SciPy."""

import math

import numpy as np
import pytest
from scipy import stats

from vqa_train.evaluation.outlier_ratio import outlier_ratio, outlier_ratio_resampled
from vqa_train.evaluation.rmse import rmse
from vqa_train.evaluation.rmse_star import rmse_star, rmse_star_resampled
from vqa_train.evaluation.uncertainty import LabelUncertainty


def halves(*widths: float) -> LabelUncertainty:
    return LabelUncertainty.from_half_width(widths)


@pytest.mark.parametrize("votes", [2, 8, 24, 29])
def test_below_30_votes_the_interval_is_students(votes):
    ratings = np.random.default_rng(0).integers(1, 6, votes).astype(float)
    known = LabelUncertainty.from_votes([ratings.std(ddof=1)], votes)
    interval = stats.ttest_1samp(ratings, 0).confidence_interval(0.95)
    assert known.half_width[0] == pytest.approx((interval.high - interval.low) / 2, rel=1e-12)
    assert known.standard_error[0] == pytest.approx(stats.sem(ratings), rel=1e-12)


def test_from_30_votes_on_the_interval_is_the_normal_one():
    known = LabelUncertainty.from_votes([0.8, 0.8], [30, 100])
    np.testing.assert_allclose(known.half_width, stats.norm.ppf(0.975) * 0.8 / np.sqrt([30, 100]), rtol=1e-12)


@pytest.mark.parametrize(("std", "votes"), [(np.nan, 20), (-1, 20), (np.inf, 20), (1, 1), (1, np.nan)])
def test_a_spread_or_count_that_says_nothing_is_not_known(std, votes):
    known = LabelUncertainty.from_votes([std, 0.5], [votes, 20])
    np.testing.assert_array_equal(known.known, [False, True])


def test_the_outlier_ratio_of_a_case_worked_by_hand():
    # Errors 0.3 0.5 0.1 0.4 against half widths 0.2 0.5 0.2 0.3: the first and the last lie outside; equal is inside.
    assert outlier_ratio([1.25, 2.5, 3.125, 4.5], [1, 2, 3, 4], halves(0.2, 0.5, 0.2, 0.3)) == 0.5


def test_rmse_star_of_a_case_worked_by_hand():
    # Beyond the intervals: 0.05, 0, 0, 0.2; squares sum to 0.0425 over N - d.
    predicted, target, known = [1.25, 2.5, 3.125, 4.5], [1, 2, 3, 4], halves(0.2, 0.5, 0.2, 0.3)
    assert rmse_star(predicted, target, known) == pytest.approx(math.sqrt(0.0425 / 3), rel=1e-12)
    assert rmse_star(predicted, target, known, 2) == pytest.approx(math.sqrt(0.0425 / 2), rel=1e-12)
    assert math.isnan(rmse_star(predicted, target, known, 4))


def test_with_certain_labels_rmse_star_is_the_rmse_over_n_less_d():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 50))
    assert rmse_star(x, y, halves(*[0.0] * 50)) == pytest.approx(rmse(x, y) * math.sqrt(50 / 49), rel=1e-12)


def test_rows_whose_interval_is_unknown_do_not_count():
    known = halves(0.2, np.nan, 0.2, 0.3)
    assert outlier_ratio([1.25, 9.0, 3.125, 4.5], [1, 2, 3, 4], known) == pytest.approx(2 / 3)
    assert rmse_star([1.25, 9.0, 3.125, 4.5], [1, 2, 3, 4], known) == pytest.approx(math.sqrt(0.0425 / 2))


@pytest.mark.parametrize("metric", [outlier_ratio, rmse_star])
def test_no_known_interval_at_all_is_nan(metric):
    assert math.isnan(metric([1.0, 2.0], [1.0, 2.0], halves(np.nan, np.nan)))


@pytest.mark.parametrize(
    ("metric", "resampled"), [(outlier_ratio, outlier_ratio_resampled), (rmse_star, rmse_star_resampled)]
)
def test_a_resample_by_counts_carries_each_rows_own_interval(metric, resampled):
    rng = np.random.default_rng(0)
    target = rng.uniform(1, 5, 40)
    predicted = target + rng.normal(0, 0.5, 40)
    widths = rng.uniform(0, 1, 40)
    widths[3] = np.nan
    drawn = rng.integers(0, 40, (30, 40))
    counts = np.stack([np.bincount(rows, minlength=40) for rows in drawn]).astype(float)
    written = [metric(predicted[rows], target[rows], halves(*widths[rows]), 4) for rows in drawn]
    np.testing.assert_allclose(resampled(predicted, target, counts, halves(*widths), 4), written, rtol=1e-12)


@pytest.mark.parametrize("metric", [outlier_ratio, rmse_star])
def test_lengths_that_differ_are_an_error(metric):
    with pytest.raises(ValueError, match="one length"):
        metric([1.0, 2.0], [1.0, 2.0], halves(0.1))

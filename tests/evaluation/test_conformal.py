"""Conformal half widths by hand, their promise on drawn data, and what too few residuals give."""

import math

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import KFold, cross_val_predict

from vqa_train.core.errors import UsageError
from vqa_train.evaluation.conformal import calibrate, coverage, cross_coverage, group_note, rows_needed


def test_the_half_width_is_the_residual_of_the_finite_sample_rank():
    # n = 9, level 0.8: rank ceil(10 * 0.8) = 8 of the sorted |residuals|.
    residuals = [9, -1, 2, -3, 4, -5, 6, -7, 8]
    assert calibrate(residuals, 0.8).half_width == 8
    assert calibrate(residuals, 0.9).half_width == 9


@pytest.mark.parametrize(("level", "n"), [(0.9, 9), (0.95, 19), (0.55, 19), (0.7, 9), (0.8, 4), (0.35, 19)])
def test_a_whole_rank_is_not_raised_by_rounding(level, n):
    assert calibrate(np.arange(1, n + 1), level).half_width == round((n + 1) * level)


def test_too_few_residuals_give_infinity_and_none_nan_and_both_say_so():
    few = calibrate([0.1] * 8, 0.9)
    assert few.half_width == math.inf
    assert "8 residuals are too few for a level of 0.9, 9 are needed" in few.note
    nothing = calibrate([np.nan, np.inf], 0.9)
    assert math.isnan(nothing.half_width)
    assert nothing.n == 0
    assert "no residuals" in nothing.note
    assert calibrate([0.1] * 9, 0.9).note is None


@pytest.mark.parametrize(("level", "rows"), [(0.9, 9), (0.95, 19), (0.99, 99), (0.5, 1)])
def test_the_rows_needed_are_the_fewest_that_give_a_number(level, rows):
    assert rows_needed(level) == rows
    assert math.isfinite(calibrate(np.ones(rows), level).half_width)
    assert not math.isfinite(calibrate(np.ones(rows - 1), level).half_width)


@pytest.mark.parametrize("level", [0.0, 1.0, 1.5, -0.1, float("nan")])
def test_a_level_that_is_no_share_is_refused(level):
    with pytest.raises(UsageError, match="level must lie between 0 and 1"):
        calibrate([1.0], level)
    with pytest.raises(UsageError, match="level must lie between 0 and 1"):
        cross_coverage([1.0, 2.0], ["a", "b"], level)


def test_new_labels_are_held_with_just_the_probability_promised():
    rng = np.random.default_rng(0)
    held = [np.abs(rng.standard_t(3, 50)) <= calibrate(rng.standard_t(3, 19), 0.9).half_width for _ in range(2000)]
    # Rank 18 of 19 holds a new one with probability 18 / 20.
    assert np.mean(held) == pytest.approx(0.9, abs=0.006)
    # Rank 8 of 10, where the rank without the correction for finite samples would be 7.
    held = [np.abs(rng.normal(size=50)) <= calibrate(rng.normal(size=10), 0.7).half_width for _ in range(2000)]
    assert np.mean(held) == pytest.approx(8 / 11, abs=0.01)


def test_normalised_intervals_are_wide_where_the_model_is_unsure():
    rng = np.random.default_rng(0)
    spread = rng.uniform(0.1, 2, 4000)
    residuals = rng.normal(0, spread)
    interval = calibrate(residuals[:2000], 0.9, spread=spread[:2000])
    assert interval.half_width == pytest.approx(1.645, abs=0.1)
    low, high = interval.bounds(np.zeros(2000), spread[2000:])
    assert coverage(residuals[2000:], low, high).share == pytest.approx(0.9, abs=0.03)
    np.testing.assert_allclose((high - low) / 2, interval.half_width * spread[2000:])
    with pytest.raises(ValueError, match="spread"):
        interval.bounds([0.0])
    with pytest.raises(ValueError, match="spread"):
        calibrate([1.0] * 20, 0.9).bounds([0.0], [1.0])


def test_residuals_without_a_spread_above_zero_do_not_count():
    assert calibrate([1.0, 2.0, 3.0], 0.5, spread=[1.0, 0.0, np.nan]).n == 1


def test_coverage_of_a_case_worked_by_hand():
    found = coverage([1, 2, 3, np.nan, 5, 6], [1, 2.5, 0, 0, np.nan, -np.inf], [2, 3, 4, 9, 9, np.inf])
    # 1 in [1, 2], 2 not in [2.5, 3], 3 in [0, 4], 6 in the whole line; no label and no low end do not count.
    assert (found.share, found.n) == (0.75, 4)
    assert found.to_json() == {"coverage": 0.75, "n": 4, "mean_width": None}
    nothing = coverage([np.nan], [0.0], [1.0])
    assert math.isnan(nothing.share)
    assert nothing.n == 0
    with pytest.raises(ValueError, match="one shape"):
        coverage([1.0], [1.0, 2.0], [1.0])


def test_cross_coverage_leaves_each_fold_out_of_its_own_calibration():
    # Fold a is calibrated by b and c (half width 2 at level 0.5: rank 2 of 1 2 2), and so on.
    residuals, folds = [1.0, 5.0, 1.0, 2.0, 2.0], ["a", "a", "b", "b", "c"]
    found = cross_coverage(residuals, folds, 0.5)
    # a: rank 2 of (1, 2, 2) = 2 holds one of two; b: rank 2 of (1, 2, 5) = 2 holds both; c: rank 3 of (1 1 2 5) = 2.
    assert (found.share, found.n) == (4 / 5, 5)
    assert found.mean_width == 4.0


def test_cross_coverage_on_held_out_residuals_of_a_real_fit_is_near_the_level():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 5))
    y = x @ rng.normal(size=5) + rng.standard_t(4, 600)
    splitter = KFold(10, shuffle=True, random_state=0)
    predicted = cross_val_predict(LinearRegression(), x, y, cv=splitter)
    folds = np.empty(600, dtype=int)
    for fold, (_, test) in enumerate(splitter.split(x)):
        folds[test] = fold
    found = cross_coverage(y - predicted, folds, 0.9)
    assert found.n == 600
    assert found.share == pytest.approx(0.9, abs=0.02)


def test_a_row_in_several_folds_does_not_calibrate_itself():
    residuals = [10.0, 10.0, 1.0, 1.0, 1.0, 1.0]
    folds, ids = ["a", "b", "a", "b", "a", "b"], ["x", "x", "y", "y", "z", "z"]
    own = cross_coverage(residuals, folds, 0.5)
    assert own.n == 6
    # Without its copies every fold has nothing left that another row could say.
    assert cross_coverage(residuals, folds, 0.5, ids=ids).n == 0
    ids = ["x", "x", "y", "v", "z", "w"]
    found = cross_coverage(residuals, folds, 0.5, ids=ids)
    assert found.share == pytest.approx(4 / 6)


def test_one_fold_or_no_residual_has_no_cross_coverage():
    assert cross_coverage([1.0, 2.0], ["a", "a"], 0.5).n == 0
    assert math.isnan(cross_coverage([], [], 0.5).share)
    assert cross_coverage([np.nan, 1.0, 2.0], ["a", "a", "b"], 0.5).n == 2
    with pytest.raises(ValueError, match="one length"):
        cross_coverage([1.0, 2.0], ["a"], 0.5)


def test_few_groups_are_said_to_be_little_evidence():
    assert group_note(["a", "b", "c"], 0.9) is None
    assert group_note([f"g{i % 9}" for i in range(90)], 0.9) is None
    assert "90 residuals of only 5 groups" in group_note([f"g{i % 5}" for i in range(90)], 0.9)

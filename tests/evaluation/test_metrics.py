"""Each metric against SciPy, scikit-learn or a case worked by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from sklearn.metrics import mean_absolute_error, root_mean_squared_error

from vqa_train.evaluation.krocc import krocc, krocc_resampled
from vqa_train.evaluation.mae import mae, mae_resampled
from vqa_train.evaluation.plcc import plcc, plcc_resampled
from vqa_train.evaluation.rmse import rmse, rmse_resampled
from vqa_train.evaluation.srocc import srocc, srocc_resampled
from vqa_train.evaluation.vquala import vquala, vquala_resampled

REFERENCES = [
    (srocc, lambda p, t: stats.spearmanr(p, t).statistic),
    (plcc, lambda p, t: stats.pearsonr(p, t).statistic),
    (krocc, lambda p, t: stats.kendalltau(p, t).statistic),
    (vquala, lambda p, t: (stats.spearmanr(p, t).statistic + stats.pearsonr(p, t).statistic) / 2),
    (rmse, lambda p, t: root_mean_squared_error(t, p)),
    (mae, lambda p, t: mean_absolute_error(t, p)),
]
CORRELATIONS = REFERENCES[:4]
RESAMPLED = [
    (srocc, srocc_resampled),
    (plcc, plcc_resampled),
    (krocc, krocc_resampled),
    (vquala, vquala_resampled),
    (rmse, rmse_resampled),
    (mae, mae_resampled),
]


def scores(seed: int, rows: int = 200, decimals: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = rng.uniform(1, 5, rows)
    predicted = target + rng.normal(0, 0.8, rows)
    return (predicted, target) if decimals is None else (predicted.round(decimals), target.round(decimals))


@pytest.mark.parametrize("decimals", [None, 1, 0], ids=["no ties", "some ties", "mostly ties"])
@pytest.mark.parametrize(("metric", "reference"), REFERENCES)
def test_equals_the_reference(metric, reference, decimals):
    for seed in range(20):
        predicted, target = scores(seed, decimals=decimals)
        assert metric(predicted, target) == pytest.approx(reference(predicted, target), abs=1e-12)


def test_tau_b_of_a_case_worked_by_hand():
    # 6 pairs: one tied in x only, one tied in y only, 4 concordant: 4 / sqrt((6 - 1) (6 - 1)).
    assert krocc([1, 1, 2, 3], [1, 2, 3, 3]) == pytest.approx(4 / 5, abs=1e-15)


def test_rank_correlation_of_a_case_worked_by_hand():
    # Ranks 1 2 3 4 5 against 2 1 4 3 5: 1 - 6 * 4 / (5 * 24).
    assert srocc([10, 20, 30, 40, 50], [2, 1, 4, 3, 5]) == pytest.approx(0.8, abs=1e-15)


@pytest.mark.parametrize(("metric", "resampled"), RESAMPLED)
@pytest.mark.parametrize("decimals", [None, 0])
def test_a_resample_by_counts_equals_the_metric_of_the_written_out_resample(metric, resampled, decimals):
    predicted, target = scores(3, rows=40, decimals=decimals)
    drawn = np.random.default_rng(1).integers(0, 40, (50, 40))
    counts = np.stack([np.bincount(rows, minlength=40) for rows in drawn]).astype(float)
    expected = [metric(predicted[rows], target[rows]) for rows in drawn]
    np.testing.assert_allclose(resampled(predicted, target, counts), expected, atol=1e-12)


def test_kendall_resamples_do_not_depend_on_the_block_size(monkeypatch):
    predicted, target = scores(0, rows=50)
    counts = np.random.default_rng(0).integers(0, 3, (5, 50)).astype(float)
    whole = krocc_resampled(predicted, target, counts)
    monkeypatch.setattr("vqa_train.evaluation.krocc._BLOCK", 7)
    np.testing.assert_array_equal(krocc_resampled(predicted, target, counts), whole)


@pytest.mark.parametrize("resampled", [srocc_resampled, plcc_resampled, krocc_resampled])
def test_a_resample_of_one_row_only_is_nan(resampled):
    counts = np.array([[4.0, 0, 0, 0], [1, 1, 1, 1]])
    result = resampled(np.array([1.0, 2, 3, 4]), np.array([1.0, 2, 3, 4]), counts)
    assert math.isnan(result[0])
    assert result[1] == pytest.approx(1.0)


@pytest.mark.parametrize("constant", [0.0, 3.7, 1e-300, 1e300])
@pytest.mark.parametrize("metric", [srocc, plcc, krocc, vquala])
def test_a_collapsed_prediction_is_nan_and_not_zero(metric, constant):
    _, target = scores(0)
    assert math.isnan(metric(np.full(200, constant), target))
    assert math.isnan(metric(target, np.full(200, constant)))


@pytest.mark.parametrize("metric", [srocc, plcc, krocc, vquala])
def test_rounding_around_a_constant_is_a_constant(metric):
    _, target = scores(0)
    noise = 3.7 + 1e-15 * np.random.default_rng(0).integers(-1, 2, 200)
    assert len(np.unique(noise)) > 1
    assert math.isnan(metric(noise, target))


def test_the_error_of_a_constant_prediction_is_a_number():
    assert rmse([3.0, 3.0], [2.0, 5.0]) == pytest.approx(math.sqrt((1 + 4) / 2))
    assert mae([3.0, 3.0], [2.0, 5.0]) == pytest.approx((1 + 2) / 2)


@pytest.mark.parametrize(("metric", "reference"), REFERENCES)
def test_swapping_prediction_and_label_changes_nothing(metric, reference):
    predicted, target = scores(0)
    assert metric(predicted, target) == pytest.approx(metric(target, predicted), abs=1e-12)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_huge_and_tiny_scores_neither_over_nor_underflow(scale):
    predicted, target = scores(0)
    assert plcc(predicted * scale, target) == pytest.approx(plcc(predicted, target), abs=1e-12)
    assert rmse(predicted * scale, target * scale) == pytest.approx(rmse(predicted, target) * scale, rel=1e-12)


vectors = hnp.arrays(np.float64, st.integers(2, 30), elements=st.integers(-5, 5).map(float))


@given(vectors, st.randoms(use_true_random=False))
def test_correlations_agree_with_scipy_on_any_small_integers(target, random):
    predicted = target.copy()
    random.shuffle(predicted)
    for metric, reference in CORRELATIONS:
        if len(np.unique(target)) < 2:
            assert math.isnan(metric(predicted, target))
        else:
            assert metric(predicted, target) == pytest.approx(reference(predicted, target), abs=1e-12)

"""What every metric does, whichever it is; a new metric passes this unchanged."""

import json
import math

import numpy as np
import pytest

from vqa_train.evaluation import METRICS
from vqa_train.evaluation.metric import Metric
from vqa_train.evaluation.uncertainty import LabelUncertainty


class Measured:
    """A metric that gets labels of equal certainty beside its scores, where it needs such."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric

    def __call__(self, predicted, target) -> float:
        return self.metric(predicted, target, certainty(np.shape(target)))

    def resampled(self, predicted, target, counts):
        bound = self.metric.bound(certainty(np.shape(target)), 1)
        return None if bound is None else bound(predicted, target, counts)


def certainty(shape) -> LabelUncertainty:
    return LabelUncertainty.from_votes(np.full(shape, 0.5), 25)


@pytest.fixture(params=METRICS.names())
def metric(request) -> Measured:
    return Measured(METRICS.get(request.param))


def scores(rows: int = 60, decimals: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    target = rng.uniform(1, 5, rows).round(decimals)
    return (target + rng.normal(0, 0.7, rows)).round(decimals), target


def test_it_is_registered_under_its_name_and_gives_a_python_float(metric):
    assert METRICS.get(metric.metric.name) is metric.metric
    assert type(metric(*scores())) is float


def test_without_confidence_intervals_it_is_nan_if_it_needs_them_and_the_same_if_not(metric):
    predicted, target = scores()
    alone = metric.metric(predicted, target)
    assert math.isnan(alone) if metric.metric.uncertain else alone == metric(predicted, target)


def test_perfect_predictions_are_a_correlation_of_one_or_an_error_of_zero(metric):
    _, target = scores()
    assert metric(target, target) == pytest.approx(1.0 if metric.metric.higher_is_better else 0.0, abs=1e-12)


def test_noisy_predictions_are_worse_than_perfect_ones_and_better_than_noise(metric):
    predicted, target = scores()
    noise = np.random.default_rng(11).permutation(target)
    perfect, good, bad = metric(target, target), metric(predicted, target), metric(noise, target)
    assert perfect > good > bad if metric.metric.higher_is_better else perfect < good < bad


@pytest.mark.parametrize("decimals", [6, 0], ids=["no ties", "ties"])
def test_the_order_of_the_rows_changes_nothing(metric, decimals):
    predicted, target = scores(decimals=decimals)
    order = np.random.default_rng(0).permutation(len(target))
    assert metric(predicted[order], target[order]) == pytest.approx(metric(predicted, target), abs=1e-12)


@pytest.mark.parametrize("hole", [np.nan, np.inf, -np.inf])
def test_a_row_without_a_finite_score_counts_as_left_out(metric, hole):
    predicted, target = scores()
    predicted[3], target[5] = hole, hole
    keep = np.delete(np.arange(len(target)), [3, 5])
    assert metric(predicted, target) == metric(predicted[keep], target[keep])


def test_nothing_to_compare_is_nan(metric):
    assert math.isnan(metric([], []))
    assert math.isnan(metric([np.nan, 1.0], [1.0, np.nan]))


def test_two_rows_have_a_defined_value(metric):
    value = metric([1.0, 2.0], [3.0, 4.0])
    # One pair is different or similar, not both, and there is nothing to tell apart.
    assert math.isnan(value) if metric.metric.name == "auc_ds" else math.isfinite(value)


def test_a_constant_prediction_never_looks_like_a_score(metric):
    _, target = scores()
    perfect = metric(target, target)
    value = metric(np.full(len(target), 2.5), target)
    # An error has a value; a correlation has none.
    assert math.isnan(value) if metric.metric.higher_is_better else value > perfect + 0.1


def test_lengths_that_differ_are_an_error(metric):
    with pytest.raises(ValueError, match="one length"):
        metric([1.0, 2.0, 3.0], [1.0, 2.0])


def test_inputs_are_not_changed_and_integers_and_lists_are_welcome(metric):
    predicted, target = scores()
    kept = predicted.copy(), target.copy()
    value = metric(predicted, target)
    np.testing.assert_array_equal((predicted, target), kept)
    assert metric(predicted.tolist(), target.tolist()) == value
    integers = np.random.default_rng(2).integers(0, 9, (2, 20))
    assert math.isfinite(metric(*integers))
    json.dumps(value, allow_nan=False)


def test_resamples_by_counts_equal_resamples_written_out(metric):
    if metric.metric.resampled is None:
        pytest.skip("a metric without intervals")
    predicted, target = scores(decimals=0)
    drawn = np.random.default_rng(1).integers(0, len(target), (20, len(target)))
    counts = np.stack([np.bincount(rows, minlength=len(target)) for rows in drawn]).astype(float)
    written = [metric(predicted[rows], target[rows]) for rows in drawn]
    np.testing.assert_allclose(metric.resampled(predicted, target, counts), written, atol=1e-12)

"""Percentile bootstrap intervals: right width, seeded by content, over rows and over groups."""

import numpy as np
import pytest
from scipy import stats

from vqa_train.evaluation import bootstrap
from vqa_train.evaluation.bootstrap import UNDEFINED, bootstrap_intervals
from vqa_train.evaluation.plcc import plcc_resampled
from vqa_train.evaluation.rmse import rmse_resampled
from vqa_train.evaluation.srocc import srocc_resampled


def scores(rows: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    target = rng.normal(3, 1, rows)
    return target + rng.normal(0, 0.7, rows), target


def test_the_interval_agrees_with_scipys_bootstrap():
    predicted, target = scores()
    ours = bootstrap_intervals(predicted, target, {"plcc": (plcc_resampled, 4000)})["plcc"]
    theirs = stats.bootstrap(
        (predicted, target),
        lambda p, t: stats.pearsonr(p, t).statistic,
        paired=True,
        vectorized=False,
        n_resamples=2000,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.005)
    assert ours.resamples == 4000


def test_about_95_in_100_intervals_cover_the_true_correlation():
    rng = np.random.default_rng(0)
    truth, covered = 0.6, 0
    for _ in range(200):
        x, y = rng.multivariate_normal([0, 0], [[1, truth], [truth, 1]], 150).T
        interval = bootstrap_intervals(x, y, {"plcc": (plcc_resampled, 400)})["plcc"]
        covered += interval.low <= truth <= interval.high
    assert 178 <= covered <= 200


def test_the_order_of_the_rows_does_not_change_the_interval():
    predicted, target = scores()
    groups = np.array([f"g{i % 17}" for i in range(300)])
    order = np.random.default_rng(1).permutation(300)
    metrics = {"srocc": (srocc_resampled, 200)}
    assert bootstrap_intervals(predicted, target, metrics) == bootstrap_intervals(
        predicted[order], target[order], metrics
    )
    assert bootstrap_intervals(predicted, target, metrics, groups=groups) == bootstrap_intervals(
        predicted[order], target[order], metrics, groups=groups[order]
    )


def test_other_scores_are_resampled_with_another_seed():
    predicted, target = scores()
    metrics = {"rmse": (rmse_resampled, 200)}
    one = bootstrap_intervals(predicted, target, metrics)["rmse"]
    two = bootstrap_intervals(predicted * 2, target * 2, metrics)["rmse"]
    assert two.low != pytest.approx(2 * one.low, rel=1e-12)


def test_groups_of_copies_are_as_uncertain_as_one_row_each():
    predicted, target = scores(60)
    metrics = {"plcc": (plcc_resampled, 2000)}
    single = bootstrap_intervals(predicted, target, metrics)["plcc"]
    copies = np.repeat(predicted, 10), np.repeat(target, 10)
    naive = bootstrap_intervals(*copies, metrics)["plcc"]
    grouped = bootstrap_intervals(*copies, metrics, groups=[str(i // 10) for i in range(600)])["plcc"]
    assert naive.high - naive.low < 0.5 * (single.high - single.low)
    assert grouped.high - grouped.low == pytest.approx(single.high - single.low, rel=0.15)


def test_groups_of_one_row_give_the_spread_of_rows():
    predicted, target = scores()
    metrics = {"plcc": (plcc_resampled, 2000)}
    rows = bootstrap_intervals(predicted, target, metrics)["plcc"]
    groups = bootstrap_intervals(predicted, target, metrics, groups=[f"{i:03d}" for i in range(300)])["plcc"]
    assert (groups.low, groups.high) == pytest.approx((rows.low, rows.high), abs=0.01)


def test_each_metric_gets_the_resamples_asked_for_even_across_blocks(monkeypatch):
    predicted, target = scores()
    metrics = {"plcc": (plcc_resampled, 70), "rmse": (rmse_resampled, 25)}
    whole = bootstrap_intervals(predicted, target, metrics)
    monkeypatch.setattr(bootstrap, "_BLOCK_ELEMENTS", 3000)
    blocks = bootstrap_intervals(predicted, target, metrics)
    assert blocks == whole
    assert [interval.resamples for interval in blocks.values()] == [70, 25]


@pytest.mark.parametrize("groups", [None, ["a"]])
def test_one_row_has_no_interval(groups):
    one = np.array([1.0])
    assert bootstrap_intervals(one, one, {"rmse": (rmse_resampled, 50)}, groups=groups) == {"rmse": UNDEFINED}


def test_one_group_has_no_interval():
    predicted, target = scores(20)
    assert bootstrap_intervals(predicted, target, {"rmse": (rmse_resampled, 50)}, groups=["a"] * 20) == {
        "rmse": UNDEFINED
    }


def test_resamples_without_a_defined_metric_are_not_counted():
    # Two rows: half of the resamples draw one row twice and have no correlation.
    x = np.array([1.0, 2.0, 3.0])
    interval = bootstrap_intervals(x, x, {"plcc": (plcc_resampled, 900)})["plcc"]
    assert 750 < interval.resamples < 850  # 1 in 9 resamples is one row thrice
    assert (interval.low, interval.high) == pytest.approx((1.0, 1.0))

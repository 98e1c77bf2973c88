"""Krasula's pair analysis against scikit-learn, a case worked by hand and a published example."""

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from vqa_train.evaluation import krasula
from vqa_train.evaluation.krasula import analyse_pairs
from vqa_train.evaluation.uncertainty import LabelUncertainty


def certain(error) -> LabelUncertainty:
    error = np.asarray(error, dtype=float)
    return LabelUncertainty(error, 1.96 * error)


def noisy(rows: int = 80, decimals: int = 6):
    rng = np.random.default_rng(3)
    target = rng.uniform(1, 5, rows)
    predicted = (target + rng.normal(0, 0.8, rows)).round(decimals)
    return predicted, target, certain(rng.uniform(0.1, 0.5, rows))


@pytest.mark.parametrize("decimals", [6, 0], ids=["no ties", "ties"])
def test_both_areas_are_scikit_learns(decimals):
    predicted, target, known = noisy(decimals=decimals)
    different, apart, side = [], [], []
    for i in range(len(target)):
        for j in range(i):
            z = (target[i] - target[j]) / math.hypot(known.standard_error[i], known.standard_error[j])
            different.append(abs(z) > 1.959963984540054)
            apart.append(abs(predicted[i] - predicted[j]))
            if different[-1]:
                side.append((predicted[i] - predicted[j]) * np.sign(z))
    found = analyse_pairs(predicted, target, known)
    assert found.auc_ds == pytest.approx(roc_auc_score(different, apart), abs=1e-12)
    # Each pair counts from both ends, as in the authors' code.
    both = [1] * len(side) + [0] * len(side)
    assert found.auc_bw == pytest.approx(roc_auc_score(both, [*side, *(-s for s in side)]), abs=1e-12)
    assert found.c0 == pytest.approx(np.mean(np.array(side) > 0), abs=1e-15)
    assert (found.different, found.similar) == (sum(different), len(different) - sum(different))


def test_a_case_worked_by_hand():
    # Labels 1, 2, 10 with standard error 1: 1 and 2 are similar, the two pairs with 10 different.
    # Predictions 1, 3, 2: the similar pair is 2 apart, the different ones 1 (right) and 1 (wrong).
    found = analyse_pairs([1, 3, 2], [1, 2, 10], certain([1, 1, 1]))
    assert (found.different, found.similar) == (2, 1)
    assert found.auc_ds == 0.0
    assert found.c0 == 0.5
    assert found.auc_bw == 0.5


def test_the_share_of_right_answers_in_vmafs_published_example():
    # Netflix/vmaf, python/test/perf_metric_test.py: ten votes each for four videos, C0 = 1.
    votes = np.random.RandomState(0).normal(0, 1.0, [4, 10]) + np.tile(np.array([1, 2, 3, 4]), [10, 1]).T
    known = LabelUncertainty.from_votes(votes.std(axis=1, ddof=1), 10)
    found = analyse_pairs([1, 2, 3, 4], votes.mean(axis=1), known)
    assert found.c0 == 1.0


def test_equal_predictions_of_a_different_pair_are_no_right_answer():
    found = analyse_pairs([2, 2, 3], [1, 5, 9], certain([0, 0, 0]))
    assert found.c0 == pytest.approx(2 / 3)


def test_reversed_predictions_swap_better_and_worse_but_not_different_and_similar():
    predicted, target, known = noisy()
    one, other = analyse_pairs(predicted, target, known), analyse_pairs(-predicted, target, known)
    assert other.auc_bw == pytest.approx(1 - one.auc_bw, abs=1e-12)
    assert other.auc_ds == pytest.approx(one.auc_ds, abs=1e-12)


def test_what_cannot_be_told_apart_is_nan():
    unsure = analyse_pairs([1, 2, 3], [1, 2, 3], certain([100, 100, 100]))
    assert math.isnan(unsure.auc_ds)
    assert math.isnan(unsure.auc_bw)
    assert math.isnan(unsure.c0)
    assert unsure.similar == 3
    sure = analyse_pairs([1, 2, 3], [1, 2, 3], certain([0, 0, 0]))
    assert math.isnan(sure.auc_ds)
    assert (sure.auc_bw, sure.c0) == (1.0, 1.0)


def test_constant_predictions_and_no_rows_are_nan():
    for predicted, target in (([2, 2, 2], [1, 5, 9]), ([1, 5, 9], [2, 2, 2]), ([np.inf, np.nan, 1], [1, 2, 3])):
        found = analyse_pairs(predicted, target, certain([0.1] * 3))
        assert all(math.isnan(value) for value in (found.auc_ds, found.auc_bw, found.c0))


def test_many_rows_are_thinned_to_the_same_ones_in_any_order(monkeypatch):
    predicted, target, known = noisy(200)
    whole = analyse_pairs(predicted, target, known)
    monkeypatch.setattr(krasula, "MAX_ROWS", 60)
    thinned = analyse_pairs(predicted, target, known)
    order = np.random.default_rng(0).permutation(200)
    again = analyse_pairs(predicted[order], target[order], known.take(order))
    assert thinned == again
    assert thinned.different + thinned.similar == 60 * 59 // 2
    assert thinned.auc_bw == pytest.approx(whole.auc_bw, abs=0.05)
    assert thinned != whole


def test_huge_predictions_do_not_overflow():
    predicted, target, known = noisy()
    assert analyse_pairs(predicted * 1e300, target, known) == analyse_pairs(predicted, target, known)

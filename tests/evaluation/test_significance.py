"""Tests between models against SciPy, published examples, and how often they cry wolf."""

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from vqa_train.evaluation.plcc import plcc, plcc_resampled
from vqa_train.evaluation.rmse import rmse_resampled
from vqa_train.evaluation.significance import (
    corrected_resampled_t,
    holm,
    paired_bootstrap,
    wilcoxon_signed_rank,
)
from vqa_train.evaluation.srocc import srocc_resampled

PLCC = (plcc_resampled, plcc_resampled)


def models(rows: int = 150, better: float = 0.5, worse: float = 0.9, seed: int = 0):
    rng = np.random.default_rng(seed)
    target = rng.normal(3, 1, rows)
    return target + rng.normal(0, better, rows), target + rng.normal(0, worse, rows), target


def test_the_bootstrap_interval_is_scipys():
    first, second, target = models()
    ours = paired_bootstrap(first, second, target, PLCC, resamples=6000)
    theirs = stats.bootstrap(
        (first, second, target),
        lambda a, b, t: stats.pearsonr(a, t).statistic - stats.pearsonr(b, t).statistic,
        paired=True,
        vectorized=False,
        n_resamples=3000,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.01)
    assert ours.value == pytest.approx(plcc(first, target) - plcc(second, target), abs=1e-12)


def test_the_bootstrap_finds_a_difference_and_none_between_a_model_and_itself():
    first, second, target = models()
    assert paired_bootstrap(first, second, target, PLCC).p < 0.01
    assert paired_bootstrap(second, first, target, PLCC).value < 0
    same = paired_bootstrap(first, first.copy(), target, PLCC)
    assert (same.value, same.p) == (0.0, 1.0)
    # Another scale of the same ranks differs by rounding at most.
    scaled = paired_bootstrap(first, 3 * first + 1, target, (srocc_resampled, srocc_resampled))
    assert scaled.p == 1.0


@pytest.mark.parametrize("seed", range(5))
def test_the_p_value_is_two_sided(seed):
    # Nearly normal differences: p is that of the difference in units of the bootstrap's standard error.
    first, second, target = models(400, 0.7, 0.73, seed)
    found = paired_bootstrap(first, second, target, (rmse_resampled, rmse_resampled), resamples=4000)
    error = (found.high - found.low) / (2 * stats.norm.ppf(0.975))
    assert found.p == pytest.approx(2 * stats.norm.sf(abs(found.value) / error), abs=0.04)


def test_the_bootstrap_cries_wolf_in_about_one_of_twenty_cases():
    found = []
    for seed in range(200):
        first, second, target = models(80, 0.7, 0.7, seed)
        found.append(paired_bootstrap(first, second, target, PLCC, resamples=300).p < 0.05)
    assert 0.01 <= np.mean(found) <= 0.11


def test_groups_of_copies_are_no_more_evidence_than_one_row_each():
    first, second, target = models(30, 0.6, 0.75)
    single = paired_bootstrap(first, second, target, PLCC)
    copies = [np.repeat(v, 20) for v in (first, second, target)]
    groups = [str(i // 20) for i in range(600)]
    naive, grouped = paired_bootstrap(*copies, PLCC), paired_bootstrap(*copies, PLCC, groups=groups)
    assert naive.high - naive.low < 0.5 * (single.high - single.low)
    assert grouped.high - grouped.low == pytest.approx(single.high - single.low, rel=0.15)
    assert grouped.p > naive.p


def test_the_order_of_the_rows_changes_nothing():
    first, second, target = models()
    order = np.random.default_rng(0).permutation(150)
    groups = np.array([f"g{i % 30}" for i in range(150)])
    metrics = (rmse_resampled, rmse_resampled)
    one = paired_bootstrap(first, second, target, metrics, groups=groups, resamples=200)
    two = paired_bootstrap(first[order], second[order], target[order], metrics, groups=groups[order], resamples=200)
    assert one == two


def test_what_cannot_be_resampled_is_undefined():
    one = np.array([1.0])
    assert math.isnan(paired_bootstrap(one, one, one, PLCC).p)
    first, second, target = models(20)
    assert math.isnan(paired_bootstrap(first, second, target, PLCC, groups=["a"] * 20).p)
    constant = paired_bootstrap(np.full(20, 2.0), second, target, PLCC)
    assert math.isnan(constant.value)
    assert constant.to_json() == {"difference": None, "low": None, "high": None, "p": None, "n": 0}
    with pytest.raises(ValueError, match="one length"):
        paired_bootstrap(first, second[:-1], target, PLCC)


def test_wilcoxons_exact_p_is_that_of_writing_out_every_sign():
    rng = np.random.default_rng(0)
    first = rng.normal(0.5, 1, 9)
    ranks = stats.rankdata(np.abs(first))
    observed = abs((ranks * np.sign(first)).sum())
    extreme = [abs((ranks * signs).sum()) >= observed - 1e-9 for signs in product((-1, 1), repeat=9)]
    found = wilcoxon_signed_rank(first, np.zeros(9))
    assert found.p == pytest.approx(np.mean(extreme), rel=1e-12)
    assert found.value == pytest.approx(first.mean())


def test_wilcoxon_over_many_splits_or_with_ties_is_scipys_approximation():
    rng = np.random.default_rng(0)
    first, second = rng.normal(0.02, 0.1, 100).round(2), np.zeros(100)
    expected = stats.wilcoxon(first, second, method="asymptotic", zero_method="wilcox").pvalue
    assert wilcoxon_signed_rank(first, second).p == pytest.approx(expected, rel=1e-9)


def test_differences_that_are_equal_up_to_rounding_are_ties():
    # 0.1 + 0.2 - 0.3 is not 0, and 0.3 - 0.1 is not 0.2.
    first, second = [0.1 + 0.2, 0.3, 0.5, 0.9, 0.4], [0.3, 0.1, 0.3, 0.5, 0.9]
    expected = stats.wilcoxon([0.2, 0.2, 0.4, -0.5], method="asymptotic").pvalue
    assert wilcoxon_signed_rank(first, second).p == pytest.approx(expected, rel=1e-12)


def test_equal_models_have_p_1_and_no_splits_nan():
    assert wilcoxon_signed_rank([0.5, 0.6], [0.5, 0.6]).p == 1.0
    assert corrected_resampled_t([0.5, 0.6], [0.5, 0.6], test_share=0.25).p == 1.0
    for found in (wilcoxon_signed_rank([np.nan], [1.0]), corrected_resampled_t([0.5], [0.4], test_share=0.25)):
        assert math.isnan(found.p)
        assert found.n == 0


def test_undefined_splits_are_left_out():
    first, second = [0.5, np.nan, 0.7, 0.6, 0.9], [0.4, 0.1, 0.55, np.nan, 0.7]
    whole = wilcoxon_signed_rank([0.5, 0.7, 0.9], [0.4, 0.55, 0.7])
    assert wilcoxon_signed_rank(first, second).to_json() == whole.to_json()
    assert corrected_resampled_t(first, second, test_share=0.1).n == 3


def test_without_a_correction_the_t_test_is_scipys_paired_one():
    rng = np.random.default_rng(0)
    first, second = rng.normal(0.8, 0.02, 30), rng.normal(0.79, 0.02, 30)
    expected = stats.ttest_rel(first, second)
    found = corrected_resampled_t(first, second, test_share=0.0)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-12)
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-12)


def test_the_corrected_t_of_a_case_worked_by_hand():
    # Differences 1, 2, 3, 4: mean 2.5, variance 5 / 3; 1 / 4 + 1 / 4 = 1 / 2: t = 2.5 / sqrt(5 / 6), 3 degrees.
    found = corrected_resampled_t([1, 2, 3, 4], [0, 0, 0, 0], test_share=0.25)
    assert found.p == pytest.approx(2 * stats.t.sf(2.5 / math.sqrt(5 / 6), 3), rel=1e-12)


def test_a_constant_difference_is_certain():
    found = corrected_resampled_t([2.0, 3.0, 4.0], [1.0, 2.0, 3.0], test_share=0.25)
    assert (found.p, found.low, found.high) == (0.0, 1.0, 1.0)


def test_overlapping_splits_fool_the_naive_test_and_not_the_corrected_one():
    # Two equally good models over 20 random 80/20 splits of one sample: differences share most of their rows.
    naive, corrected = [], []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        difference = rng.normal(0, 1, 100)
        splits = [difference[rng.permutation(100)[:20]].mean() for _ in range(20)]
        zeros = np.zeros(20)
        naive.append(corrected_resampled_t(splits, zeros, test_share=0.0).p < 0.05)
        corrected.append(corrected_resampled_t(splits, zeros, test_share=0.25).p < 0.05)
    assert np.mean(naive) > 0.15
    assert np.mean(corrected) <= 0.08


def test_holms_correction_of_a_published_case():
    # R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm") gives 0.03 0.06 0.06 0.02.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_never_exceeds_one_and_leaves_out_what_was_not_tested():
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    adjusted = holm([float("nan"), 0.02, 0.03])
    assert math.isnan(adjusted[0])
    assert adjusted[1:] == pytest.approx([0.04, 0.04])
    assert holm([]) == []


def test_a_share_below_zero_and_lengths_that_differ_are_errors():
    with pytest.raises(ValueError, match="at least 0"):
        corrected_resampled_t([1.0], [1.0], test_share=-0.1)
    with pytest.raises(ValueError, match="one length"):
        wilcoxon_signed_rank([1.0], [1.0, 2.0])

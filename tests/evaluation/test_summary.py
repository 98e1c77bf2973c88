"""Metrics per fold are SciPy's, and their summary NumPy's, with undefined folds left out and counted."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from vqa_train.core.errors import UsageError
from vqa_train.evaluation.logistic import fit_logistic
from vqa_train.evaluation.summary import fold_metrics, summarise, summarise_values
from vqa_train.evaluation.uncertainty import LabelUncertainty


def fold(rows: int = 60, targets: int = 2):
    rng = np.random.default_rng(0)
    target = rng.uniform(1, 5, (rows, targets))
    return target + rng.normal(0, 0.5, (rows, targets)), target


def test_every_metric_of_a_fold_is_scipys():
    predicted, target = fold()
    target[5:9, 1] = np.nan
    found = fold_metrics(predicted, target, ["overall", "motion"])
    assert list(found) == ["overall", "motion"]
    x, y = np.delete(predicted[:, 1], range(5, 9)), np.delete(target[:, 1], range(5, 9))
    mapped = fit_logistic(x, y)(x)
    motion = found["motion"]
    assert motion["srocc"] == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert motion["krocc"] == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)
    assert motion["plcc"] == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
    assert motion["plcc_mapped"] == pytest.approx(stats.pearsonr(mapped, y).statistic, abs=1e-12)
    assert motion["rmse_mapped"] == pytest.approx(np.sqrt(np.mean((mapped - y) ** 2)), abs=1e-12)
    assert motion["mae_mapped"] == pytest.approx(np.mean(np.abs(mapped - y)), abs=1e-12)
    assert motion["vquala"] == pytest.approx((motion["srocc"] + motion["plcc"]) / 2, abs=1e-15)


def test_metrics_that_need_confidence_intervals_come_with_them_only():
    predicted, target = fold(targets=1)
    assert "rmse_star" not in fold_metrics(predicted, target, ["mos"])["mos"]
    known = {"mos": LabelUncertainty.from_votes(np.full(60, 0.4), 20)}
    found = fold_metrics(predicted, target, ["mos"], uncertainty=known)["mos"]
    assert 0 < found["rmse_star_mapped"] < found["rmse_mapped"]
    assert found["c0"] > 0.9


def test_without_mapping_nothing_is_mapped():
    found = fold_metrics(*fold(targets=1), ["mos"], mapping="none")["mos"]
    assert not [name for name in found if name.endswith("_mapped")]
    with pytest.raises(UsageError, match="unknown mapping"):
        fold_metrics(*fold(targets=1), ["mos"], mapping="cubic")


@pytest.mark.parametrize("predicted", [np.full(20, 3.0), np.full(20, np.nan), np.full(20, np.inf)])
def test_a_collapsed_fold_is_nan_and_no_error(predicted):
    found = fold_metrics(predicted[:, None], np.arange(20.0)[:, None], ["mos"])["mos"]
    for name in ("srocc", "plcc", "krocc", "vquala", "plcc_mapped", "rmse_mapped"):
        assert math.isnan(found[name])


def test_a_fold_without_labels_is_nan():
    found = fold_metrics(np.arange(9.0)[:, None], np.full((9, 1), np.nan), ["mos"])["mos"]
    assert all(math.isnan(value) for value in found.values())


def test_shapes_that_disagree_are_an_error():
    predicted, target = fold()
    with pytest.raises(ValueError, match="expected"):
        fold_metrics(predicted, target, ["mos"])


def test_the_summary_is_numpys_with_the_sample_standard_deviation():
    values = [0.7, 0.81, 0.79, 0.75]
    found = summarise([{"mos": {"srocc": value}} for value in values])["mos"]["srocc"]
    assert (found.median, found.mean) == pytest.approx((0.77, np.mean(values)))
    assert found.std == pytest.approx(np.std(values, ddof=1))
    assert (found.min, found.max, found.n, found.undefined) == (0.7, 0.81, 4, 0)


def test_undefined_folds_are_left_out_and_counted():
    found = summarise_values([0.5, float("nan"), 0.7])
    assert (found.median, found.n, found.undefined) == (pytest.approx(0.6), 2, 1)


def test_one_fold_has_no_spread_and_none_has_nothing():
    assert math.isnan(summarise_values([0.5]).std)
    nothing = summarise_values([float("nan")])
    document = json.loads(json.dumps(nothing.to_json(), allow_nan=False))
    assert document == {
        "median": None, "mean": None, "std": None, "min": None, "max": None, "n": 0, "undefined": 1,
    }  # fmt: skip


def test_folds_may_lack_a_target():
    found = summarise([{"a": {"srocc": 0.5}}, {"a": {"srocc": 0.7}, "b": {"srocc": 0.1}}])
    assert (found["a"]["srocc"].n, found["b"]["srocc"].n) == (2, 1)

"""VqaRegressor keeps scikit-learn's contract, and is what the trainer makes of the same rows."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.base import clone
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from vqa_train import VqaRegressor
from vqa_train.evaluation import METRICS
from vqa_train.heads.config import HeadConfig, LossConfig, TrainConfig
from vqa_train.heads.table import build_table
from vqa_train.heads.trainer import HeadJob, fit_heads, predict_many


def made(rows: int = 60, columns: int = 4, targets: int = 0, seed: int = 0) -> tuple[Any, Any]:
    """Features, and labels that their first column decides, with noise."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, columns))
    y = 3 + x[:, 0] + 0.3 * rng.normal(size=rows)
    return x, np.stack([y * (1 + k) for k in range(targets)], axis=1) if targets else y


QUICK = {"epochs": 5, "seeds": 2}


def test_passes_every_check_of_scikit_learn() -> None:
    """Skipped is what needs pandas or array_api_compat; nothing is expected to fail."""
    results = check_estimator(VqaRegressor(), on_skip=None)
    left = {result["check_name"] for result in results if result["status"] != "passed"}
    assert len(results) > 50
    assert left <= {
        "check_sample_weights_pandas_series",
        "check_regressor_data_not_an_array",
        "check_array_api_input",
    }


def test_is_imported_when_it_is_asked_for() -> None:
    code = (
        "import sys, vqa_train; assert 'torch' not in sys.modules and 'sklearn' not in sys.modules\n"
        "vqa_train.VqaRegressor; assert 'torch' in sys.modules\n"
        "try: vqa_train.nothing\n"
        "except AttributeError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "module 'vqa_train' has no attribute 'nothing'"


def test_one_network_is_that_of_the_trainer() -> None:
    x, y = made()
    regressor = VqaRegressor("mlp", seeds=1, epochs=7, hidden=(8,)).fit(x, y)
    config = TrainConfig(
        head=HeadConfig(hidden=(8,)),
        loss=LossConfig(smooth_l1=0.5, rank=0, plcc=1),
        epochs=7,
        patience=None,
        seed=_seed(regressor),
    )
    rows = np.float32(x)
    keys = [_key(row, label) for row, label in zip(rows, y, strict=True)]
    table = build_table({"x": rows}, np.float32(y)[:, None], ["y0"], keys, keys)
    head = fit_heads(table, [HeadJob(config=config, train=np.arange(60))], metric=METRICS.get("srocc"))
    expected = predict_many(head, table, [np.arange(60)])[0][:, 0]
    np.testing.assert_allclose(regressor.predict(x), expected, rtol=1e-5)


def _key(row: Any, label: float) -> str:
    import hashlib

    return hashlib.sha256(row.tobytes() + np.float64(label).tobytes()).hexdigest()


def _seed(regressor: VqaRegressor) -> int:
    from vqa_train.core.hashing import seed_from

    return seed_from("estimator", regressor.random_state, 0) >> 32


def test_members_have_equal_shares_whatever_their_number_of_networks() -> None:
    x, y = made()
    alone = [VqaRegressor(kind, **QUICK).fit(x, y).predict(x) for kind in ("mlp", "linear")]
    both, std = VqaRegressor("mlp+linear", **QUICK).fit(x, y).predict(x, return_std=True)
    np.testing.assert_allclose(both, np.mean(alone, axis=0), rtol=1e-5)
    # Half of the weight is at one member's scores, a quarter at each network's of the other.
    assert (std >= np.abs(alone[0] - alone[1]) / 2 - 1e-5).all()


def test_learns_and_scores_as_scipy_and_scikit_learn_do() -> None:
    x, y = made(200)
    test_x, test_y = made(100, seed=1)
    regressor = VqaRegressor().fit(x, y)
    predicted = regressor.predict(test_x)
    assert regressor.score(test_x, test_y) == pytest.approx(r2_score(test_y, predicted))
    assert regressor.score(test_x, test_y) > 0.8
    assert regressor.srocc_score(test_x, test_y) == pytest.approx(stats.spearmanr(test_y, predicted).statistic)


def test_several_targets_and_their_mean_srocc() -> None:
    x, y = made(targets=2)
    y[:, 1] = -y[:, 1]
    regressor = VqaRegressor(**QUICK).fit(x, y)
    predicted = regressor.predict(x)
    assert predicted.shape == (60, 2)
    each = [stats.spearmanr(y[:, k], predicted[:, k]).statistic for k in range(2)]
    assert regressor.srocc_score(x, y) == pytest.approx(np.mean(each))
    assert min(each) > 0.5


def test_missing_and_infinite_features_count_as_the_mean() -> None:
    x, y = made()
    x[3, 1], x[4, 2] = np.nan, np.inf
    regressor = VqaRegressor(**QUICK).fit(x, y)
    rest = np.delete(x, [3, 4], axis=0)
    gap = np.nanmean(x[:, 1])
    filled = x[3].copy()
    filled[1] = gap
    np.testing.assert_allclose(regressor.predict(x[3:4]), regressor.predict(filled[None]), rtol=1e-5)
    assert np.isfinite(regressor.predict(rest)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_labels_must_be_finite(bad: float) -> None:
    x, y = made()
    y[5] = bad
    with pytest.raises(ValueError, match="NaN|infinity"):
        VqaRegressor(**QUICK).fit(x, y)


def test_one_row_and_constant_labels_give_that_constant_and_say_so() -> None:
    x, y = made()
    with pytest.warns(UserWarning, match="y is constant"):
        one = VqaRegressor().fit(x[:1], y[:1])
    assert one.ensemble_ is None
    predicted, std = one.predict(x, return_std=True)
    assert (predicted == y[0]).all()
    assert (std == 0).all()
    with pytest.warns(UserWarning, match="y is constant"):
        same = VqaRegressor().fit(x, np.full(60, 2.5))
    assert (same.predict(x) == 2.5).all()
    assert np.isnan(same.srocc_score(x, y))


def test_a_constant_target_does_not_stop_the_others() -> None:
    x, y = made(targets=2)
    y[:, 0] = 7
    with pytest.warns(UserWarning, match="column 0 of y is constant"):
        predicted = VqaRegressor(**QUICK).fit(x, y).predict(x)
    assert (predicted[:, 0] == 7).all()
    assert stats.spearmanr(predicted[:, 1], y[:, 1]).statistic > 0.5


def test_two_rows_are_enough() -> None:
    x, y = made()
    assert np.isfinite(VqaRegressor(**QUICK).fit(x[:2], y[:2]).predict(x)).all()


def test_labels_that_float32_cannot_tell_apart_are_refused() -> None:
    x, y = made()
    with pytest.raises(ValueError, match="subtract the mean"):
        VqaRegressor(**QUICK).fit(x, 1e12 + y)


def test_order_of_rows_does_not_matter_and_a_weight_of_zero_leaves_out() -> None:
    x, y = made()
    first = VqaRegressor(**QUICK).fit(x, y).predict(x)
    turned = VqaRegressor(**QUICK).fit(x[::-1], y[::-1]).predict(x)
    np.testing.assert_array_equal(first, turned)
    weight = np.ones(60)
    weight[40:] = 0
    some = VqaRegressor(**QUICK).fit(x, y, sample_weight=weight).predict(x)
    np.testing.assert_array_equal(some, VqaRegressor(**QUICK).fit(x[:40], y[:40]).predict(x))
    assert not np.array_equal(first, some)
    for bad in (-weight, weight[1:], np.full(60, np.nan), np.zeros(60)):
        with pytest.raises(ValueError, match="sample_weight"):
            VqaRegressor(**QUICK).fit(x, y, sample_weight=bad)


def test_a_heavy_row_pulls_a_ridge_as_scikit_learn_s_own() -> None:
    """One column, so that the penalty hardly matters: a weighted line."""
    from sklearn.linear_model import LinearRegression

    rng = np.random.default_rng(3)
    x = rng.normal(size=(200, 1))
    y = 2 * x[:, 0] + rng.normal(size=200)
    weight = rng.uniform(0.05, 1, size=200)
    ours = VqaRegressor("linear").fit(x, y, sample_weight=weight).predict(x)
    theirs = LinearRegression().fit(x, y, sample_weight=weight).predict(x)
    plain = LinearRegression().fit(x, y).predict(x)
    assert np.abs(ours - theirs).max() < 0.3 * np.abs(plain - theirs).max()


def test_same_state_same_bits_other_state_other_networks() -> None:
    x, y = made()
    first = VqaRegressor(random_state=1, **QUICK).fit(x, y)
    np.testing.assert_array_equal(first.predict(x), VqaRegressor(random_state=1, **QUICK).fit(x, y).predict(x))
    assert not np.array_equal(first.predict(x), VqaRegressor(random_state=2, **QUICK).fit(x, y).predict(x))
    copy = pickle.loads(pickle.dumps(first))
    np.testing.assert_array_equal(first.predict(x), copy.predict(x))
    threads = VqaRegressor(random_state=1, n_jobs=2, **QUICK).fit(x, y)
    np.testing.assert_array_equal(first.predict(x), threads.predict(x))


def test_works_in_a_grid_search_by_group() -> None:
    x, y = made()
    search = GridSearchCV(
        VqaRegressor("mlp", epochs=3, seeds=1),
        {"hidden": [(8,), ()], "lr": [1e-3, 1e-2]},
        cv=GroupKFold(3),
        scoring=lambda regressor, features, labels: regressor.srocc_score(features, labels),
    ).fit(x, y, groups=np.repeat(np.arange(20), 3))
    assert clone(search.best_estimator_).get_params() == search.best_estimator_.get_params()


def test_works_in_cross_validation_and_in_a_pipeline() -> None:
    x, y = made(90)
    steps = make_pipeline(StandardScaler(), VqaRegressor("mlp+linear", **QUICK))
    folds = cross_val_score(steps, x, y, cv=KFold(3), scoring="r2")
    assert folds.min() > 0.5
    fitted = steps.fit(x[:60], y[:60])
    copy = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(copy.predict(x[60:]), fitted.predict(x[60:]))
    assert folds[2] == pytest.approx(r2_score(y[60:], fitted.predict(x[60:])))


def test_groups_stay_whole_where_rows_choose_the_epoch() -> None:
    x, y = made()
    settings = {"validation_fraction": 0.3, "patience": 3, "seeds": 1}
    regressor = VqaRegressor("mlp", **settings).fit(x, y, groups=np.repeat(["a", "b", "c"], 20))
    assert all("validation_metric" in epoch for epoch in regressor.history_[0])
    # With one group there is nothing to hold out.
    with pytest.raises(ValueError, match="at least 2 groups, got 1"):
        VqaRegressor("mlp", **settings).fit(x, y, groups=np.zeros(60))
    with pytest.raises(ValueError, match="groups has shape"):
        VqaRegressor("mlp", **settings).fit(x, y, groups=np.zeros(59))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"members": "mlp+mlp"}, "names a kind twice"),
        ({"members": "mpl"}, "did you mean 'mlp'"),
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"dropout": 1.5}, "less than 1"),
        ({"smooth_l1": 0, "plcc": 0}, "at least one loss"),
    ],
)
def test_wrong_settings_are_value_errors(settings: dict[str, Any], message: str) -> None:
    x, y = made()
    with pytest.raises(ValueError, match=message):
        VqaRegressor(**settings).fit(x, y)


def test_real_features_reach_what_the_command_line_reaches(shared: Path) -> None:
    """KoNViD-1k, one 80/20 split; the median of a hundred is 0.797 (docs/benchmarks)."""
    import polars as pl

    table = pl.read_parquet(shared / "data" / "konvid1k_videval.parquet")
    x, y = np.stack(table["features"].to_numpy()), table["mos"].to_numpy()
    order = np.random.default_rng(0).permutation(len(y))
    train, test = order[:960], order[960:]
    assert VqaRegressor(seeds=2).fit(x[train], y[train]).srocc_score(x[test], y[test]) > 0.76

"""Ridge regression in closed form, against scikit-learn and against leaving each row out."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge, RidgeCV

from vqa_train.core.errors import ConfigError
from vqa_train.heads import linear
from vqa_train.heads.config import HeadConfig, TrainConfig
from vqa_train.heads.linear import LinearHead, alike, ridge


def problem(rows: int, columns: int, targets: int = 1, seed: int = 0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, columns)) @ np.diag(rng.uniform(0.1, 3, columns)) + rng.normal(size=columns)
    y = x[:, :3] @ rng.normal(size=(3, targets)) + 5 + rng.normal(size=(rows, targets))
    return x, y, rng.uniform(0.1, 2, rows)


def tensors(*arrays):
    return [torch.from_numpy(np.asarray(array, dtype=np.float64)) for array in arrays]


def left_out(x, y, weight, alpha) -> float:
    """Weighted mean square error of n fits, each without one row."""
    errors = []
    for i in range(len(x)):
        rest = np.arange(len(x)) != i
        fit = Ridge(alpha=alpha, solver="svd").fit(x[rest], y[rest], sample_weight=weight[rest])
        errors.append(float(fit.predict(x[i : i + 1])[0] - y[i]) ** 2)
    return float(np.average(errors, weights=weight))


@pytest.mark.parametrize(("rows", "columns"), [(40, 6), (20, 20), (25, 70)])
@pytest.mark.parametrize("alpha", [0.01, 3.0, 1e4])
def test_coefficients_intercept_and_leave_one_out_error_are_exact(rows, columns, alpha):
    x, y, weight = problem(rows, columns)
    [(chosen, error, coefficients, intercept)] = ridge(*tensors(x, y, weight, [alpha]))
    peer = Ridge(alpha=alpha, solver="svd").fit(x, y[:, 0], sample_weight=weight)
    np.testing.assert_allclose(coefficients, peer.coef_, rtol=1e-7, atol=1e-9)
    assert float(intercept) == pytest.approx(peer.intercept_, rel=1e-8)
    assert chosen == alpha
    assert error == pytest.approx(left_out(x, y[:, 0], weight, alpha), rel=1e-7)


@pytest.mark.parametrize(("rows", "columns"), [(60, 8), (30, 80)])
def test_the_penalty_is_the_one_that_scikit_learn_chooses(rows, columns):
    x, y, _ = problem(rows, columns, targets=3, seed=1)
    penalties = np.logspace(-3, 4, 29)
    for column, (alpha, error, coefficients, _) in enumerate(ridge(*tensors(x, y, np.ones(rows), penalties))):
        peer = RidgeCV(penalties, store_cv_results=True).fit(x, y[:, column])
        assert alpha == peer.alpha_
        assert error == pytest.approx(peer.cv_results_.mean(axis=0).min(), rel=1e-7)
        np.testing.assert_allclose(coefficients, peer.coef_, rtol=1e-6, atol=1e-9)


def test_blocks_of_rows_change_nothing(monkeypatch):
    x, y, weight = problem(50, 7, targets=2)
    one = ridge(*tensors(x, y, weight, [0.1, 1, 10]))
    monkeypatch.setattr(linear, "_BLOCK", 8)
    for (a, e, c, b), (a2, e2, c2, b2) in zip(one, ridge(*tensors(x, y, weight, [0.1, 1, 10])), strict=True):
        assert (a, float(b)) == pytest.approx((a2, float(b2)), rel=1e-12)
        assert e == pytest.approx(e2, rel=1e-12)
        torch.testing.assert_close(c, c2, rtol=1e-12, atol=1e-14)


def test_of_equal_errors_the_larger_penalty_is_kept():
    x, y, weight = problem(10, 4)
    x[:] = 0
    [(alpha, _, coefficients, intercept)] = ridge(*tensors(x, y, weight, [0.1, 1, 10]))
    assert (alpha, coefficients.abs().max()) == (10, 0)
    assert float(intercept) == pytest.approx(np.average(y[:, 0], weights=weight))


def test_an_intercept_is_not_shrunk():
    x, y, weight = problem(40, 5)
    [(_, _, coefficients, intercept)] = ridge(*tensors(x, y + 1e6, weight, [1e12]))
    assert coefficients.abs().max() < 1e-6
    assert float(intercept) == pytest.approx(1e6 + np.average(y[:, 0], weights=weight), rel=1e-9)


def solved(x, y, weight, **options):
    head = LinearHead({"x": x.shape[1]}, ["a", "b", "c"][: y.shape[1]], HeadConfig(kind="linear", options=options))
    chosen = head.solve(*(torch.from_numpy(part.astype(np.float32)) for part in (x, y, weight)), TrainConfig(), 0)
    return head, chosen


def test_each_target_is_fitted_on_its_labelled_rows_by_their_weights():
    x, y, weight = problem(60, 5, targets=3)
    masks = np.stack([np.ones(60), np.arange(60) % 3 > 0, np.ones(60)], axis=1) * weight[:, None]
    head, chosen = solved(x, y * (masks > 0), masks, alpha=2.0)
    for column in range(3):
        rows = masks[:, column] > 0
        x32, y32, w32 = (part.astype(np.float32) for part in (x[rows], y[rows, column], masks[rows, column]))
        peer = Ridge(alpha=2.0, solver="svd").fit(x32.astype(float), y32.astype(float), sample_weight=w32.astype(float))
        np.testing.assert_allclose(head.weight[0, :, column], peer.coef_, rtol=1e-9)
        assert head.bias[0, column].item() == pytest.approx(peer.intercept_, rel=1e-9)
    assert {name: value for name, value in chosen.items() if name.endswith("alpha")} == {
        "a.alpha": 2, "b.alpha": 2, "c.alpha": 2,
    }  # fmt: skip


def test_targets_with_the_same_weights_share_a_decomposition():
    weight = torch.tensor([[1, 0, 1, 0], [1, 1, 1, 1.0]])
    assert alike(weight) == [[0, 2], [1, 3]]


def test_the_error_it_reports_is_in_standard_deviations_of_the_labels():
    x, y, _ = problem(80, 4)
    y = (y - y.mean()) / y.std()
    _, chosen = solved(x, y, np.ones_like(y))
    error = left_out(x, y[:, 0], np.ones(80), chosen["a.alpha"])
    assert chosen["a.loo_rmse_sd"] == pytest.approx(error**0.5, rel=1e-5)
    assert chosen["a.loo_rmse_sd"] < 1


def test_noise_gets_a_large_penalty_and_a_clear_signal_a_small_one():
    x, y, _ = problem(200, 20)
    noise, clear = np.random.default_rng(5).normal(size=(200, 1)), x[:, :1] - x[:, 1:2]
    alphas = [solved(x, labels, np.ones((200, 1)))[1]["a.alpha"] for labels in (noise, y, clear)]
    assert alphas[0] > 10 * alphas[1] > 100 * alphas[2]


def test_more_columns_than_rows_are_decomposed_on_the_smaller_side(monkeypatch):
    sizes = []
    original = torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda matrix: sizes.append(len(matrix)) or original(matrix))
    x, y, weight = problem(200, 4096)
    head, _ = solved(x, y, weight[:, None])
    assert sizes == [200]
    assert head.weight.shape == (1, 4096, 1)
    solved(*problem(100, 30)[:2], np.ones((100, 1)))
    assert sizes == [200, 30]


def test_a_penalty_that_is_none_is_an_error():
    with pytest.raises(ConfigError, match=r"head.options of kind 'linear'.*alpha"):
        LinearHead({"x": 3}, ["a"], HeadConfig(kind="linear", options={"alpha": 0}))

"""Kernel ridge in closed form, against scikit-learn, dense algebra and leaving each row out."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics.pairwise import euclidean_distances, rbf_kernel

from vqa_train.core.config import parse
from vqa_train.core.errors import ConfigError
from vqa_train.evaluation import METRICS
from vqa_train.heads import kernel_ridge
from vqa_train.heads.checkpoint import load_head, save_head
from vqa_train.heads.config import HeadConfig, TrainConfig
from vqa_train.heads.kernel_ridge import (
    KernelRidgeHead,
    leave_one_out,
    leave_one_out_of,
    sample,
    solve_landmarks,
    solve_rows,
    squared_distance,
)
from vqa_train.heads.table import build_table
from vqa_train.heads.trainer import HeadJob, fit_heads, predict_many


def problem(rows: int = 40, columns: int = 5, targets: int = 1, seed: int = 0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, columns)).astype(np.float32).astype(np.float64)
    y = np.sin(x[:, :1] * np.arange(1, targets + 1)) + 0.2 * rng.normal(size=(rows, targets)) + 3
    return x, y, rng.uniform(0.2, 2, rows)


def tensors(*arrays):
    return [torch.from_numpy(np.asarray(array, dtype=np.float64)) for array in arrays]


def dense(x, y, weight, gamma, alpha):
    """Coefficients and intercept of the bordered system, by a general solver."""
    n = len(x)
    matrix = np.ones((n + 1, n + 1))
    matrix[:n, :n] = rbf_kernel(x, gamma=gamma) + alpha * np.diag(1 / weight)
    matrix[n, n] = 0
    solution = np.linalg.solve(matrix, np.append(y, 0))
    return solution[:n], solution[n]


def left_out(x, y, weight, gamma, alpha) -> float:
    errors = []
    for i in range(len(x)):
        rest = np.arange(len(x)) != i
        a, b = dense(x[rest], y[rest], weight[rest], gamma, alpha)
        errors.append(float(rbf_kernel(x[i : i + 1], x[rest], gamma=gamma)[0] @ a + b - y[i]) ** 2)
    return float(np.average(errors, weights=weight))


def solved(x, y, weight, **options):
    head = KernelRidgeHead({"x": x.shape[1]}, [f"t{k}" for k in range(y.shape[1])], config(**options))
    chosen = head.solve(*(torch.from_numpy(part.astype(np.float32)) for part in (x, y, weight)), TrainConfig(), 0)
    return head, chosen


def config(**options) -> HeadConfig:
    return HeadConfig(kind="kernel_ridge", options=options)


def network(head, x):
    return head.network(torch.from_numpy(x.astype(np.float32))[None])[0].numpy()


def test_squared_distances_are_those_of_scikit_learn():
    a, b = problem(20)[0], problem(7, seed=1)[0]
    np.testing.assert_allclose(squared_distance(*tensors(a, b)), euclidean_distances(a, b, squared=True), atol=1e-12)


@pytest.mark.parametrize(("gamma", "alpha"), [(0.02, 0.001), (0.3, 0.1), (3.0, 10.0)])
def test_all_rows_solve_the_bordered_system(gamma, alpha):
    x, y, weight = problem()
    a, b = solve_rows(*tensors(x, y[:, 0], weight), gamma, alpha)
    expected, intercept = dense(x, y[:, 0], weight, gamma, alpha)
    np.testing.assert_allclose(a, expected, rtol=1e-6, atol=1e-8)
    assert b == pytest.approx(intercept, rel=1e-7)
    assert abs(float(a.sum())) < 1e-8 * float(a.abs().sum())


def test_with_the_intercept_taken_off_it_is_scikit_learns_kernel_ridge():
    x, y, weight = problem()
    gamma, alpha = 0.3, 0.2
    a, b = solve_rows(*tensors(x, y[:, 0], weight), gamma, alpha)
    peer = KernelRidge(kernel="rbf", gamma=gamma, alpha=alpha).fit(x, y[:, 0] - b, sample_weight=weight)
    unseen = problem(15, seed=3)[0]
    ours = rbf_kernel(unseen, x, gamma=gamma) @ a.numpy() + b
    np.testing.assert_allclose(ours, peer.predict(unseen) + b, rtol=1e-9)


@pytest.mark.parametrize("gamma", [0.02, 0.3, 3.0])
def test_leave_one_out_errors_are_those_of_leaving_each_row_out(gamma):
    x, y, weight = problem(30, targets=2)
    alphas = [0.003, 0.1, 5.0]
    kernel = torch.from_numpy(rbf_kernel(x, gamma=gamma))
    errors = leave_one_out(kernel, *tensors(y, weight, alphas))
    for row, alpha in enumerate(alphas):
        for column in range(2):
            expected = left_out(x, y[:, column], weight, gamma, alpha)
            assert errors[row, column].item() == pytest.approx(expected, rel=1e-6)
            assert leave_one_out_of(kernel, *tensors(y[:, column], weight), alpha) == pytest.approx(expected, rel=1e-6)


def test_width_and_penalty_have_the_least_leave_one_out_error_of_the_grid():
    x, y, weight = problem(50, targets=2)
    gammas, alphas = (0.1, 1.0, 10.0), (0.01, 0.1, 1.0)
    head, chosen = solved(x, y, np.repeat(weight[:, None], 2, 1), gammas=gammas, alphas=alphas)
    for column in range(2):
        table = {(g, a): left_out(x, y[:, column], weight, g / 5, a) for g in gammas for a in alphas}
        best = min(table, key=table.get)
        assert (chosen[f"t{column}.gamma"], chosen[f"t{column}.alpha"]) == best
        assert chosen[f"t{column}.loo_rmse_sd"] == pytest.approx(table[best] ** 0.5, rel=1e-5)
        assert chosen[f"t{column}.loo_rows"] == 50
        a, b = dense(x, y[:, column], weight, best[0] / 5, best[1])
        unseen = problem(15, seed=3)[0]
        expected = rbf_kernel(unseen, x, gamma=best[0] / 5) @ a + b
        np.testing.assert_allclose(network(head, unseen)[:, column], expected, rtol=1e-4)


def test_the_penalty_moves_downhill_on_more_rows_than_were_searched():
    x, y, _ = problem(300)
    weight = np.ones_like(y)
    alphas = tuple(np.logspace(-4, 2, 13))
    coarse = solved(x, y, weight, alphas=alphas, gammas=[1.0], search_rows=6, refine_rows=6)[1]
    refined = solved(x, y, weight, alphas=alphas, gammas=[1.0], search_rows=6, refine_rows=300)[1]
    table = {a: left_out_fast(x, y[:, 0], 0.2, a) for a in alphas}
    assert refined["t0.alpha"] == min(table, key=table.get)
    assert refined["t0.alpha"] != coarse["t0.alpha"]
    assert (coarse["t0.loo_rows"], refined["t0.loo_rows"]) == (6, 300)
    assert refined["t0.loo_rmse_sd"] == pytest.approx(min(table.values()) ** 0.5, rel=1e-5)


@pytest.mark.parametrize("start", range(7))
def test_from_any_penalty_it_goes_down_to_the_least_error(start):
    x, y, weight = problem(120)
    alphas = tuple(np.logspace(-3, 3, 7))
    head = KernelRidgeHead({"x": 5}, ["t0"], config(alphas=alphas))
    kernel = torch.from_numpy(rbf_kernel(x, gamma=0.2))
    table = leave_one_out(kernel, *tensors(y, weight, alphas))[:, 0]
    # Falls, then rises, with its least inside the grid: there are no other valleys to stop in.
    least = int(table.argmin())
    assert 0 < least < 6
    assert (table[: least + 1].diff() < 0).all()
    assert (table[least:].diff() > 0).all()
    alpha, error = head._refine(kernel, *tensors(y[:, 0], weight), alphas[start])
    assert alpha == alphas[least]
    assert error == pytest.approx(table[least].item(), rel=1e-9)


def left_out_fast(x, y, gamma, alpha) -> float:
    """Mean square leave-one-out error of unit weights by the inverse of the bordered matrix, in numpy."""
    n = len(x)
    matrix = np.ones((n + 1, n + 1))
    matrix[:n, :n] = rbf_kernel(x, gamma=gamma) + alpha * np.eye(n)
    matrix[n, n] = 0
    inverse = np.linalg.inv(matrix)
    return float(np.mean(((inverse @ np.append(y, 0))[:n] / np.diag(inverse)[:n]) ** 2))


def test_each_target_is_solved_on_its_labelled_rows():
    x, y, weight = problem(45, targets=2)
    mask = np.stack([weight, weight * (np.arange(45) % 3 > 0)], axis=1)
    head, _ = solved(x, y * (mask > 0), mask, gammas=[0.5], alphas=[0.3])
    rows = mask[:, 1] > 0
    a, b = dense(x[rows], y[rows, 1], mask[rows, 1], 0.1, 0.3)
    np.testing.assert_allclose(head.coefficients[0, rows, 1], a, rtol=1e-4, atol=1e-6)
    assert not head.coefficients[0, ~rows, 1].any()
    assert head.bias[0, 1].item() == pytest.approx(b, rel=1e-5)
    other, _ = solved(x, y * (mask > 0), mask[:, [1, 1]], gammas=[0.5], alphas=[0.3])
    np.testing.assert_allclose(other.coefficients[0, :, 1], head.coefficients[0, :, 1], rtol=1e-12)


def test_landmarks_minimise_the_penalised_error_of_all_rows():
    x, y, weight = problem(60)
    centres, gamma, alpha = x[:12], 0.2, 0.05
    a, b = solve_landmarks(torch.from_numpy(x), *tensors(y[:, 0], weight, centres), gamma, alpha)
    among, across = rbf_kernel(centres, gamma=gamma), rbf_kernel(x, centres, gamma=gamma)
    # The stationary point of sum w (y - b - k a)^2 + alpha a K a, in a and b.
    matrix = np.zeros((13, 13))
    matrix[:12, :12] = across.T @ (weight[:, None] * across) + alpha * among
    matrix[:12, 12] = matrix[12, :12] = across.T @ weight
    matrix[12, 12] = weight.sum()
    expected = np.linalg.solve(matrix, np.append(across.T @ (weight * y[:, 0]), weight @ y[:, 0]))
    unseen = rbf_kernel(problem(20, seed=4)[0], centres, gamma=gamma)
    np.testing.assert_allclose(unseen @ a.numpy() + b, unseen @ expected[:12] + expected[12], rtol=1e-6)


def test_as_many_landmarks_as_rows_are_the_same_as_all_rows():
    x, y, weight = problem(40)
    a, b = solve_landmarks(torch.from_numpy(x), *tensors(y[:, 0], weight, x), 0.3, 0.1)
    expected, intercept = dense(x, y[:, 0], weight, 0.3, 0.1)
    unseen = rbf_kernel(problem(20, seed=4)[0], x, gamma=0.3)
    np.testing.assert_allclose(unseen @ a.numpy() + b, unseen @ expected + intercept, rtol=1e-5)


def test_with_more_rows_than_max_rows_all_rows_still_teach_and_the_record_says_so(monkeypatch):
    monkeypatch.setattr(kernel_ridge, "_BLOCK", 64)
    x, y, _ = problem(400, columns=2)
    head, chosen = solved(x, y, np.ones_like(y), max_rows=60)
    assert (head.centres.shape, head.coefficients.shape) == ((1, 60, 2), (1, 60, 1))
    assert (chosen["centres"], chosen["rows"]) == (60, 400)
    unseen, _, _ = problem(200, columns=2, seed=7)
    signal = np.sin(unseen[:, 0]) + 3
    few, whole = solved(x[:60], y[:60], np.ones((60, 1)))[0], solved(x, y, np.ones_like(y))[0]
    errors = [np.mean((network(made, unseen)[:, 0] - signal) ** 2) for made in (head, few, whole)]
    assert errors[0] < 0.6 * errors[1]
    assert errors[0] < 1.2 * errors[2]


def test_which_rows_are_looked_at_depends_on_their_number_alone():
    rows = sample(1000, 200)
    assert len(set(rows.tolist())) == 200
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(rows, sample(1000, 200))
    assert set(rows.tolist()) <= set(sample(1000, 500).tolist())
    np.testing.assert_array_equal(sample(5, 200), np.arange(5))
    # No stretch of a table that is in some order is left out.
    assert np.histogram(rows, bins=10, range=(0, 1000))[0].min() > 8


def test_rows_predicted_in_blocks_are_the_same(monkeypatch):
    x, y, weight = problem(50)
    head, _ = solved(x, y, weight[:, None])
    unseen = problem(30, seed=2)[0]
    whole = network(head, unseen)
    monkeypatch.setattr(kernel_ridge, "_BLOCK", 7)
    np.testing.assert_allclose(network(head, unseen), whole, rtol=1e-6)


def test_two_rows_are_enough_and_equal_rows_do_no_harm():
    x, y, _ = problem(2)
    head, _ = solved(x, y, np.ones_like(y))
    assert np.isfinite(network(head, x)).all()
    x, y, _ = problem(30)
    x[:15] = x[15:]
    head, chosen = solved(x, y, np.ones_like(y))
    assert np.isfinite(network(head, x)).all()
    assert all(np.isfinite(value) for value in chosen.values())


def test_a_loaded_head_has_room_for_its_centres(tmp_path):
    x, y, _ = problem(23)
    head, _ = solved(x, y, np.ones_like(y))
    save_head(tmp_path / "head", head)
    loaded, _ = load_head(tmp_path / "head")
    assert loaded.centres.shape == (1, 23, 5)
    np.testing.assert_array_equal(network(loaded, x), network(head, x))


@pytest.mark.parametrize(
    "options", [{"gammas": []}, {"gammas": [0.0]}, {"alphas": [-1.0]}, {"search_rows": 1}, {"max_rows": 0}]
)
def test_options_that_mean_nothing_are_errors(options):
    with pytest.raises(ConfigError, match=f"head.options of kind 'kernel_ridge'.*{next(iter(options))}"):
        KernelRidgeHead({"x": 3}, ["a"], config(**options))


def test_published_features_of_konvid_give_what_kernel_ridge_is_known_to_give(shared):
    import pyarrow.parquet as pq

    table = pq.read_table(shared / "data" / "konvid1k_videval.parquet")
    x = np.stack(table["features"].to_numpy()).astype(np.float32)
    mos = table["mos"].to_numpy().astype(np.float32)[:, None]
    ids = [f"{i:04d}" for i in range(len(x))]
    rows = build_table({"videval": x}, mos, ["mos"], ids, ids)
    recipe = parse(TrainConfig, {"head": {"kind": "kernel_ridge"}}, "recipe")
    orders = [np.random.RandomState(seed).permutation(len(x)) for seed in range(10)]
    jobs = [HeadJob(config=recipe, train=np.sort(order[240:])) for order in orders]
    heads = fit_heads(rows, jobs, metric=METRICS.get("srocc"))
    predicted = predict_many(heads, rows, [order[:240] for order in orders])
    sroccs = [spearmanr(p[:, 0], mos[order[:240], 0])[0] for p, order in zip(predicted, orders, strict=True)]
    assert np.median(sroccs) > 0.775

"""Permutation importance against scikit-learn's, and in cases whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.inspection import permutation_importance as sklearns

from vqa_train.pipelines.report.importance import (
    block_of,
    importance_pictures,
    permutation_importance,
    rows_to_use,
    steps_of,
)

WEIGHTS = np.asarray([2.0, 0.0, -1.0, 0.5], dtype=np.float32)


def linear(features: dict[str, np.ndarray]) -> np.ndarray:
    return features["x"] @ WEIGHTS[:, None]


class Linear(RegressorMixin, BaseEstimator):
    def fit(self, x: np.ndarray, y: np.ndarray) -> Linear:
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        return x @ WEIGHTS


def made(rows: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 4)).astype(np.float32)
    return x, (x @ WEIGHTS + rng.normal(size=rows))[:, None].astype(np.float32)


def test_losses_are_scikit_learns() -> None:
    x, y = made()
    found = permutation_importance(linear, {"x": x}, y, {"x": ["a", "b", "c", "d"]})
    expected = sklearns(
        Linear(), x, y[:, 0], n_repeats=20, random_state=0,
        scoring=lambda model, a, b: stats.spearmanr(model.predict(a), b).statistic,
    )  # fmt: skip
    assert [loss.name for loss in found.columns] == ["a", "c", "d", "b"]
    by_name = {loss.name: loss for loss in found.columns}
    for i, name in enumerate("abcd"):
        assert by_name[name].mean == pytest.approx(expected.importances_mean[i], abs=0.02)
    assert by_name["b"].mean == by_name["b"].std == 0
    assert found.baseline == pytest.approx(stats.spearmanr(x @ WEIGHTS, y[:, 0]).statistic)
    # All of the set shuffled: nothing is left of the order.
    assert found.sets[0].mean == pytest.approx(found.baseline, abs=0.05)


def test_rows_of_unknown_labels_and_targets_without_any_do_not_count() -> None:
    x, y = made(400)
    labels = np.hstack([y, np.full_like(y, np.nan)])
    labels[::2, 0] = np.nan
    found = permutation_importance(lambda f: np.hstack([linear(f)] * 2), {"x": x}, labels, {"x": None})
    known = ~np.isnan(labels[:, 0])
    assert found.baseline == pytest.approx(stats.spearmanr((x @ WEIGHTS)[known], y[known, 0]).statistic)
    assert found.columns[0].name == "x[0]"


def test_a_column_over_time_is_shuffled_as_a_whole() -> None:
    # The prediction is the difference of two times of one column: shuffling each time by itself would wreck it,
    # shuffling whole videos of a column that never changes in time does nothing.
    rng = np.random.default_rng(1)
    x = np.repeat(rng.normal(size=(500, 1, 2)), 3, axis=1).astype(np.float32)
    label = x[:, 0, :1] + 0
    found = permutation_importance(
        lambda f: f["x"][:, 0, :1] + 100 * (f["x"][:, 2, 1:] - f["x"][:, 1, 1:]), {"x": x}, label, {"x": None}
    )
    assert {loss.name: round(loss.mean, 6) for loss in found.columns}["x[1]"] == 0


def test_the_same_rows_give_the_same_numbers() -> None:
    x, y = made(300)
    one, two = (permutation_importance(linear, {"x": x.copy()}, y, {"x": None}) for _ in range(2))
    assert one == two


def test_wide_features_are_shuffled_in_blocks() -> None:
    x, y = made(300)
    wide = np.zeros((300, 4096), dtype=np.float32)
    wide[:, 130] = x @ WEIGHTS
    steps: list[int] = []
    found = permutation_importance(
        lambda f: f["x"].sum(axis=1, keepdims=True), {"x": wide}, y, {"x": None}, advance=lambda: steps.append(1)
    )
    assert (found.block, len(found.columns)) == (64, 64)
    assert found.columns[0].name == "x[128 to 191]"
    assert [loss.mean for loss in found.columns[1:]] == [0.0] * 63
    assert len(steps) == steps_of({"x": wide}) == 65
    [picture], notes = importance_pictures(found, "made rows")
    assert "64 neighbouring columns" in picture.caption
    assert notes == []


@pytest.mark.parametrize(("columns", "block"), [(1, 1), (1024, 1), (1025, 17), (4096, 64), (100_000, 1563)])
def test_no_more_than_about_a_thousand_things_are_shuffled(columns: int, block: int) -> None:
    assert block_of(columns) == block
    assert 200 <= rows_to_use(columns, columns) <= 1000


def test_constant_predictions_have_no_importance() -> None:
    x, y = made(100)
    found = permutation_importance(lambda f: np.zeros((len(f["x"]), 1)), {"x": x}, y, {"x": None})
    assert math.isnan(found.baseline)
    pictures, notes = importance_pictures(found, "made rows")
    assert pictures == []
    assert notes == ["importance is undefined: 100 rows, SROCC nan"]

"""What the pictures say in words, against numbers worked out another way."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from vqa_train.pipelines.report.boxes import split_pictures
from vqa_train.pipelines.report.clips import worst_rows
from vqa_train.pipelines.report.coverage import LEVELS, calibration_pictures
from vqa_train.pipelines.report.curves import learning_curves
from vqa_train.pipelines.report.matrix import matrix
from vqa_train.pipelines.report.residuals import residual_pictures
from vqa_train.pipelines.report.rows import ScoredRows
from vqa_train.pipelines.report.scatter import scatter


def rows(label: Any, predicted: Any, groups: Any = None, spread: Any = None, datasets: Any = None) -> ScoredRows:
    count = len(label)
    names = np.asarray([f"v{i}" for i in range(count)])

    def column(values: Any) -> Any:
        return np.asarray(values, dtype=np.float64)[:, None]

    return ScoredRows(
        choice="test", what="made rows", optimistic=False, file="made", targets=("mos",), ids=names,
        datasets=np.full(count, "set") if datasets is None else np.asarray(datasets), sha256=names,
        groups=names if groups is None else np.asarray(groups), folds=np.zeros(0, dtype=np.str_), label=column(label),
        predicted=column(predicted), spread=None if spread is None else column(spread),
    )  # fmt: skip


def described(svg: str) -> str:
    return re.search(r"<desc[^>]*>(.*?)</desc>", svg, re.DOTALL).group(1)  # type: ignore[union-attr]


def test_coverage_is_measured_on_groups_that_did_not_make_the_interval() -> None:
    # Errors of one size within a group and of another in the next: an interval made with the own group in it would
    # hold more labels than one made of other groups.
    rng = np.random.default_rng(0)
    groups = np.repeat([f"g{i}" for i in range(40)], 10)
    error = np.repeat(rng.lognormal(0, 1, 40), 10)
    [coverage, width], notes = calibration_pictures(rows(np.zeros(400), error, groups), 0, None, 4.0)
    assert notes == []
    shares = [float(x) / 100 for x in re.findall(r": ([\d.]+)% inside", described(coverage.svg))]
    assert len(shares) == len(LEVELS)
    for level, share in zip(LEVELS, shares, strict=True):
        assert share == pytest.approx(level, abs=0.16)
        # A whole group is inside or outside.
        assert share * 40 == pytest.approx(round(share * 40), abs=0.03)
    half = [float(x) / 2 for x in re.findall(r": ([\d.]+) points", described(width.svg))]
    # The 90% half width of 400 residuals is the 361st smallest: ceil(0.9 * 401).
    assert half[LEVELS.index(0.9)] == pytest.approx(np.sort(error)[360], rel=0.01)


def test_a_spread_that_knows_the_error_rises() -> None:
    rng = np.random.default_rng(0)
    spread = np.linspace(0.1, 2, 400)
    error = rng.normal(size=400) * spread
    pictures, _ = calibration_pictures(rows(np.zeros(400), error, spread=spread), 0, None, 4.0)
    found = [float(x) for x in re.findall(r"error ([\d.]+)", described(pictures[2].svg))]
    expected = [float(np.sqrt((part**2).mean())) for part in np.array_split(error, 8)]
    assert found == pytest.approx(expected, rel=0.01)


def test_too_few_rows_or_groups_draw_nothing_and_say_why() -> None:
    pictures, notes = calibration_pictures(rows([1.0] * 30, range(30), ["a"] * 15 + ["b"] * 15), 0, None, 4.0)
    assert pictures == []
    assert notes == ["mos: pictures of calibration need 20 rows and 5 groups of videos; here are 30 rows in 2 groups"]


def test_residuals_are_prediction_less_label_by_group() -> None:
    made = rows([3.0] * 9, [4, 4, 4, 2, 2, 2, 9, 9, 3], ["high"] * 3 + ["low"] * 3 + ["pair"] * 2 + ["one"])
    [_, groups], notes = residual_pictures(made, 0)
    assert notes == []
    assert described(groups.svg) == "low: mean residual -1; high: mean residual 1"
    assert "2 groups with fewer than 3 rows are left out" in groups.rests_on
    several = rows([1.0] * 6, [2, 2, 2, 1, 1, 1], datasets=["a"] * 3 + ["b"] * 3)
    [_, datasets], notes = residual_pictures(several, 0)
    assert described(datasets.svg) == "b: mean residual 0; a: mean residual 1"
    assert notes == ["residuals by group are not drawn: every video stands alone"]


def test_the_worst_are_the_largest_errors_in_either_direction_and_never_unlabelled() -> None:
    made = rows([1, 5, np.nan, 3, 3], [2, 2, 9, 3, np.nan])
    assert worst_rows(made, 0, 3).tolist() == [1, 0, 3]


def test_medians_of_the_splits_leave_undefined_values_out_and_say_so() -> None:
    folds = [
        {"name": f"fold-{i}", "test": 5, "metrics": {"mos": {"srocc": value, "krocc": value / 2 if value else None}}}
        for i, value in enumerate([0.1, 0.5, None, 0.9, 0.7, 0.8, 0.6])
    ]
    [picture] = split_pictures(folds, "mos", 0)
    assert described(picture.svg) == "Medians over 7 splits: SROCC 0.650, KROCC 0.325."
    assert "2 values are undefined and left out" in picture.caption
    assert split_pictures(folds[:1], "mos", 0) == []
    named = [{**fold, "name": name} for fold, name in zip(folds[:2], ("city", "sea"), strict=True)]
    assert described(split_pictures(named, "mos", 0)[-1].svg) == "city 0.100; sea 0.500"


def test_a_matrix_has_trained_on_as_rows() -> None:
    def cell(train: str, test: str, value: float | None) -> dict[str, Any]:
        return {"train": train, "test": test, "summary": {"mos": {"srocc": {"median": value}}}}

    picture = matrix([cell("a", "b", 0.5), cell("b", "a", 0.25), cell("a", "a", None)], "mos", 0)
    assert picture is not None
    assert described(picture.svg) == "trained on a, tested on b: 0.500; trained on b, tested on a: 0.250"
    assert matrix([cell("a", "b", None)], "mos", 0) is None


def test_heads_that_stop_early_do_not_bend_the_median() -> None:
    def head(losses: list[float]) -> dict[str, Any]:
        epochs = [{"epoch": i + 1, "train_loss": loss} for i, loss in enumerate(losses)]
        return {"member": "mlp", "best_epoch": 1, "epochs": epochs}

    [picture], notes = learning_curves([head([4.0, 3.0]), head([4.0, 3.0]), head([4.0, 3.0, 99.0])])
    assert "from 4 to 3." in described(picture.svg)
    assert notes == []
    closed = {"member": "ridge", "best_epoch": 0, "epochs": [], "chosen": {"mos.alpha": 2.0}}
    assert learning_curves([closed]) == (
        [], ["ridge: 1 head with a closed form, which has no epochs; median choice: mos.alpha 2"],
    )  # fmt: skip


@pytest.mark.parametrize("predicted", [[3.0] * 6, [1.0, 2.0, 3.0, 4.0, 5.0, np.nan]])
def test_constant_or_few_predictions_are_drawn_and_explained(predicted: list[float]) -> None:
    picture = scatter(rows([1, 2, 3, 4, 5, 6], predicted), 0, None)
    assert picture is not None
    assert ("A logistic could not be fitted" in picture.caption) == (len(set(predicted)) == 1)
    assert scatter(rows([1.0], [np.nan]), 0, None) is None

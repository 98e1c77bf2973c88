"""CrossFit: one call trains what several would, nothing twice; predictions are the weighted mean of a fold's heads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from vqa_train.heads.config import TrainConfig
from vqa_train.heads.table import TrainingTable, build_table
from vqa_train.heads.trainer import predict
from vqa_train.pipelines.fit.config import MemberConfig, seeds_of
from vqa_train.pipelines.fit.crossfit import CrossFit, Fold

ROWS = 60
FEATURES = np.random.default_rng(1).normal(size=(ROWS, 4)).astype(np.float32)
LABELS = (FEATURES[:, :1] + np.random.default_rng(2).normal(size=(ROWS, 1))).astype(np.float32)
UNITS = [f"u{i // 2}" for i in range(ROWS)]
FIRST, SECOND = np.arange(30), np.arange(30, 60)


@pytest.fixture
def table() -> TrainingTable:
    keys = [f"{(i * 37) % 101:03d}" for i in range(ROWS)]
    return build_table({"f": FEATURES}, LABELS, ("mos",), UNITS, keys)


def member(name: str, weight: float = 1, **settings: Any) -> MemberConfig:
    values = {"epochs": 3, "patience": None, "validation": {"fraction": 0}, "ema": None, **settings}
    return MemberConfig(name=name, weight=weight, train=TrainConfig.model_validate(values))


def test_held_out_predictions_are_the_weighted_mean_and_deviation_of_the_heads(table: TrainingTable) -> None:
    members = [member("a", 3, head={"hidden": (6,)}), member("ridge", 1, head={"kind": "linear"})]
    cross = CrossFit(table, UNITS, members, seeds=2)
    numbers = [
        cross.add(Fold(name="x", train=FIRST, test=SECOND[::-1])),
        cross.add(Fold(name="y", train=SECOND, test=FIRST)),
    ]
    cross.train()
    for held in cross.held_out(numbers):
        number = numbers[0] if held.fold.name == "x" else numbers[1]
        each = np.stack([predict(h.fitted.module, {"f": FEATURES[held.fold.test]}) for h in cross.heads(number)])
        shares = np.array([3, 3, 2]) / 8
        mean = np.einsum("m,mnk->nk", shares, each)
        np.testing.assert_allclose(held.predicted, mean, rtol=1e-5, atol=1e-5)
        assert held.spread is not None
        spread = np.sqrt(np.einsum("m,mnk->nk", shares, (each - mean) ** 2))
        np.testing.assert_allclose(held.spread, spread, rtol=1e-3, atol=1e-4)
        scores, _ = cross.ensemble(number)(torch.from_numpy(FEATURES[held.fold.test]))
        np.testing.assert_allclose(scores.numpy(), mean, rtol=1e-4, atol=1e-4)


def test_folds_of_the_same_rows_share_their_heads(table: TrainingTable) -> None:
    cross = CrossFit(table, UNITS, [member("a")])
    one = cross.add(Fold(name="on itself", train=FIRST, test=SECOND[:5]))
    other = cross.add(Fold(name="elsewhere", train=FIRST, test=SECOND[3:]))
    assert len(cross.jobs) == 1
    assert cross.epochs == 3
    cross.train()
    first, second = cross.held_out([one, other])
    assert first.spread is None
    assert (first.predicted.shape, second.predicted.shape) == ((5, 1), (27, 1))
    np.testing.assert_array_equal(first.predicted[3:], second.predicted[:2])
    assert cross.heads(one)[0].fitted is cross.heads(other)[0].fitted


def test_a_closed_form_learns_from_all_rows_and_has_no_epochs(table: TrainingTable) -> None:
    cross = CrossFit(table, UNITS, [member("ridge", head={"kind": "linear"}, validation={"fraction": 0.5})])
    cross.add(Fold(name="x", train=FIRST, test=SECOND))
    assert cross.jobs[0].train.tolist() == FIRST.tolist()
    assert cross.epochs == 0


def test_given_validation_rows_are_used_as_they_are(table: TrainingTable) -> None:
    cross = CrossFit(table, UNITS, [member("a", validation={"fraction": 0.3})])
    cross.add(Fold(name="x", train=FIRST, test=SECOND[:10], validation=SECOND[10:]))
    assert (cross.jobs[0].train.tolist(), cross.jobs[0].validation.tolist()) == (FIRST.tolist(), SECOND[10:].tolist())


def test_more_seeds_keep_the_ones_before() -> None:
    config = TrainConfig(seed=4)
    assert seeds_of(config, 3)[:2] == seeds_of(config, 2)
    assert seeds_of(config, 1) == [4]
    assert len({*seeds_of(config, 50), *seeds_of(TrainConfig(seed=5), 50)}) == 100


def test_a_closed_form_is_fitted_once_and_keeps_its_members_share(table: TrainingTable) -> None:
    members = [member("net"), member("ridge", head={"kind": "linear"})]
    cross = CrossFit(table, UNITS, members, seeds=3)
    number = cross.add(Fold(name="x", train=FIRST, test=SECOND))
    assert [job.name for job in cross.jobs] == ["x/net/seed-0", "x/net/seed-1", "x/net/seed-2", "x/ridge/seed-0"]
    np.testing.assert_allclose(cross.weights, [1 / 6, 1 / 6, 1 / 6, 1 / 2])
    cross.train()
    heads = cross.heads(number)
    assert [head.member for head in heads] == ["net", "net", "net", "ridge"]
    each = np.stack([predict(head.fitted.module, {"f": FEATURES[SECOND]}) for head in heads])
    expected = each[:3].mean(axis=0) / 2 + each[3] / 2
    np.testing.assert_allclose(cross.held_out([number])[0].predicted, expected, rtol=1e-5, atol=1e-5)
    scores, _ = cross.ensemble(number)(torch.from_numpy(FEATURES[SECOND]))
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-4, atol=1e-4)

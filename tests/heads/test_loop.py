"""The training loop: batches, learning rate, running mean of the weights, and the epoch that is kept."""

import copy
import math

import numpy as np
import pytest
import torch

from vqa_train.core.errors import ConfigError
from vqa_train.evaluation import METRICS
from vqa_train.heads import loop
from vqa_train.heads.optimizer import AdamW
from vqa_train.heads.trainer import predict

SROCC = METRICS.get("srocc")


def weights(fitted) -> dict[str, torch.Tensor]:
    return fitted.module.state_dict()


def same(one, two) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(one).values(), weights(two).values(), strict=True))


def test_the_epoch_with_the_best_metric_is_kept(data, fit):
    parts = data()
    fitted = fit(parts, {"epochs": 25, "patience": None, "optimizer": {"lr": 0.05}})
    metrics = [entry["validation_metric"] for entry in fitted.history]
    assert metrics[fitted.best_epoch - 1] == max(metrics)
    features, y, *_ = parts
    predicted = predict(fitted.module, {n: m[fitted.validation] for n, m in features.items()})
    assert SROCC(predicted[:, 0], y[fitted.validation, 0]) == pytest.approx(max(metrics), abs=1e-9)
    assert not fitted.module.training


def scripted(values):
    """A metric that gives these values, one an epoch."""
    queue = list(values)
    return lambda predicted, target: queue.pop(0)


def test_training_stops_when_the_metric_has_not_risen_for_patience_epochs(data, fit):
    fitted = fit(data(), {"epochs": 20, "patience": 3}, metric=scripted([0.1, 0.5, 0.3, 0.4, 0.45, 0.9]))
    assert (len(fitted.history), fitted.best_epoch) == (5, 2)


def test_an_undefined_metric_never_wins_over_a_defined_one(data, fit):
    fitted = fit(data(), {"epochs": 4}, metric=scripted([math.nan, -0.2, math.nan, math.nan]))
    assert fitted.best_epoch == 2
    assert [entry["validation_metric"] for entry in fitted.history] == [None, -0.2, None, None]


def test_equal_metrics_are_decided_by_the_loss(data, fit):
    fitted = fit(data(), {"epochs": 6}, metric=lambda predicted, target: math.nan)
    losses = [entry["validation_loss"] for entry in fitted.history]
    assert fitted.best_epoch == 1 + int(np.argmin(losses))


def test_one_collapsed_target_makes_the_epoch_undefined(data, fit):
    calls = iter([0.9, math.nan, 0.1, 0.1])
    fitted = fit(data(targets=2), {"epochs": 2}, metric=lambda predicted, target: next(calls))
    assert fitted.best_epoch == 2


def test_the_metric_sees_scores_on_the_scale_of_the_labels(data, fit):
    seen = []

    def metric(predicted, target):
        seen.append((predicted, target))
        return 0.0

    parts = data()
    fitted = fit((parts[0], parts[1] * 20 + 100, *parts[2:]), {"epochs": 1}, metric=metric)
    predicted, target = seen[0]
    np.testing.assert_array_equal(np.sort(target), np.sort((parts[1] * 20 + 100)[fitted.validation, 0]))
    assert 100 < predicted.mean() < 220


@pytest.mark.parametrize("rows", [65, 129, 66])
def test_batches_are_of_equal_size_so_that_none_is_a_single_row(data, fit, rows, monkeypatch):
    sizes = []
    genuine = loop.combined

    def watched(predicted, target, weight, *rest):
        sizes.append(int(weight.sum()))
        return genuine(predicted, target, weight, *rest)

    monkeypatch.setattr(loop, "combined", watched)
    fit(data(rows), {"epochs": 1, "validation": {"fraction": 0}, "patience": None})
    assert sum(sizes) == rows
    assert max(sizes) - min(sizes) <= 1


def test_a_target_of_weight_zero_is_neither_learnt_nor_judged(data, fit):
    features, y, groups, names, keys = data(targets=2)
    other = y.copy()
    other[:, 1] = np.random.default_rng(1).permutation(other[:, 1])
    config = {"target_weights": {"t1": 0.0}}
    one, two = fit((features, y, groups, names, keys), config), fit((features, other, groups, names, keys), config)
    assert [e["train_loss"] for e in one.history] == [e["train_loss"] for e in two.history]
    assert [e["validation_metric"] for e in one.history] == [e["validation_metric"] for e in two.history]


def test_the_kept_weights_are_the_running_mean_of_the_trained_ones(data, fit):
    config = {"epochs": 1, "validation": {"fraction": 0}, "patience": None, "batch_size": 1000}
    raw, mean = fit(data(), {**config, "ema": None}), fit(data(), {**config, "ema": 0.9})
    start = fit(data(), {**config, "ema": None, "optimizer": {"lr": 1e-30}})
    # One step: a tenth of the initial weights and nine tenths of the trained ones.
    for name in ("layers.weights.0", "layers.weights.1"):
        expected = weights(start)[name] * 0.1 + weights(raw)[name] * 0.9
        torch.testing.assert_close(weights(mean)[name], expected)


def test_weights_do_not_depend_on_the_number_of_threads(data, fit):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = fit(data(columns=700))
        torch.set_num_threads(2)
        two = fit(data(columns=700))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert same(one, two)


def test_weights_that_became_nan_in_the_last_step_are_not_kept(data, fit, monkeypatch):
    genuine = AdamW.step

    def step(self, packed, *rest):
        genuine(self, packed, *rest)
        packed.matrix[0, 0] = math.nan

    monkeypatch.setattr(AdamW, "step", step)
    recipe = {"epochs": 1, "batch_size": 1000, "validation": {"fraction": 0}, "patience": None}
    with pytest.raises(ConfigError, match="diverged in epoch 1"):
        fit(data(), recipe)


def test_a_trained_head_can_be_copied(data, fit):
    fitted = fit(data(), {"ema": None})
    twin = copy.deepcopy(fitted.module)
    assert all(torch.equal(a, b) for a, b in zip(twin.parameters(), fitted.module.parameters(), strict=True))


def test_training_runs_in_one_thread_and_puts_the_number_back(data, fit):
    before, during = torch.get_num_threads(), []
    try:
        torch.set_num_threads(2)
        fit(data(), on_epoch=lambda entry: during.append(torch.get_num_threads()))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(during) == {1}


def test_the_seed_and_the_keys_decide_the_order_of_the_rows(data, fit, monkeypatch):
    dealt = []
    genuine = loop.combined
    monkeypatch.setattr(loop, "combined", lambda p, t, *rest: dealt.append(t.clone()) or genuine(p, t, *rest))
    recipe = {"epochs": 1, "batch_size": 1000, "validation": {"fraction": 0}, "patience": None}
    features, y, groups, names, keys = data()
    fit((features, y, groups, names, keys), recipe)
    fit((features, y, groups, names, keys), recipe)
    fit((features, y, groups, names, keys), {**recipe, "seed": 1})
    fit((features, y, groups, names, [f"{key}a" for key in keys]), recipe)
    assert torch.equal(dealt[0], dealt[1])
    assert not torch.equal(dealt[0], dealt[2])
    assert not torch.equal(dealt[0], dealt[3])


def test_weight_decay_shrinks_weights_and_leaves_biases(data, fit):
    # A learning rate of 0.001 and a decay of 1000 forget a weight in every step: it is left with that step's move.
    recipe = {
        "epochs": 10,
        "batch_size": 1000,
        "schedule": "constant",
        "ema": None,
        "optimizer": {"lr": 0.001, "weight_decay": 1000.0},
        "validation": {"fraction": 0},
        "patience": None,
    }
    trained = weights(fit(data(), recipe))
    assert trained["layers.weights.0"].abs().max() < 0.0015
    assert trained["layers.biases.1"].abs().max() > 0.003


def test_a_head_without_validation_or_running_mean_is_in_eval_mode_too(data, fit):
    assert not fit(data(), {"ema": None, "validation": {"fraction": 0}, "patience": None}).module.training

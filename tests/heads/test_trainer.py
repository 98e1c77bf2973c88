"""fit_head: learns, repeats bit for bit, leaks nothing, and says what is wrong."""

import numpy as np
import pytest
import torch

from vqa_train.core.config import parse
from vqa_train.core.errors import ConfigError
from vqa_train.core.hashing import unit_interval
from vqa_train.evaluation import METRICS
from vqa_train.heads.config import TrainConfig
from vqa_train.heads.trainer import fit_head, predict

SROCC = METRICS.get("srocc")


def weights(fitted) -> dict[str, torch.Tensor]:
    return fitted.module.state_dict()


def same(one, two) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(one).values(), weights(two).values(), strict=True))


def test_a_nonlinear_relation_is_learnt_and_generalises(data, fit):
    features, y, groups, names, keys = data(600)
    train = slice(0, 450)
    part = ({n: m[train] for n, m in features.items()}, y[train], groups[train], names, keys[train])
    fitted = fit(part, {"epochs": 60, "head": {"hidden": [32], "dropout": 0.0}})
    predicted = predict(fitted.module, {n: m[450:] for n, m in features.items()})
    assert SROCC(predicted[:, 0], y[450:, 0]) > 0.93
    assert abs(float(np.mean(predicted - y[450:]))) < 0.3


def test_the_same_rows_and_recipe_give_the_same_weights_bit_for_bit(data, fit):
    one, two = fit(data(targets=2)), fit(data(targets=2))
    assert same(one, two)
    assert one.history == two.history


def test_with_keys_the_order_of_the_rows_changes_nothing(data, fit):
    features, y, groups, names, keys = data()
    order = np.random.default_rng(9).permutation(len(y))
    shuffled = (
        {name: matrix[order] for name, matrix in features.items()},
        y[order],
        [groups[i] for i in order],
        names,
        [keys[i] for i in order],
    )
    one, two = fit(data()), fit(shuffled)
    assert same(one, two)
    np.testing.assert_array_equal(one.validation[order], two.validation)


def test_another_seed_gives_other_weights_on_the_same_split(data, fit):
    one, two = fit(data()), fit(data(), {"seed": 1})
    assert not same(one, two)
    np.testing.assert_array_equal(one.validation, two.validation)


def test_the_global_state_of_torch_and_numpy_is_left_alone(data, fit):
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002  (the global state is what is watched)
    before, legacy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    one = fit(data())
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], legacy)  # noqa: NPY002
    assert torch.is_grad_enabled()
    torch.manual_seed(6)
    assert same(one, fit(data()))


def test_whole_groups_validate_and_their_rows_teach_nothing(data, fit):
    features, y, groups, names, keys = data()
    config = {"validation": {"fraction": 0.25}, "patience": None}
    one = fit((features, y, groups, names, keys), config)
    held = one.validation
    assert not {g for g, v in zip(groups, held, strict=True) if v} & {
        g for g, v in zip(groups, held, strict=True) if not v
    }
    assert held.mean() == pytest.approx(0.25, abs=0.02)
    # A planted leak: other features and labels of the validation rows must not move statistics or gradients.
    planted = {name: np.where(held[:, None], matrix * 50 + 7, matrix) for name, matrix in features.items()}
    labels = np.where(held[:, None], -y, y)
    two = fit((planted, labels, groups, names, keys), config)
    assert [e["train_loss"] for e in one.history] == [e["train_loss"] for e in two.history]
    assert torch.equal(one.module.input_mean, two.module.input_mean)
    assert torch.equal(one.module.target_std, two.module.target_std)


def test_given_validation_rows_are_used_as_given(data, fit):
    mask = np.zeros(120, dtype=bool)
    mask[30:60] = True
    fitted = fit(data(), validation=mask)
    np.testing.assert_array_equal(fitted.validation, mask)
    assert fitted.counts == {"rows": 120, "train": 90, "validation": 30, "unlabelled": 0, "steps": 8}


def test_without_validation_all_rows_train_and_the_last_epoch_is_kept(data, fit):
    fitted = fit(data(), {"validation": {"fraction": 0}, "patience": None})
    assert (fitted.best_epoch, fitted.counts["train"], fitted.validation.any()) == (8, 120, False)
    assert fitted.history[-1]["validation_loss"] is None


def test_missing_labels_are_masked_and_rows_without_any_are_counted(data, fit):
    features, y, groups, names, keys = data(targets=2)
    y[::2, 1] = np.nan
    y[:6] = np.nan
    fitted = fit((features, y, groups, names, keys))
    assert fitted.counts["unlabelled"] == 6
    assert fitted.counts["train"] + fitted.counts["validation"] == 114
    assert not fitted.validation[:6].any()
    assert np.isfinite(predict(fitted.module, features)).all()
    train = ~fitted.validation
    assert fitted.module.target_mean[0, 1].item() == pytest.approx(float(np.nanmean(y[train, 1])), rel=1e-5)


def test_broken_feature_values_and_constant_columns_are_counted_by_input(data, fit):
    features, y, groups, names, keys = data()
    features["video"][3, 1], features["video"][50, 4], features["text"][7, 0] = np.nan, np.inf, -np.inf
    features["video"][:, 9] = 4.2
    fitted = fit((features, y, groups, names, keys))
    assert fitted.nonfinite == {"video": 2, "text": 1}
    assert fitted.constant == {"video": 1, "text": 0}
    assert np.isfinite(predict(fitted.module, features)).all()


def test_wide_features_with_few_rows_and_labels_that_fall_are_fitted(fit):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 2000)).astype(np.float32)
    y = (50 - 20 * x[:, :1]).astype(np.float32)
    fitted = fit(({"wide": x}, y, [str(i) for i in range(60)], ["dmos"], [str(i) for i in range(60)]))
    assert np.isfinite(predict(fitted.module, {"wide": x})).all()
    assert fitted.history[-1]["train_loss"] < fitted.history[0]["train_loss"]


def test_each_epoch_is_told_and_an_interrupt_passes_through(data, fit):
    told = []

    def on_epoch(entry):
        told.append(entry["epoch"])
        if len(told) == 3:
            raise KeyboardInterrupt

    threads = torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt):
        fit(data(), on_epoch=on_epoch)
    assert told == [1, 2, 3]
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("ema", [None, 0.9])
@pytest.mark.parametrize("activation", ["gelu", "relu", "silu"])
def test_every_option_trains(data, fit, ema, activation):
    config = {
        "ema": ema,
        "schedule": "constant",
        "warmup": 0.2,
        "head": {"activation": activation, "hidden": [8, 8]},
        "loss": {"smooth_l1": 1, "huber": 1, "rank": 1, "plcc": 1, "srocc": 1},
    }
    history = fit(data(), config).history
    assert history[-1]["train_loss"] < history[0]["train_loss"]


@pytest.mark.parametrize(
    ("change", "config", "message"),
    [
        (lambda y: y.__setitem__((slice(None), 1), np.nan), {}, "target 't1' has 0 labels"),
        (lambda y: y.__setitem__((slice(None), 1), 3.0), {}, "target 't1' has .* 1 distinct values"),
        (lambda y: None, {"target_weights": {"t3": 1.0}}, r"unknown target 't3'.*did you mean"),
        (lambda y: None, {"target_weights": {"t0": 0.0, "t1": 0.0}}, "all targets have weight 0"),
        (lambda y: None, {"validation": {"fraction": 0}}, "no validation rows.*patience: null"),
        (lambda y: None, {"optimizer": {"lr": 1e30}}, "diverged.*lower optimizer.lr"),
    ],
)
def test_what_cannot_be_trained_is_an_error_with_a_mend(data, fit, change, config, message):
    features, y, groups, names, keys = data(targets=2)
    change(y)
    with pytest.raises(ConfigError, match=message):
        fit((features, y, groups, names, keys), config)


def test_a_target_without_validation_labels_is_an_error(data, fit):
    features, y, groups, names, keys = data(targets=2)
    mask = np.arange(120) < 30
    y[mask, 1] = np.nan
    with pytest.raises(ConfigError, match="target 't1' has no label in the validation rows"):
        fit((features, y, groups, names, keys), validation=mask)


def test_a_validation_mask_of_another_length_is_an_error(data, fit):
    with pytest.raises(ConfigError, match="validation has shape"):
        fit(data(), validation=np.zeros(3, dtype=bool))


def test_predict_needs_the_heads_inputs_by_name_and_length(data, fit):
    fitted = fit(data())
    features, *_ = data()
    assert predict(fitted.module, {**features, "extra": features["text"]}).shape == (120, 1)
    assert predict(fitted.module, {n: m[:0] for n, m in features.items()}).shape == (0, 1)
    with pytest.raises(ConfigError, match="'text' of shape"):
        predict(fitted.module, {"video": features["video"]})
    with pytest.raises(ConfigError, match="'video' of shape"):
        predict(fitted.module, {"video": features["video"][:, :3], "text": features["text"]})


def test_an_mlp_on_published_features_reaches_the_quality_of_the_field(shared):
    import pyarrow.parquet as pq

    table = pq.read_table(shared / "data" / "konvid1k_videval.parquet")
    features = np.stack(table["features"].to_numpy()).astype(np.float32)
    mos = table["mos"].to_numpy().astype(np.float32)[:, None]
    ids = table["video_id"].to_pylist()
    test = np.array([unit_interval("konvid split", video) < 0.2 for video in ids])
    train_ids = [video for video, held in zip(ids, test, strict=True) if not held]
    config = parse(TrainConfig, {"validation": {"fraction": 0}, "patience": None}, "recipe")
    fitted = fit_head(
        {"videval": features[~test]}, mos[~test], train_ids, ["mos"], config, metric=SROCC, keys=train_ids
    )
    assert fitted.nonfinite["videval"] <= 2
    predicted = predict(fitted.module, {"videval": features[test]})
    assert SROCC(predicted[:, 0], mos[test, 0]) > 0.72

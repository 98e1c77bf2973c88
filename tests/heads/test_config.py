"""Recipes: defaults, bounds, and errors that name the nearest known key."""

import pytest

from vqa_train.core.config import parse
from vqa_train.core.errors import ConfigError
from vqa_train.heads import LOSSES
from vqa_train.heads.config import LossConfig, TrainConfig


def test_an_empty_recipe_is_the_default_one():
    config = parse(TrainConfig, {}, "recipe")
    assert config == TrainConfig()
    assert parse(TrainConfig, config.model_dump(mode="json"), "recipe") == config


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"epoch": 3}, "unknown key 'epoch'.*did you mean 'epochs'"),
        ({"head": {"hiden": [3]}}, "unknown key 'head.hiden'.*did you mean 'hidden'"),
        ({"optimizer": {"weight_deacy": 1}}, "did you mean 'weight_decay'"),
        ({"head": {"hidden": [0]}}, "head.hidden.0"),
        ({"head": {"dropout": 1.0}}, "head.dropout"),
        ({"head": {"clip_sd": 0}}, "head.clip_sd"),
        ({"loss": {"plcc": -1}}, "loss.plcc"),
        ({"loss": {"plcc": float("nan")}}, "loss.plcc"),
        ({"loss": {"smooth_l1": 0, "rank": 0, "plcc": 0}}, "at least one loss"),
        ({"optimizer": {"lr": 0}}, "optimizer.lr"),
        ({"schedule": "linear"}, "schedule"),
        ({"warmup": 0.6}, "warmup"),
        ({"batch_size": 1}, "batch_size"),
        ({"ema": 1.0}, "ema"),
        ({"validation": {"fraction": 1.0}}, "validation.fraction"),
        ({"target_weights": {"mos": -1}}, "target_weights.mos"),
        ({"cycles": 0}, "cycles"),
        ({"drop_sets": 1.0}, "drop_sets"),
        ({"scales": "linear"}, "scales"),
        ({"head": {"output": "histogram"}}, "head.output"),
        ({"head": {"bins": 1}}, "head.bins"),
        ({"optimizer": {"betas": [0.9]}}, "optimizer.betas"),
    ],
)
def test_a_wrong_recipe_is_an_error_that_names_the_place(value, message):
    with pytest.raises(ConfigError, match=message):
        parse(TrainConfig, value, "recipe")


def test_the_likelihood_alone_is_a_loss_for_an_output_that_has_one_but_not_for_a_point():
    alone = {"smooth_l1": 0, "rank": 0, "plcc": 0, "likelihood": 1}
    assert parse(TrainConfig, {"loss": alone, "head": {"output": "heteroscedastic"}}, "recipe").loss.likelihood == 1
    with pytest.raises(ConfigError, match="at least one loss"):
        parse(TrainConfig, {"loss": alone}, "recipe")
    with pytest.raises(ConfigError, match="at least one loss"):
        parse(TrainConfig, {"loss": {**alone, "likelihood": 0}, "head": {"output": "ordinal"}}, "recipe")


def test_every_weight_of_the_recipe_is_a_registered_loss():
    assert sorted(LossConfig().weights()) == LOSSES.names()

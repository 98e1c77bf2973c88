"""A small training problem, and `fit` with a recipe that takes a fraction of a second."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from vqa_train.core.config import parse
from vqa_train.core.hashing import unit_interval
from vqa_train.evaluation import METRICS
from vqa_train.heads.config import TrainConfig
from vqa_train.heads.trainer import FittedHead, fit_head

Parts = tuple[dict[str, np.ndarray], np.ndarray, list[str], list[str], list[str]]


@pytest.fixture
def data() -> Callable[..., Parts]:
    """`data(rows=120, columns=10, targets=1, seed=0)`: features, labels, groups of three rows, target names, keys."""

    def make(rows: int = 120, columns: int = 10, targets: int = 1, seed: int = 0) -> Parts:
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(rows, columns)).astype(np.float32)
        z = rng.normal(size=(rows, 2)).astype(np.float32)
        signal = x[:, :1] + 0.5 * z[:, :1] ** 2
        y = (3 + signal * np.arange(1, targets + 1) + 0.1 * rng.normal(size=(rows, targets))).astype(np.float32)
        groups = [f"scene{i // 3}" for i in range(rows)]
        keys = [f"{unit_interval('key', seed, i):.15f}" for i in range(rows)]
        return {"video": x, "text": z}, y, groups, [f"t{k}" for k in range(targets)], keys

    return make


@pytest.fixture
def fit() -> Callable[..., FittedHead]:
    """`fit(parts, recipe=None, **options)`: fit_head on parts of `data`; the recipe changes the small default one."""

    def train(parts: Parts, recipe: dict[str, Any] | None = None, **options: Any) -> FittedHead:
        features, y, groups, names, keys = parts
        config = parse(TrainConfig, {"epochs": 8, "head": {"hidden": [16]}, **(recipe or {})}, "recipe")
        return fit_head(features, y, groups, names, config, **{"metric": METRICS.get("srocc"), "keys": keys, **options})

    return train

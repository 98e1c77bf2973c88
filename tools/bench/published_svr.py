"""The peer of bench_fit.py: the published protocol and regressor of UGC-VQA (Tu et al. 2021), with scikit-learn.

Per split: random_state ceil(8.8 i) draws the 80/20 split and ceil(6.6 i) the inner 80/20 one; features are scaled to
0..1 on the training part; an RBF SVR is tried for C = 2^1..2^10 and gamma = 2^-8..2^1, and the pair with the smallest
RMSE after a four-parameter logistic on the inner validation part is fitted again on the whole training part.
Facts from the public evaluation script of vztu/VIDEVAL.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import MinMaxScaler
from sklearn.svm import SVR

from vqa_train.evaluation.curve import MappingFitError
from vqa_train.evaluation.logistic import fit_logistic

C_RANGE = np.logspace(1, 10, 10, base=2)
GAMMA_RANGE = np.logspace(-8, 1, 10, base=2)

Index = NDArray[np.int64]
Floats = NDArray[np.float64]


def published_splits(rows: int, count: int = 100) -> list[tuple[Index, Index]]:
    """(train, test) rows of each split."""
    return [
        tuple(
            np.sort(part) for part in train_test_split(np.arange(rows), test_size=0.2, random_state=math.ceil(8.8 * i))
        )
        for i in range(1, count + 1)
    ]


def fit_predict(x: Floats, y: Floats, number: int) -> tuple[Index, Floats]:
    """Test rows and predictions of split `number` (from 1)."""
    x = np.where(np.isfinite(x), x, np.nan)
    x = np.where(np.isnan(x), np.nanmean(x, axis=0), x)  # over all rows, as published
    train, test = train_test_split(np.arange(len(y)), test_size=0.2, random_state=math.ceil(8.8 * number))
    inner, valid = train_test_split(train, test_size=0.2, random_state=math.ceil(6.6 * number))
    scaler = MinMaxScaler().fit(x[inner])
    inner_x, valid_x = scaler.transform(x[inner]), scaler.transform(x[valid])
    best = (math.inf, 0.0, 0.0)
    for c in C_RANGE:
        for gamma in GAMMA_RANGE:
            predicted = SVR(C=c, gamma=gamma).fit(inner_x, y[inner]).predict(valid_x)
            try:
                mapped = fit_logistic(predicted, y[valid])(predicted)
            except MappingFitError:
                continue
            best = min(best, (float(np.sqrt(np.mean((mapped - y[valid]) ** 2))), float(c), float(gamma)))
    scaler = MinMaxScaler().fit(x[train])
    model = SVR(C=best[1], gamma=best[2]).fit(scaler.transform(x[train]), y[train])
    return test, model.predict(scaler.transform(x[test]))

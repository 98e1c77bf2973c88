"""VqaRegressor: the heads as a scikit-learn estimator, for people who come with arrays and a notebook."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from vqa_train.core.errors import VqaError
from vqa_train.core.hashing import seed_from
from vqa_train.evaluation import METRICS
from vqa_train.heads import HEADS
from vqa_train.heads.config import HeadConfig, LossConfig, OptimizerConfig, TrainConfig, ValidationConfig
from vqa_train.heads.ensemble import Ensemble
from vqa_train.heads.split import hold_out
from vqa_train.heads.table import build_table
from vqa_train.heads.trainer import FittedHead, HeadJob, fit_heads, predict_spread
from vqa_train.pipelines.estimator_rows import distinct, finite_labels, float32, std_of, weights

_INPUT = "x"


class VqaRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Small heads on feature vectors, averaged: what `vqa-train fit` trains, behind `fit`, `predict` and `score`.

    Features are standardised inside the model; NaN and infinite ones count as their column's mean. Labels must be
    finite. Rows with equal features, labels and group are one row with the sum of their weights, and the order of
    rows does not matter. Everything is computed in float32.

    Args:
        members: kinds of head whose predictions are averaged with equal shares, joined by `+`: `mlp`, `kernel_ridge`,
            `linear`.
        seeds: networks per member; a head with a closed form (`kernel_ridge`, `linear`) has one.
        hidden: width of each hidden layer of `mlp`.
        dropout: share of hidden activations zeroed in training, 0..1.
        activation: `gelu`, `relu` or `silu`.
        clip_sd: standardised features are clipped at plus or minus this.
        output: `point`, `ordinal` or `heteroscedastic`; a head with a closed form gives `point` only.
        smooth_l1, huber, rank, plcc, srocc: weight of each loss.
        lr: peak learning rate of AdamW.
        weight_decay: decoupled.
        schedule: `cosine`, `one_cycle` or `constant`.
        epochs: passes over the training rows.
        batch_size: rows per step, about.
        ema: decay per step of the running mean of the weights; None for none.
        validation_fraction: share of the rows, in whole groups, that choose the epoch; 0 trains on all rows.
        patience: epochs without a better SROCC on them after which training stops; None for none.
        device: where networks train.
        n_jobs: threads of a CPU; does not change the result.
        random_state: an int for the same result every time, a RandomState, or None for another result each time.

    Attributes:
        ensemble_: `heads.ensemble.Ensemble`, a torch module; None where every target is constant.
        constant_: float64 (K,), the value of each target that is constant over the training rows; NaN for others.
        history_: per network, what `FittedHead.history` has of each epoch.
        n_features_in_, feature_names_in_: as scikit-learn has them.
    """

    def __init__(
        self,
        members: str = "mlp+kernel_ridge",
        *,
        seeds: int = 3,
        hidden: Sequence[int] = (64, 32),
        dropout: float = 0.2,
        activation: Literal["gelu", "relu", "silu"] = "gelu",
        clip_sd: float = 6.0,
        output: Literal["point", "ordinal", "heteroscedastic"] = "point",
        smooth_l1: float = 0.5,
        huber: float = 0.0,
        rank: float = 0.0,
        plcc: float = 1.0,
        srocc: float = 0.0,
        lr: float = 3e-3,
        weight_decay: float = 0.3,
        schedule: Literal["cosine", "one_cycle", "constant"] = "cosine",
        epochs: int = 60,
        batch_size: int = 64,
        ema: float | None = 0.99,
        validation_fraction: float = 0.0,
        patience: int | None = None,
        device: str = "cpu",
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.members = members
        self.seeds = seeds
        self.hidden = hidden
        self.dropout = dropout
        self.activation = activation
        self.clip_sd = clip_sd
        self.output = output
        self.smooth_l1 = smooth_l1
        self.huber = huber
        self.rank = rank
        self.plcc = plcc
        self.srocc = srocc
        self.lr = lr
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.epochs = epochs
        self.batch_size = batch_size
        self.ema = ema
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.device = device
        self.n_jobs = n_jobs
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.target_tags.single_output = True
        tags.target_tags.multi_output = True
        return tags

    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None, groups: Sequence[Any] | None = None
    ) -> Self:
        """Train on features (n, D) and opinion scores (n,) or (n, K).

        Args:
            X: NaN and infinity are allowed.
            y: finite.
            sample_weight: (n,), at least 0; a weight of 2 is the row twice, one of 0 leaves it out.
            groups: (n,) content that must not straddle training and validation rows; used where
                `validation_fraction` is above 0. None: each row is its own.

        Raises:
            ValueError: shapes, labels or parameters that do not fit.
        """
        rows, given = validate_data(
            self, X, y, multi_output=True, y_numeric=True, ensure_all_finite=False, dtype="numeric"
        )
        weight = weights(sample_weight, len(rows))
        named = None if groups is None else np.asarray(groups).astype(str)
        if named is not None and named.shape != (len(rows),):
            raise ValueError(f"groups has shape {named.shape}, expected ({len(rows)},)")
        self._one_column = given.ndim == 1
        features, labels, weight, keys, owners = distinct(rows, finite_labels(given), weight, named)
        varies = labels.min(axis=0) < labels.max(axis=0)
        self.constant_: NDArray[np.float64] = np.where(varies, np.nan, labels[0])
        self.ensemble_: Ensemble | None = None
        self.history_: list[list[dict[str, Any]]] = []
        if not varies.all():
            which = "y" if len(varies) == 1 else f"column {int(np.flatnonzero(~varies)[0])} of y"
            warnings.warn(f"{which} is constant; so are the predictions", UserWarning, stacklevel=2)
        if varies.any():
            try:
                self._train(features, labels[:, varies], weight, keys, owners)
            except VqaError as error:
                raise ValueError(str(error)) from error
        return self

    def _train(
        self,
        features: NDArray[np.float32],
        labels: NDArray[np.float64],
        weight: NDArray[np.float64],
        keys: Sequence[str],
        groups: Sequence[str],
    ) -> None:
        values = labels.astype(np.float32)
        if (values.min(axis=0) == values.max(axis=0)).any():
            raise ValueError("y varies by less than float32 can tell from its mean; subtract the mean first")
        names = [f"y{column}" for column in range(labels.shape[1])]
        held_out = np.zeros(len(values), dtype=np.bool_)
        if self.validation_fraction:
            held_out = hold_out(groups, self.validation_fraction)
        weighted = bool((weight < 1).any())
        fitted: list[FittedHead] = []
        kinds: list[str] = []
        for jobs in self._jobs(np.flatnonzero(~held_out), np.flatnonzero(held_out), weighted):
            std = std_of(weight, labels[jobs[0].train]) if weighted else None
            table = build_table({_INPUT: features}, values, names, groups, keys, target_std=std)
            threads = max(self.n_jobs or 1, 1)
            fitted += fit_heads(table, jobs, metric=METRICS.get("srocc"), device=self.device, threads=threads)
            kinds += [job.name for job in jobs]
        self.history_ = [head.history for head in fitted if head.history]
        self.ensemble_ = _average(fitted, kinds)

    def _jobs(self, train: NDArray[np.int64], validation: NDArray[np.int64], weighted: bool) -> Iterator[list[HeadJob]]:
        """The networks of each kind; a closed form learns from all rows."""
        kinds = [kind.strip() for kind in self.members.split("+")]
        if len(set(kinds)) < len(kinds):
            raise ValueError(f"members {self.members!r} names a kind twice")
        if self.seeds < 1:
            raise ValueError(f"seeds must be at least 1, got {self.seeds}")
        random = self.random_state
        first = int(random) if isinstance(random, int | np.integer) else check_random_state(random).randint(2**31 - 1)
        for kind in kinds:
            if HEADS.get(kind).closed_form:
                rows = np.sort(np.concatenate([train, validation]))
                yield [HeadJob(config=self._config(kind, first, weighted), train=rows, name=kind)]
                continue
            # Derived, so that neighbouring random states share no network.
            seeds = [seed_from("estimator", first, number) >> 32 for number in range(self.seeds)]
            configs = [self._config(kind, seed, weighted) for seed in seeds]
            yield [HeadJob(config=config, train=train, validation=validation, name=kind) for config in configs]

    def _config(self, kind: str, seed: int, weighted: bool) -> TrainConfig:
        return TrainConfig(
            head=HeadConfig(
                kind=kind,
                hidden=tuple(self.hidden),
                dropout=self.dropout,
                activation=self.activation,
                clip_sd=self.clip_sd,
                output=self.output,
            ),
            loss=LossConfig(
                smooth_l1=self.smooth_l1, huber=self.huber, rank=self.rank, plcc=self.plcc, srocc=self.srocc
            ),
            optimizer=OptimizerConfig(lr=self.lr, weight_decay=self.weight_decay),
            schedule=self.schedule,
            epochs=self.epochs,
            batch_size=self.batch_size,
            patience=self.patience,
            ema=self.ema,
            seed=seed,
            validation=ValidationConfig(fraction=self.validation_fraction),
            std_weighting=weighted,
        )

    def predict(self, X: ArrayLike, return_std: bool = False) -> Any:
        """Scores of features (n, D): float64 (n,) or (n, K), as `y` was; not clamped to the labels' range.

        Args:
            X: NaN and infinity are allowed.
            return_std: also give the deviation of the members' scores (and of their own distributions, where `output`
                states one), of the same shape; 0 for a constant target or a single network.

        Raises:
            ValueError: other features than `fit` had.
        """
        check_is_fitted(self)
        features = float32(validate_data(self, X, reset=False, ensure_all_finite=False, dtype="numeric"))
        scores = np.repeat(self.constant_[None], len(features), axis=0)
        std = np.zeros_like(scores)
        if self.ensemble_ is not None:
            varies = np.isnan(self.constant_)
            predicted, spread = predict_spread(self.ensemble_, {_INPUT: features})
            scores[:, varies] = predicted
            std[:, varies] = 0 if spread is None else spread
        if self._one_column:
            scores, std = scores[:, 0], std[:, 0]
        return (scores, std) if return_std else scores

    def srocc_score(self, X: ArrayLike, y: ArrayLike) -> float:
        """SROCC of predictions and labels, mean over the targets; NaN where one of them is constant."""
        predicted = np.asarray(self.predict(X)).reshape(len(np.asarray(y)), -1)
        labels = np.asarray(y, dtype=np.float64).reshape(predicted.shape)
        metric = METRICS.get("srocc")
        return float(np.mean([metric(*columns) for columns in zip(predicted.T, labels.T, strict=True)]))


def _average(fitted: Sequence[FittedHead], kinds: Sequence[str]) -> Ensemble:
    """Equal shares for the kinds, and within a kind for its networks; those trained together stay one module."""
    together: dict[int, list[int]] = {}
    for number, head in enumerate(fitted):
        together.setdefault(id(head.batch), []).append(number)
    members, weights = [], []
    for numbers in together.values():
        batch = fitted[numbers[0]].batch
        members.append(batch.select([fitted[number].index for number in numbers]).eval())
        weights.append(len(numbers) / kinds.count(kinds[numbers[0]]))
    return Ensemble(members, weights).eval()

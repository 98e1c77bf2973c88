"""The cross-validated objective of many recipes at once: all their heads of all folds train in one call."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import ConfigError, UsageError
from vqa_train.core.hashing import canonical_json
from vqa_train.core.plugins import did_you_mean
from vqa_train.datasets.protocols import FixedSplits, Protocol, SplitPlan, plan_splits
from vqa_train.evaluation import METRICS
from vqa_train.evaluation.metric import Metric
from vqa_train.heads import HEADS
from vqa_train.heads.trainer import FittedHead, HeadJob, fit_heads
from vqa_train.pipelines.fit.config import MemberConfig
from vqa_train.pipelines.fit.crossfit import CrossFit, Fold, HeldOut
from vqa_train.pipelines.fit.data import FitData


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Folds over the training rows of a fit; what that fit tests is in none of them.

    Attributes:
        data: of the fit.
        folds: rows of its table.
        plan_sha256: identity of the folds.
        warnings: what whoever reads the numbers must know.
    """

    data: FitData
    folds: tuple[Fold, ...]
    plan_sha256: str
    warnings: tuple[str, ...]

    @property
    def rows(self) -> NDArray[np.int64]:
        """Rows of the table that are in any fold, ascending."""
        return np.unique(
            np.concatenate([rows for fold in self.folds for rows in (fold.train, fold.validation, fold.test)])
        )


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The objective of one recipe.

    Attributes:
        value: mean over the folds; NaN with a `reason`.
        folds: fold -> mean over targets (and datasets), None where undefined.
        held_out: predictions per fold; empty where training failed.
        reason: why there is no value: training diverged, a metric is undefined, or the recipe cannot be trained.
    """

    value: float
    folds: dict[str, float | None]
    held_out: tuple[HeldOut, ...] = ()
    reason: str | None = None


def training_folds(data: FitData, protocol: Protocol) -> Validation:
    """Split the rows that the fit trains on (its training and validation part) by a protocol.

    Args:
        data: of a fit whose own protocol keeps a test part, or of one that measures by several folds; then every row
            takes part and a warning says so.
        protocol: `splits` trains on the training part and measures on the validation part.

    Raises:
        ConfigError: too few groups, no validation part, or rows without labels of a target.
    """
    rows = np.sort(np.concatenate([data.final.train, data.final.validation]))
    warnings = []
    if data.plan.protocol.refit:
        warnings.append(
            f"protocol {data.plan.protocol.text()} of the recipe tests every row in turn, so no row is unseen by "
            f"this selection; what it then measures for the selected recipe is too good (a protocol with a test part, "
            f"such as splits or hash, keeps one)"
        )
    if isinstance(protocol, FixedSplits):
        if not len(data.final.validation):
            raise ConfigError(
                "protocol splits measures on validation rows, and the dataset has none",
                hint="choose --protocol kfold:k=5",
            )
        fold = Fold(name="splits", train=data.final.train, test=data.final.validation)
        return Validation(data=data, folds=(fold,), plan_sha256=data.plan.sha256, warnings=tuple(warnings))
    table = data.table
    plan: SplitPlan = plan_splits(
        protocol,
        [table.datasets[row] for row in rows],
        # Their split has done its part: none of them tests.
        [replace(table.videos[row], split=None) for row in rows],
    )
    names = [table.datasets[row] for row in rows]
    inside = rows[plan.positions(names, [table.videos[row] for row in rows])]
    folds = tuple(
        Fold(name=fold.name, train=fold.train, test=fold.test, validation=fold.validation)
        for fold in plan.placed(inside)
    )
    return Validation(data=data, folds=folds, plan_sha256=plan.sha256, warnings=(*warnings, *plan.warnings))


def objective_metric(name: str, data: FitData) -> Metric:
    """The metric to optimise.

    Raises:
        UsageError: unknown, or one that needs the labels' uncertainty or a scale that the datasets do not share.
    """
    metrics: list[Metric] = [METRICS.get(known) for known in METRICS.names()]
    usable = {metric.name: metric for metric in metrics if not metric.uncertain}
    if name not in usable:
        raise UsageError(f"objective {name!r} cannot be optimised", hint=did_you_mean(name, list(usable)))
    metric = usable[name]
    if len(data.datasets) > 1 and not metric.higher_is_better:
        raise UsageError(
            f"objective {name!r} is an error on one scale, and there are {len(data.datasets)} datasets",
            hint="choose srocc or plcc",
        )
    return metric


class Objective:
    """Scores recipes by folds of one table.

    Args:
        validation: the folds.
        metric: of `objective_metric`.
        seeds: heads per member and fold.
        device, threads: where they train.

    Raises:
        ConfigError: the metric is undefined in every fold, whatever is predicted.
    """

    def __init__(
        self, validation: Validation, metric: Metric, *, seeds: int, device: str = "cpu", threads: int = 1
    ) -> None:
        self.validation, self.metric, self.seeds = validation, metric, seeds
        self._device, self._threads = device, threads
        self._solved: dict[tuple[str, bytes, bytes], FittedHead] = {}
        # Labels that are all alike have no correlation: such a fold could never tell two recipes apart.
        targets = validation.data.table.targets
        self.folds = [fold for fold in validation.folds if self._parts(fold, targets[fold.test])]
        if not self.folds:
            raise ConfigError(
                f"{metric.name} is undefined in every fold: their test labels do not vary", hint="choose fewer folds"
            )

    def on(self, validation: Validation) -> Objective:
        """The same objective on other folds or features."""
        return Objective(validation, self.metric, seeds=self.seeds, device=self._device, threads=self._threads)

    def scores(self, recipes: Sequence[Sequence[MemberConfig]]) -> list[Scored]:
        """The objective of each recipe (its members are averaged); one that fails does not end the others."""
        data = self.validation.data
        crosses: list[CrossFit] = []
        numbers: list[list[int]] = []
        try:
            for members in recipes:
                cross = CrossFit(data.training, data.units, members, seeds=self.seeds)
                crosses.append(cross)
                numbers.append([cross.add(fold) for fold in self.folds])
            fitted = self._fit([job for cross in crosses for job in cross.jobs])
        except ConfigError as error:
            if len(recipes) == 1:
                return [Scored(value=math.nan, folds={}, reason=str(error))]
            return [self.scores([members])[0] for members in recipes]
        start = 0
        for cross in crosses:
            cross.take(fitted[start : start + len(cross.jobs)])
            start += len(cross.jobs)
        return [self._scored(cross, folds) for cross, folds in zip(crosses, numbers, strict=True)]

    def _fit(self, jobs: Sequence[HeadJob]) -> list[FittedHead]:
        """The heads of the jobs, in their order; what several recipes share is trained once."""
        different: dict[tuple[str, bytes, bytes], HeadJob] = {}
        keys = []
        for job in jobs:
            closed = HEADS.get(job.config.head.kind).closed_form
            config = job.config.model_dump(
                mode="json", include={"head", "std_weighting", "target_weights"} if closed else None
            )
            keys.append((canonical_json(config), job.train.tobytes(), job.validation.tobytes()))
            different.setdefault(keys[-1], job)
        missing = [key for key in different if key not in self._solved]
        fitted = dict(self._solved)
        if missing:
            trained = fit_heads(
                self.validation.data.training,
                [different[key] for key in missing],
                metric=METRICS.get("srocc"),
                device=self._device,
                threads=self._threads,
                raise_diverged=False,
            )
            fitted |= dict(zip(missing, trained, strict=True))
        # The next batch has the same ones, where only other members vary.
        self._solved = {
            key: fitted[key] for key, job in different.items() if HEADS.get(job.config.head.kind).closed_form
        }
        return [fitted[key] for key in keys]

    def _scored(self, cross: CrossFit, numbers: Sequence[int]) -> Scored:
        for number in numbers:
            for head in cross.heads(number):
                if head.fitted.diverged:
                    reason = f"training of {head.name} diverged in epoch {head.fitted.diverged}"
                    return Scored(value=math.nan, folds={}, reason=reason)
        held_out = tuple(cross.held_out(numbers))
        values = {held.fold.name: self._value(held) for held in held_out}
        undefined = next((name for name, value in values.items() if not math.isfinite(value)), None)
        reason = f"{self.metric.name} is undefined in {undefined}: its predictions are constant"
        return Scored(
            value=float(np.mean(list(values.values()))),
            folds={name: value if math.isfinite(value) else None for name, value in values.items()},
            held_out=held_out,
            reason=None if undefined is None else reason,
        )

    def _value(self, held: HeldOut) -> float:
        """Mean over targets and datasets; NaN where one of them is undefined."""
        labels = self.validation.data.table.targets[held.fold.test]
        found = [
            self.metric(held.predicted[rows, column], labels[rows, column])
            for rows, column in self._parts(held.fold, labels)
        ]
        return float(np.mean(found))

    def _parts(self, fold: Fold, labels: NDArray[np.float32]) -> list[tuple[NDArray[np.int64], int]]:
        """Test rows of one dataset and column of a target, where the metric of perfect predictions is defined."""
        names = np.asarray([self.validation.data.table.datasets[row] for row in fold.test.tolist()], dtype=np.str_)
        parts = []
        for name in np.unique(names):
            rows = np.flatnonzero(names == name)
            for column in range(labels.shape[1]):
                own = labels[rows, column]
                if math.isfinite(self.metric(own, own)):
                    parts.append((rows, column))
        return parts

"""Accuracy of a float graph and of its int8 version on the same labelled rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa_train.evaluation.plcc import plcc
from vqa_train.evaluation.rmse import rmse
from vqa_train.evaluation.srocc import srocc
from vqa_train.onnx.runtime import OnnxModel
from vqa_train.pipelines.table import Table
from vqa_train.registry.sidecar import HIGH, LOW, SCORES, ModelSidecar

Pair = tuple[float, float]


@dataclass(frozen=True)
class Accuracy:
    """One target, each pair (float, int8).

    Attributes:
        rows: labelled rows.
        srocc, plcc, rmse: against the labels.
        coverage: share of labels inside the interval; None without one.
        span: width of the MOS range.
        largest: largest difference between the two scores.
    """

    target: str
    rows: int
    srocc: Pair
    plcc: Pair
    rmse: Pair
    coverage: Pair | None
    span: float
    largest: float

    @property
    def srocc_drop(self) -> float:
        """Float minus int8."""
        return self.srocc[0] - self.srocc[1]

    @property
    def plcc_drop(self) -> float:
        """Float minus int8."""
        return self.plcc[0] - self.plcc[1]

    @property
    def rmse_rise(self) -> float:
        """Int8 minus float, as a share of the MOS range."""
        return (self.rmse[1] - self.rmse[0]) / self.span

    @property
    def coverage_drop(self) -> float | None:
        """Float minus int8."""
        return None if self.coverage is None else self.coverage[0] - self.coverage[1]

    def words(self, metric: str) -> str:
        """`float -> int8` of a metric."""
        before, after = getattr(self, metric)
        return f"{metric.upper() if metric != 'coverage' else metric} {before:.4f} to {after:.4f}"

    def to_json(self) -> dict[str, Any]:
        """JSON values; NaN is null."""
        value = {
            **asdict(self),
            "srocc_drop": self.srocc_drop,
            "plcc_drop": self.plcc_drop,
            "rmse_rise": self.rmse_rise,
            "coverage_drop": self.coverage_drop,
        }
        return {key: _json(entry) for key, entry in value.items() if key != "target"}


def accuracies(sidecar: ModelSidecar, head: OnnxModel, small: OnnxModel, rows: Table) -> list[Accuracy]:
    """Of every target of the model; a row without a label of it does not count."""
    inputs = rows.arrays()
    before, after = head.run(inputs), small.run(inputs)
    found = []
    for k, target in enumerate(sidecar.targets):
        label = rows.targets[:, k]
        low, high = sidecar.mos_range[target]
        scores = (before[SCORES][:, k], after[SCORES][:, k])
        found.append(
            Accuracy(
                target=target,
                rows=int(np.isfinite(label).sum()),
                srocc=(srocc(scores[0], label), srocc(scores[1], label)),
                plcc=(plcc(scores[0], label), plcc(scores[1], label)),
                rmse=(rmse(scores[0], label), rmse(scores[1], label)),
                coverage=_coverages(sidecar, target, k, before, after, label),
                span=high - low,
                largest=float(np.abs(scores[0] - scores[1]).max()),
            )
        )
    return found


def coverage_note(sidecar: ModelSidecar) -> str | None:
    """What is to be said of the intervals of an int8 version; None where the model has none."""
    if sidecar.calibration is None or not sidecar.calibration.bounded:
        return None
    return "half widths are those of the float graph, so their level holds approximately; coverage was measured"


def _coverages(
    sidecar: ModelSidecar,
    target: str,
    column: int,
    before: dict[str, NDArray[Any]],
    after: dict[str, NDArray[Any]],
    label: NDArray[np.float32],
) -> Pair | None:
    if sidecar.calibration is None or target not in sidecar.calibration.half_widths:
        return None
    known = np.isfinite(label)
    if not known.any():
        return None
    shares = [
        float(np.mean((out[LOW][known, column] <= label[known]) & (label[known] <= out[HIGH][known, column])))
        for out in (before, after)
    ]
    return shares[0], shares[1]


def _json(value: Any) -> Any:
    if isinstance(value, tuple):
        return {"float": _json(value[0]), "int8": _json(value[1])}
    return None if isinstance(value, float) and not np.isfinite(value) else value

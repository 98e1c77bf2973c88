"""Pictures of one metric value per split: box plots of many splits, labelled points of few or named ones."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vqa_train.core.hashing import unit_interval
from vqa_train.pipelines.report import figure as draw
from vqa_train.pipelines.report.figure import Picture

CORRELATIONS = ("srocc", "plcc_mapped", "krocc")
_FALLBACK = {"plcc_mapped": "plcc", "rmse_mapped": "rmse", "mae_mapped": "mae"}
ERRORS = ("rmse_mapped", "mae_mapped")
LABELS = {
    "srocc": "SROCC",
    "plcc": "PLCC",
    "plcc_mapped": "PLCC (mapped)",
    "krocc": "KROCC",
    "rmse": "RMSE",
    "rmse_mapped": "RMSE (mapped)",
    "mae": "MAE",
    "mae_mapped": "MAE (mapped)",
    "vquala": "VQualA",
    "vquala_mapped": "VQualA (mapped)",
    "outlier_ratio": "outlier ratio",
    "outlier_ratio_mapped": "outlier ratio (mapped)",
    "rmse_star": "RMSE*",
    "rmse_star_mapped": "RMSE* (mapped)",
    "auc_ds": "AUC different/similar",
    "auc_bw": "AUC better/worse",
    "c0": "C0",
}
_FEW = 6
_NUMBERED = re.compile(r"(repeat-\d+/)?(fold|split)-\d+")
_MOST_NAMED = 20

Fold = Mapping[str, Any]


def split_pictures(folds: Sequence[Fold], target: str, number: int) -> list[Picture]:
    """Correlations and errors of one target over the folds of a protocol; empty for fewer than two folds.

    Args:
        folds: of protocol.json.
        target: its name.
        number: its column, for keys.
    """
    if len(folds) < 2:
        return []
    pictures = []
    for what, metrics in (("correlation", CORRELATIONS), ("error", ERRORS)):
        values = {}
        for metric in metrics:
            found = _values(folds, target, metric)
            name = metric
            if not np.isfinite(found).any() and metric in _FALLBACK:
                name = _FALLBACK[metric]
                found = _values(folds, target, name)
            if np.isfinite(found).any():
                values[name] = found
        if values:
            pictures.append(_boxes(values, target, number, what))
    if len(folds) <= _MOST_NAMED and not _anonymous(folds):
        named = _named(folds, target, number)
        if named is not None:
            pictures.append(named)
    return pictures


def label_of(metric: str) -> str:
    """A metric's name for people."""
    return LABELS.get(metric, metric.replace("_", " "))


def _values(folds: Sequence[Fold], target: str, metric: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    found = [fold["metrics"].get(target, {}).get(metric) for fold in folds]
    return np.asarray([math.nan if value is None else value for value in found], dtype=np.float64)


def _boxes(values: Mapping[str, Any], target: str, number: int, what: str) -> Picture:
    with draw.drawing() as (figure, axes):
        medians = []
        for place, (metric, found) in enumerate(values.items()):
            defined = found[np.isfinite(found)]
            if len(defined) >= _FEW:
                axes.boxplot(
                    defined,
                    positions=[place],
                    widths=0.5,
                    showfliers=False,
                    medianprops={"color": draw.CURVE, "linewidth": 2.2},
                    boxprops={"color": draw.INK},
                    whiskerprops={"color": draw.MUTED},
                    capprops={"color": draw.MUTED},
                )
            jitter = [place + 0.32 * (unit_interval(metric, i) - 0.5) for i in range(len(defined))]
            few = len(defined) < _FEW
            axes.scatter(
                jitter, defined, s=38 if few else 13, color=draw.POINT, alpha=0.75 if few else 0.55, linewidths=0
            )
            if few:
                axes.hlines(np.median(defined), place - 0.25, place + 0.25, color=draw.CURVE, linewidth=2.2)
            medians.append(f"{label_of(metric)} {np.median(defined):.3f}")
        axes.set_xticks(range(len(values)), [label_of(metric).replace(" (", "\n(") for metric in values])
        axes.set_xlim(-0.6, len(values) - 0.4)
        axes.set_ylabel(what if what == "correlation" else f"error, in points of {draw.short(target, 18)}")
        folds = len(next(iter(values.values())))
        undefined = sum(int((~np.isfinite(found)).sum()) for found in values.values())
        better = "Higher is better." if what == "correlation" else "Lower is better."
        how = (
            "the line in a box is the median, the box holds the middle half of the splits. "
            if folds >= _FEW
            else "the line is the median; there are too few splits for a box. "
        )
        return draw.picture(
            figure,
            key=draw.key_of("splits", what, number),
            title=f"{what.capitalize()} over {folds} splits: {target}",
            describe=f"Medians over {folds} splits: {', '.join(medians)}.",
            caption=f"Each point is one split; {how}{better} A difference between two recipes that is small beside how "
            "far these points lie apart needs a paired test (vqa-train compare) before it means anything."
            + (f" {undefined} values are undefined and left out." if undefined else ""),
            rests_on=f"the held-out rows of {folds} splits, in protocol.json",
        )


def _named(folds: Sequence[Fold], target: str, number: int) -> Picture | None:
    values = _values(folds, target, "srocc")
    if not np.isfinite(values).any():
        return None
    names = [str(fold["name"]) for fold in folds]
    order = np.argsort(np.where(np.isfinite(values), values, -np.inf), kind="stable")
    with draw.drawing(height=max(2.4, 1.2 + 0.26 * len(folds))) as (figure, axes):
        places = np.arange(len(order))
        axes.hlines(places, 0, values[order], color=draw.GRID, linewidth=1.5)
        axes.scatter(values[order], places, s=30, color=draw.POINT, linewidths=0, zorder=3)
        axes.set_yticks(places, [draw.short(names[i], 26) for i in order])
        axes.set_ylim(-0.7, len(order) - 0.3)
        draw.label_below(figure, "SROCC")
        sizes = [int(fold["test"]) for fold in folds]
        return draw.picture(
            figure,
            key=draw.key_of("folds", number),
            title=f"SROCC of each split: {target}",
            describe="; ".join(f"{names[i]} {values[i]:.3f}" for i in order),
            caption="Each line is one split, named after what was held out. A split far below the others holds videos "
            "unlike those that the model learned from.",
            rests_on=f"protocol.json: {min(sizes)} to {max(sizes)} held-out rows a split",
        )


def _anonymous(folds: Sequence[Fold]) -> bool:
    """Names that say nothing: numbers of random parts."""
    return all(_NUMBERED.fullmatch(str(fold["name"])) for fold in folds)

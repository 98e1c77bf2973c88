"""What a reader of a result must know beside its numbers, among it why a number is missing."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from vqa_train.evaluation import METRICS
from vqa_train.evaluation.estimates import PAIR_MAX_ROWS, Rows, without_interval
from vqa_train.evaluation.krasula import MAX_ROWS
from vqa_train.evaluation.pairs import is_constant
from vqa_train.evaluation.results import Estimate


def data_notes(rows: Rows) -> list[str]:
    """Too few rows, constant predictions, constant labels."""
    if len(rows) < 2:
        return [f"{len(rows)} rows have a prediction and a label: correlations are undefined"]
    return [
        f"{what} are constant: correlations are undefined"
        for what, values in (("predictions", rows.predicted), ("labels", rows.target))
        if is_constant(values)
    ]


def direction_notes(lower_is_better: bool, opposed: bool, metrics: Mapping[str, Estimate], mapping: str) -> list[str]:
    """What the signs of the correlations mean."""
    notes = []
    if lower_is_better:
        notes.append("labels are lower-is-better: correlations keep their sign")
    if opposed:
        notes.append("predictions and labels have their better ends at opposite sides: good correlations are negative")
    if metrics["plcc"].value < 0 and mapping != "none":
        notes.append("predictions fall as labels rise; the mapping falls too, so mapped values hide the sign")
    return notes


def uncertainty_notes(rows: Rows, metrics: Mapping[str, Estimate]) -> list[str]:
    """Why metrics that need the labels' confidence intervals are undefined or rest on fewer rows."""
    names = ", ".join(name for name in METRICS.names() if METRICS.get(name).uncertain)
    if rows.uncertainty is None:
        return [f"undefined without the labels' confidence intervals: {names}"]
    notes = []
    known = int(rows.uncertainty.known.sum())
    if known < len(rows):
        notes.append(
            f"{len(rows) - known} of {len(rows)} rows, whose confidence interval is unknown, do not count in {names}"
        )
    if known > MAX_ROWS:
        notes.append(f"auc_ds, auc_bw and c0 rest on {MAX_ROWS} of {known} rows, drawn by hash")
    if known < 2 or is_constant(rows.predicted) or is_constant(rows.target):
        return notes
    if math.isnan(metrics["auc_bw"].value):
        notes.append("no two labels differ significantly: auc_bw, auc_ds and c0 are undefined")
    elif math.isnan(metrics["auc_ds"].value):
        notes.append("all labels differ significantly from each other: auc_ds is undefined")
    return notes


def interval_notes(rows: Rows, metrics: Mapping[str, Estimate], resamples: int) -> list[str]:
    """Why a defined value has no interval."""
    without = without_interval(metrics)
    if not without:
        return []
    units = len(rows) if rows.groups is None else len(np.unique(rows.groups))
    if resamples == 0:
        why = "no resamples were asked for"
    elif units < 2:
        why = f"only {units} {'row' if rows.groups is None else 'group'} to resample"
    elif len(rows) > PAIR_MAX_ROWS:
        why = f"over {PAIR_MAX_ROWS} rows, too many for a metric of all pairs"
    else:
        why = "undefined in over half of the resamples"
    return [f"no interval for {', '.join(without)}: {why}"]

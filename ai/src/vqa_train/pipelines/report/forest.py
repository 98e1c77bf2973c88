"""The picture of an evaluation's correlations with their intervals, per target and dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vqa_train.pipelines.report import figure as draw
from vqa_train.pipelines.report.boxes import label_of
from vqa_train.pipelines.report.figure import Picture

_METRICS = ("srocc", "plcc_mapped", "krocc")
_MARKERS = ("o", "D", "s")
_MOST = 24


def forest(evaluation: Mapping[str, Any]) -> Picture | None:
    """Correlations of an evaluation (schema vqa-train/eval/1); None where none is defined."""
    results = [result for result in evaluation["results"] if result.get("group") is None][:_MOST]
    several = len({result["dataset"] for result in results}) > 1
    names = [f"{r['target']}, {r['dataset']}" if several else str(r["target"]) for r in results]
    there = [m for m in _METRICS if any((r["metrics"].get(m) or {}).get("value") is not None for r in results)]
    if not there:
        return None
    said = []
    with draw.drawing(height=max(2.4, 1.3 + 0.5 * len(results))) as (figure, axes):
        colours = (draw.POINT, draw.CURVE, draw.GOOD)
        for number, metric in enumerate(there):
            shift = 0.22 * (number - (len(there) - 1) / 2)
            for row, result in enumerate(results):
                found = result["metrics"].get(metric) or {}
                if found.get("value") is None:
                    continue
                value, low, high = found["value"], found.get("low"), found.get("high")
                if low is not None and high is not None:
                    axes.hlines(row + shift, low, high, color=colours[number], linewidth=1.8, alpha=0.7)
                point: Any = {"color": colours[number], "marker": _MARKERS[number], "linewidths": 0, "zorder": 3}
                axes.scatter([value], [row + shift], s=34, label=label_of(metric) if row == 0 else None, **point)
                said.append(f"{names[row]} {label_of(metric)} {value:.3f}")
        axes.set_yticks(np.arange(len(results)), [draw.short(name, 24) for name in names])
        axes.set_ylim(len(results) - 0.4, -0.6)
        axes.set_xlabel("correlation")
        draw.legend_below(figure, axes, 3)
        return draw.picture(
            figure,
            key="forest",
            title="Correlations and their 95% intervals",
            describe="; ".join(said),
            caption="How well scores follow opinions: the further right the better, 1 is perfect. "
            "The lines are bootstrap intervals: two models whose lines overlap "
            "may not differ.",
            rests_on=f"{max(int(result['n']) for result in results)} rows at most per line",
        )

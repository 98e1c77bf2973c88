"""Pictures of calibration: how often intervals hold the label, how wide they are, what the spread knows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.hashing import unit_interval
from vqa_train.evaluation.conformal import calibrate, cross_coverage
from vqa_train.pipelines.report import figure as draw
from vqa_train.pipelines.report.figure import Picture
from vqa_train.pipelines.report.intervals import TargetInterval
from vqa_train.pipelines.report.rows import Floats, ScoredRows, spread_out

if TYPE_CHECKING:
    from matplotlib.axis import Axis

LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
_PARTS = 5
_FEWEST = 20
_MOST_ROWS = 20_000
_SPREAD_BINS = 8


def calibration_pictures(
    rows: ScoredRows, target: int, interval: TargetInterval | None, scale: float
) -> tuple[list[Picture], list[str]]:
    """The pictures of one target, and what could not be drawn and why.

    Args:
        rows: one per video.
        target: column.
        interval: of the run's calibration.
        scale: length of the MOS scale, in units of the label.
    """
    known = rows.take(np.flatnonzero(rows.known(target)))
    known = known.take(spread_out(known.keys, _MOST_ROWS))
    name = rows.targets[target]
    groups = len(set(known.groups.tolist()))
    if len(known) < _FEWEST or groups < _PARTS:
        return [], [
            f"{name}: pictures of calibration need {_FEWEST} rows and {_PARTS} groups of videos; here are "
            f"{len(known)} rows in {groups} group{'s' if groups != 1 else ''}"
        ]
    parts = _parts(known.groups)
    residual = known.label[:, target] - known.predicted[:, target]
    pictures = [_coverage(known, target, residual, parts, interval), _width(known, target, residual, interval, scale)]
    spread = None if known.spread is None else known.spread[:, target]
    if spread is not None and len(np.unique(spread[np.isfinite(spread)])) > 1:
        pictures.append(_spread(known, target, residual, spread))
    return pictures, []


def _coverage(
    rows: ScoredRows, target: int, residual: Floats, parts: NDArray[np.int64], interval: TargetInterval | None
) -> Picture:
    found = [cross_coverage(residual, parts, level).share for level in LEVELS]
    with draw.drawing() as (figure, axes):
        line = np.linspace(0.4, 1, 2)
        axes.plot(line, line, color=draw.MUTED, linestyle=(0, (4, 3)), linewidth=1.2, label="as promised")
        axes.plot(LEVELS, found, color=draw.POINT, marker="o", markersize=5, label="on held-out groups")
        run = ""
        if interval is not None and interval.coverage is not None:
            axes.scatter(
                [interval.level], [interval.coverage], s=90, color=draw.CURVE, marker="D", zorder=4, label="as stated"
            )
            run = (
                f" The diamond is what fit measured for the interval that scores carry: {interval.coverage:.1%} of "
                f"{interval.coverage_n} labels at a level of {interval.level:.0%}."
            )
        axes.set(xlim=(0.45, 1), ylim=(0.4, 1.02))
        _percent(axes.xaxis, axes.yaxis)
        axes.set_xlabel("level asked for")
        axes.set_ylabel("labels inside the interval")
        draw.legend_below(figure, axes, 3)
        return draw.picture(
            figure,
            key=draw.key_of("coverage", target),
            title=f"Coverage against level: {rows.targets[target]}",
            describe="; ".join(
                f"level {level:.0%}: {share:.1%} inside" for level, share in zip(LEVELS, found, strict=True)
            ),
            caption="Points on the dashed line: intervals hold what they promise. Below it they are too narrow, above "
            f"it wider than needed.{run}",
            rests_on=f"{len(rows)} rows of {rows.file}: the half width for each fifth of the groups comes from the "
            "other four fifths",
        )


def _width(rows: ScoredRows, target: int, residual: Floats, interval: TargetInterval | None, scale: float) -> Picture:
    half = [calibrate(residual, level).half_width for level in LEVELS]
    finite = [(level, 2 * width) for level, width in zip(LEVELS, half, strict=True) if math.isfinite(width)]
    with draw.drawing() as (figure, axes):
        axes.plot([x for x, _ in finite], [y for _, y in finite], color=draw.POINT, marker="o", markersize=5)
        axes.axhline(scale, color=draw.MUTED, linestyle=(0, (4, 3)), linewidth=1.2, label="the whole scale")
        run = ""
        if interval is not None and interval.half_width is not None:
            axes.scatter([interval.level], [2 * interval.half_width], s=90, color=draw.CURVE, marker="D", zorder=4)
            run = (
                f" The diamond is the interval that scores carry: {2 * interval.half_width:.3g} points wide "
                f"({2 * interval.half_width / scale:.0%} of the scale)."
            )
        axes.set(xlim=(0.45, 1), ylim=(0, None))
        _percent(axes.xaxis)
        axes.set_xlabel("level")
        axes.set_ylabel("width, in points of MOS")
        draw.legend_below(figure, axes, 2)
        return draw.picture(
            figure,
            key=draw.key_of("width", target),
            title=f"Width of the intervals: {rows.targets[target]}",
            describe="; ".join(f"level {level:.0%}: {width:.3g} points" for level, width in finite),
            caption="The price of certainty: how many points of the opinion scale an interval of each level spans. An "
            f"interval as wide as the whole scale says nothing.{run}",
            rests_on=f"residuals of {len(rows)} rows of {rows.file}",
        )


def _spread(rows: ScoredRows, target: int, residual: Floats, spread: Floats) -> Picture:
    known = np.flatnonzero(np.isfinite(spread))
    order = known[np.argsort(spread[known], kind="stable")]
    bins = [part for part in np.array_split(order, min(_SPREAD_BINS, max(2, len(order) // 10))) if len(part)]
    x = np.asarray([float(spread[part].mean()) for part in bins])
    y = np.asarray([float(np.sqrt((residual[part] ** 2).mean())) for part in bins])
    with draw.drawing() as (figure, axes):
        axes.plot(x, y, color=draw.POINT, marker="o", markersize=6)
        top = float(max(y.max(), x.max())) * 1.05
        axes.plot([0, top], [0, top], color=draw.MUTED, linestyle=(0, (4, 3)), linewidth=1.2, label="error = spread")
        axes.set(xlim=(0, float(x.max()) * 1.1 or 1), ylim=(0, float(y.max()) * 1.15 or 1))
        axes.set_xlabel("spread that the model states")
        axes.set_ylabel("error (RMS residual)")
        draw.legend_below(figure, axes, 1)
        return draw.picture(
            figure,
            key=draw.key_of("spread", target),
            title=f"Does the spread know the error? {rows.targets[target]}",
            describe="; ".join(f"spread {a:.3g}: error {b:.3g}" for a, b in zip(x, y, strict=True)),
            caption="Rows in parts of equal size by their spread. A rising line: where the heads disagree the errors "
            "are larger, so the spread is a warning worth heeding. A flat line: it is not. Heads of an ensemble agree "
            "more than they should, so the line usually lies above the dashed one.",
            rests_on=f"{len(known)} rows of {rows.file}, in {len(bins)} parts",
        )


def _percent(*axes: Axis) -> None:
    from matplotlib.ticker import PercentFormatter

    for axis in axes:
        axis.set_major_formatter(PercentFormatter(1, decimals=0))


def _parts(groups: NDArray[np.str_]) -> NDArray[np.int64]:
    """A fifth per row: whole groups, dealt out in the order of their hash."""
    names = sorted(set(groups.tolist()), key=lambda name: (unit_interval("report-coverage", name), name))
    dealt = {name: number % _PARTS for number, name in enumerate(names)}
    return np.asarray([dealt[name] for name in groups.tolist()], dtype=np.int64)

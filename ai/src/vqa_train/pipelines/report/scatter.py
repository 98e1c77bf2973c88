"""The picture of predicted against subjective scores, with the fitted logistic and the prediction intervals."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from vqa_train.core.errors import VqaError
from vqa_train.evaluation.conformal import calibrate
from vqa_train.evaluation.curve import Curve, MappingFitError
from vqa_train.evaluation.logistic import fit_logistic
from vqa_train.pipelines.report import figure as draw
from vqa_train.pipelines.report.figure import Picture
from vqa_train.pipelines.report.intervals import TargetInterval
from vqa_train.pipelines.report.rows import Floats, ScoredRows, spread_out

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_POINTS = 1500
_HEIGHT_IN = 4.9
_BAND_LEVEL = 0.9
# Without the second, which is the colour of the curve.
_SERIES = (draw.SERIES[0], *draw.SERIES[2:])


def scatter(rows: ScoredRows, target: int, interval: TargetInterval | None) -> Picture | None:
    """One target's picture; None where no row has both scores.

    Args:
        rows: one per video.
        target: column.
        interval: of the run's calibration; without one the band is where nine of ten of the points lie.
    """
    name = rows.targets[target]
    known = rows.take(np.flatnonzero(rows.known(target)))
    if not len(known):
        return None
    x, y = known.predicted[:, target], known.label[:, target]
    low, high = _span(np.concatenate([x, y]))
    line = np.linspace(low, high, 200)
    with draw.drawing(height=_HEIGHT_IN) as (figure, axes):
        half, band = _band(x, y, interval)
        if math.isfinite(half):
            axes.fill_between(line, line - half, line + half, color=draw.BAND, alpha=0.18, linewidth=0, label=band)
        axes.plot(line, line, color=draw.MUTED, linestyle=(0, (4, 3)), linewidth=1.2, label="prediction = MOS")
        _points(axes, known, target)
        curve = _curve(x, y)
        if curve is not None:
            across = np.linspace(float(x.min()), float(x.max()), 200)
            axes.plot(across, curve(across), color=draw.CURVE, linewidth=2.4, label="fitted logistic")
        axes.set(xlim=(low, high), ylim=(low, high))
        axes.set_box_aspect(1)
        axes.set_xlabel("prediction")
        axes.set_ylabel("opinion score (MOS)")
        draw.legend_below(figure, axes, 2)
        drawn = min(len(known), MOST_POINTS)
        return draw.picture(
            figure,
            key=draw.key_of("scatter", target),
            title=f"Predicted against MOS: {name}",
            describe=f"Scatter plot of {drawn} videos; predictions from {x.min():.3g} to {x.max():.3g}, "
            f"opinion scores from {y.min():.3g} to {y.max():.3g}.",
            caption=_caption(len(known), curve is None, interval, half),
            rests_on=f"{len(known)} rows of {known.file}: {known.what}",
        )


def _points(axes: Axes, rows: ScoredRows, target: int) -> None:
    """Coloured by dataset where there are a few; a point per video, up to MOST_POINTS drawn by hash."""
    shown = rows.take(spread_out(rows.keys, MOST_POINTS))
    x, y = shown.predicted[:, target], shown.label[:, target]
    names = sorted(set(rows.datasets.tolist()))
    size, alpha = (14, 0.5) if len(shown) < 500 else (8, 0.4)
    if not 2 <= len(names) <= len(_SERIES):
        axes.scatter(x, y, s=size, color=draw.POINT, alpha=alpha, linewidths=0)
        return
    for dataset, colour in zip(names, _SERIES, strict=False):
        part = shown.datasets == dataset
        axes.scatter(x[part], y[part], s=size, color=colour, alpha=alpha, linewidths=0)
        axes.scatter([], [], s=40, color=colour, linewidths=0, label=draw.short(dataset, 20))


def _curve(x: Floats, y: Floats) -> Curve | None:
    try:
        return fit_logistic(x, y)
    except MappingFitError:
        return None


def _band(x: Floats, y: Floats, interval: TargetInterval | None) -> tuple[float, str]:
    """Half width and its name in the legend."""
    if interval is not None and interval.half_width is not None:
        return interval.half_width, f"{interval.level:.0%} interval"
    try:
        return calibrate(y - x, _BAND_LEVEL).half_width, f"{_BAND_LEVEL:.0%} of these points"
    except VqaError:
        return math.nan, ""


def _caption(count: int, no_curve: bool, interval: TargetInterval | None, half: float) -> str:
    parts = [
        "Each point is a video. The closer the points are to the curve, the better the model orders the videos; a "
        "curve that leaves the dashed line says that its scores are too high or too low there."
    ]
    if no_curve:
        parts.append("A logistic could not be fitted: too few rows, or constant scores.")
    if interval is not None and interval.half_width is not None:
        parts.append(
            f"The band is the prediction interval that scores carry, ± {half:.3g}: about {interval.level:.0%} of new "
            "videos should lie in it."
        )
    elif math.isfinite(half):
        parts.append(f"The band, ± {half:.3g}, holds {_BAND_LEVEL:.0%} of these points; the model states no interval.")
    if count > MOST_POINTS:
        parts.append(f"{MOST_POINTS} of {count} points are drawn, chosen by hash; the curve rests on all.")
    return " ".join(parts)


def _span(values: Floats) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin

"""Pictures of the residuals (prediction less opinion score): over the scale, per dataset, per group of videos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vqa_train.pipelines.report import figure as draw
from vqa_train.pipelines.report.figure import Picture
from vqa_train.pipelines.report.rows import Floats, ScoredRows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BINS = 6
_FEWEST_IN_BIN = 5
_FEWEST_IN_GROUP = 3
_MOST_GROUPS = 16


def residual_pictures(rows: ScoredRows, target: int) -> tuple[list[Picture], list[str]]:
    """The pictures of one target, and what could not be drawn and why.

    Args:
        rows: one per video.
        target: column.
    """
    known = rows.take(np.flatnonzero(rows.known(target)))
    if len(known) < _FEWEST_IN_BIN:
        return [], [f"{rows.targets[target]}: {len(known)} rows are too few for residuals"]
    residual = known.predicted[:, target] - known.label[:, target]
    pictures, notes = [_over_scale(known, target, residual)], []
    if len(set(known.datasets.tolist())) > 1:
        pictures.append(_by_name(known, target, residual, known.datasets, "dataset"))
    sizes = _sizes(known.groups)
    if sum(size >= _FEWEST_IN_GROUP for size in sizes.values()) >= 2:
        pictures.append(_by_name(known, target, residual, known.groups, "group"))
    elif target == 0:
        largest = max(sizes.values())
        why = (
            "every video stands alone"
            if largest == 1
            else f"no two groups of videos have {_FEWEST_IN_GROUP} rows here ({len(sizes)} groups, the largest of "
            f"{largest})"
        )
        notes.append(f"residuals by group are not drawn: {why}")
    return pictures, notes


def _over_scale(rows: ScoredRows, target: int, residual: Floats) -> Picture:
    label = rows.label[:, target]
    edges = np.unique(np.quantile(label, np.linspace(0, 1, min(_BINS, max(1, len(rows) // _FEWEST_IN_BIN)) + 1)))
    bins = np.clip(np.searchsorted(edges, label, "right") - 1, 0, max(len(edges) - 2, 0))
    parts = [residual[bins == number] for number in range(max(len(edges) - 1, 1))]
    names = [f"{edges[i]:.3g}\nto {edges[min(i + 1, len(edges) - 1)]:.3g}" for i in range(len(parts))]
    used = [(name, part) for name, part in zip(names, parts, strict=True) if len(part)]
    with draw.drawing() as (figure, axes):
        _boxes(axes, [part for _, part in used], horizontal=False)
        axes.set_xticks(range(len(used)), [name for name, _ in used])
        axes.axhline(0, color=draw.MUTED, linewidth=1.2)
        axes.set_xlabel("opinion score (MOS)")
        axes.set_ylabel("prediction less MOS")
        return draw.picture(
            figure,
            key=draw.key_of("residuals-scale", target),
            title=f"Residuals over the scale: {rows.targets[target]}",
            describe="; ".join(f"MOS {n.replace(chr(10), ' ')}: median residual {np.median(p):.3g}" for n, p in used),
            caption="Boxes above zero are scored too high, boxes below too low. Every regression pulls towards the "
            "middle, so the left boxes sit a little high and the right ones a little low; a steep slope means that "
            "the model hardly tells the ends apart.",
            rests_on=f"{len(rows)} rows of {rows.file}, in {len(used)} parts of about the same size by MOS",
        )


def _by_name(rows: ScoredRows, target: int, residual: Floats, names: NDArray[np.str_], what: str) -> Picture:
    sizes = _sizes(names)
    enough = [name for name, size in sizes.items() if size >= _FEWEST_IN_GROUP]
    means = {name: float(residual[names == name].mean()) for name in enough}
    chosen = sorted(sorted(enough, key=lambda name: (-abs(means[name]), name))[:_MOST_GROUPS], key=lambda n: means[n])
    parts = [residual[names == name] for name in chosen]
    with draw.drawing(height=max(2.4, 1.2 + 0.29 * len(chosen))) as (figure, axes):
        _boxes(axes, parts, horizontal=True)
        axes.set_yticks(
            range(len(chosen)), [f"{draw.short(n, 20)} ({len(p)})" for n, p in zip(chosen, parts, strict=True)]
        )
        axes.axvline(0, color=draw.MUTED, linewidth=1.2)
        draw.label_below(figure, "prediction less MOS")
        shown = (
            f"The {len(chosen)} of {len(enough)} {what}s with the largest mean residual are drawn. "
            if len(chosen) < len(enough)
            else ""
        )
        small = len(sizes) - len(enough)
        return draw.picture(
            figure,
            key=draw.key_of("residuals", what, target),
            title=f"Residuals by {what}: {rows.targets[target]}",
            describe="; ".join(f"{n}: mean residual {means[n]:.3g}" for n in chosen),
            caption=f"Each box is a {what}, with its number of videos. {shown}A box wholly on one side of zero is a "
            "kind of video that the model scores too high (right) or too low (left); among many small groups some lie "
            "there by chance.",
            rests_on=f"{sum(sizes[n] for n in chosen)} rows of {rows.file}"
            + (f"; {small} {what}s with fewer than {_FEWEST_IN_GROUP} rows are left out" if small else ""),
        )


def _boxes(axes: Axes, parts: Sequence[Floats], *, horizontal: bool) -> None:
    axes.boxplot(
        parts,
        positions=range(len(parts)),
        widths=0.6,
        orientation="horizontal" if horizontal else "vertical",
        patch_artist=True,
        boxprops={"facecolor": draw.BAND, "edgecolor": draw.BAND, "alpha": 0.45},
        medianprops={"color": draw.CURVE, "linewidth": 2.2},
        whiskerprops={"color": draw.MUTED},
        capprops={"color": draw.MUTED},
        flierprops={
            "marker": "o",
            "markersize": 2.5,
            "markerfacecolor": draw.POINT,
            "markeredgecolor": "none",
            "alpha": 0.5,
        },
    )


def _sizes(names: NDArray[np.str_]) -> dict[str, int]:
    found, counts = np.unique(names, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))

"""Pictures of how the heads learned: training and validation loss, and the metric that chose the epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vqa_train.pipelines.report import figure as draw
from vqa_train.pipelines.report.figure import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FEW = 5
_LABELS = {"train_loss": "training", "validation_loss": "validation"}

Entry = Mapping[str, Any]


def learning_curves(heads: Sequence[Entry]) -> tuple[list[Picture], list[str]]:
    """Per member of the ensemble: losses, and the validation metric where there is one; and what has no curve.

    Args:
        heads: of history.json.
    """
    pictures, notes = [], []
    members = list(dict.fromkeys(str(head.get("member", "head")) for head in heads))
    for number, member in enumerate(members):
        own = [head for head in heads if str(head.get("member", "head")) == member]
        trained = [head for head in own if head["epochs"]]
        if not trained:
            notes.append(f"{member}: {_count(len(own))} with a closed form, which has no epochs{_chosen(own)}")
            continue
        pictures.append(_losses(trained, member, number, alone=len(members) == 1))
        metric = _metric(trained, member, number, alone=len(members) == 1)
        if metric is not None:
            pictures.append(metric)
    return pictures, notes


def _losses(heads: Sequence[Entry], member: str, number: int, *, alone: bool) -> Picture:
    with draw.drawing() as (figure, axes):
        ends = []
        for name, colour in (("train_loss", draw.POINT), ("validation_loss", draw.CURVE)):
            values = _values(heads, name)
            if np.isfinite(values).any():
                _band(axes, values, colour, _LABELS[name])
                ends.append(f"median {_LABELS[name]} loss from {_first(values):.3g} to {_last(values):.3g}")
        axes.set_xlabel("epoch")
        axes.set_ylabel("loss")
        draw.legend_below(figure, axes, 2)
        validated = np.isfinite(_values(heads, "validation_loss")).any()
        return draw.picture(
            figure,
            key=draw.key_of("loss", number),
            title="Loss over the epochs" if alone else f"Loss: {member}",
            describe=f"{_count(len(heads))}; {'; '.join(ends)}.",
            caption=(
                "Both lines should fall and level off. A validation line that rises again while training falls on is "
                "overfitting: regularise more or stop earlier. "
                if validated
                else "The line should fall and level off. No rows were held out to choose the epoch, so only the "
                "training loss is known: a low one alone does not mean a good model. "
            )
            + _spread_words(len(heads)),
            rests_on=f"history.json, {_count(len(heads))} (splits, members and seeds)",
        )


def _metric(heads: Sequence[Entry], member: str, number: int, *, alone: bool) -> Picture | None:
    values = _values(heads, "validation_metric")
    if not np.isfinite(values).any():
        return None
    best = np.asarray([int(head["best_epoch"]) for head in heads])
    with draw.drawing() as (figure, axes):
        _band(axes, values, draw.CURVE, "validation SROCC")
        chosen = float(np.median(best))
        axes.axvline(chosen, color=draw.GOOD, linestyle=(0, (4, 3)), label="epoch kept (median)")
        axes.set_xlabel("epoch")
        axes.set_ylabel("SROCC, validation rows")
        draw.legend_below(figure, axes, 2)
        return draw.picture(
            figure,
            key=draw.key_of("metric", number),
            title="Validation SROCC over the epochs" if alone else f"Validation SROCC: {member}",
            describe=f"Median over {_count(len(heads))}; epochs kept from {best.min()} to {best.max()}.",
            caption="The epoch with the best validation score is the one kept. Kept at the very end: it might learn "
            "more with more epochs. Kept in the first few: the learning rate may be too high. "
            + _spread_words(len(heads)),
            rests_on=f"history.json, {_count(len(heads))}; kept epochs {best.min()} to {best.max()}",
        )


def _band(axes: Axes, values: NDArray[np.float64], colour: str, label: str) -> None:
    """Median over heads and the middle eight tenths of them, while most train; each line where they are few."""
    # Heads stop at different epochs; a median over the last few of them would jump.
    known = np.isfinite(values).sum(axis=0) * 2 > len(values)
    epochs = np.flatnonzero(known) + 1
    shown = values[:, known]
    marker = "o" if len(epochs) == 1 else None
    if len(shown) > _FEW:
        low, high = np.nanquantile(shown, [0.1, 0.9], axis=0)
        axes.fill_between(epochs, low, high, color=colour, alpha=0.2, linewidth=0)
    elif len(shown) > 1:
        for line in shown:
            axes.plot(epochs, line, color=colour, alpha=0.35, linewidth=1)
    axes.plot(epochs, np.nanmedian(shown, axis=0), color=colour, label=label, marker=marker)


def _values(heads: Sequence[Entry], name: str) -> NDArray[np.float64]:
    """(heads, epochs), NaN after a head stopped."""
    longest = max(len(head["epochs"]) for head in heads)
    values = np.full((len(heads), longest), math.nan)
    for i, head in enumerate(heads):
        for j, entry in enumerate(head["epochs"]):
            value = entry.get(name)
            values[i, j] = math.nan if value is None else float(value)
    return values


def _first(values: NDArray[np.float64]) -> float:
    return _column(values, 0)


def _last(values: NDArray[np.float64]) -> float:
    return _column(values, -1)


def _column(values: NDArray[np.float64], which: int) -> float:
    known = np.flatnonzero(np.isfinite(values).sum(axis=0) * 2 > len(values))
    return float(np.nanmedian(values[:, known[which]]))


def _count(heads: int) -> str:
    return "1 head" if heads == 1 else f"{heads} heads"


def _spread_words(heads: int) -> str:
    if heads == 1:
        return ""
    if heads <= _FEW:
        return f"The thin lines are the {heads} heads, the thick one their median."
    return f"The line is the median of {heads} heads, the band holds the middle 80% of them."


def _chosen(heads: Sequence[Entry]) -> str:
    """Medians of what closed forms chose."""
    found: dict[str, list[float]] = {}
    for head in heads:
        for name, value in (head.get("chosen") or {}).items():
            if value is not None:
                found.setdefault(str(name), []).append(float(value))
    if not found:
        return ""
    return "; median choice: " + ", ".join(f"{name} {np.median(values):.3g}" for name, values in found.items())

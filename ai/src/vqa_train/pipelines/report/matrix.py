"""The picture of a cross-dataset matrix: SROCC of a model of one dataset on the videos of another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vqa_train.pipelines.report import figure as draw
from vqa_train.pipelines.report.figure import Picture

_DARK_FROM = 0.55


def matrix(cells: Sequence[Mapping[str, Any]], target: str, number: int) -> Picture | None:
    """One target's matrix; None where no cell has a value.

    Args:
        cells: of protocol.json: train, test, summary.
        target: its name.
        number: its column, for the key.
    """
    names = list(dict.fromkeys([*(cell["train"] for cell in cells), *(cell["test"] for cell in cells)]))
    values = np.full((len(names), len(names)), math.nan)
    for cell in cells:
        found = cell["summary"].get(target, {}).get("srocc", {}).get("median")
        if found is not None:
            values[names.index(cell["train"]), names.index(cell["test"])] = found
    if not np.isfinite(values).any():
        return None
    with draw.drawing(height=1.6 + 0.6 * len(names)) as (figure, axes):
        axes.grid(False)
        for row in range(len(names)):
            for column in range(len(names)):
                value = values[row, column]
                strength = float(np.clip(value, 0, 1)) if math.isfinite(value) else 0.0
                axes.add_patch(_square(column, row, strength))
                text = f"{value:.3f}" if math.isfinite(value) else "-"
                axes.text(column, row, text, ha="center", va="center", weight="bold" if row == column else "normal")
        axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5))
        axes.set_xticks(range(len(names)), [draw.short(name, 12) for name in names])
        axes.set_yticks(range(len(names)), [draw.short(name, 16) for name in names])
        axes.set_xlabel("tested on")
        axes.set_ylabel("trained on")
        return draw.picture(
            figure,
            key=draw.key_of("matrix", number),
            title=f"SROCC from dataset to dataset: {target}",
            describe="; ".join(
                f"trained on {names[r]}, tested on {names[c]}: {values[r, c]:.3f}"
                for r in range(len(names))
                for c in range(len(names))
                if math.isfinite(values[r, c])
            ),
            caption="Each square is a model of the row's dataset on the videos of the column's. The diagonal, in "
            "bold, is the dataset against itself (cross-validated). What is lost off the diagonal is what a new kind "
            "of video would cost.",
            rests_on="the held-out rows of all splits of a pair, in protocol.json",
        )


def _square(column: int, row: int, strength: float) -> Any:
    from matplotlib.patches import Rectangle

    # Half transparent at most, so that the page's text colour stays legible on it in either theme.
    return Rectangle(
        (column - 0.48, row - 0.48), 0.96, 0.96, facecolor=draw.POINT, alpha=_DARK_FROM * strength, linewidth=0
    )

"""What select-features writes: CSV tables and one picture of redundancy, columns and forward selection."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqa_train.core.errors import UsageError
from vqa_train.core.files import atomic_write_bytes
from vqa_train.core.plugins import needs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PICTURES = ("svg", "png")
_BARS = 15
_CELL_LABELS = 12
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#000000")
"""Okabe and Ito's set, which people with colour blindness can tell apart."""


def write_tables(folder: Path, report: dict[str, Any], picture: str | None) -> list[Path]:
    """Write columns.csv, redundancy.csv and forward.csv or, for one set, few_columns.csv, and features.svg or .png.

    Args:
        folder: made where it does not exist; files of these names are replaced.
        report: of `select_features`.
        picture: `svg`, `png` or None.

    Returns:
        Their paths.

    Raises:
        UsageError: another kind of picture.
        DependencyError: matplotlib is not installed.
        OSError: a file cannot be written.
    """
    data = draw(report, picture) if picture is not None else None
    written = []
    tables = [("columns", _columns(report))]
    if len(report["sets"]) > 1:
        tables += [("redundancy", _redundancy(report)), ("forward", _forward(report))]
    elif report["few_columns"] is not None:
        tables += [("few_columns", _few(report))]
    for name, lines in tables:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(lines)
        written.append(folder / f"{name}.csv")
        atomic_write_bytes(written[-1], text.getvalue().encode("utf-8"))
    if data is not None:
        written.append(folder / f"features.{picture}")
        atomic_write_bytes(written[-1], data)
    return written


def _redundancy(report: dict[str, Any]) -> Iterator[Sequence[Any]]:
    names = report["redundancy"]["sets"]
    yield ("set", "other", "cka")
    for name, line in zip(names, report["redundancy"]["matrix"], strict=True):
        for other, value in zip(names, line, strict=True):
            yield (name, other, value)


def _columns(report: dict[str, Any]) -> Iterator[Sequence[Any]]:
    fields = ("set", "column", "name", "target", "information", "srocc", "nearest", "nearest_srocc")
    yield fields
    for entry in report["columns"]:
        yield [entry[field] for field in fields]


def _forward(report: dict[str, Any]) -> Iterator[Sequence[Any]]:
    yield ("step", "added", "sets", report["objective"]["metric"], "std", "gain", "gain_std")
    for number, step in enumerate(report["forward"], 1):
        values = [step[field] for field in ("value", "std", "gain", "gain_std")]
        yield (number, step["added"], "+".join(step["sets"]), *values)


def _few(report: dict[str, Any]) -> Iterator[Sequence[Any]]:
    counts = report["few_columns"]["counts"]
    folds = list(counts[0]["folds"]) if counts else []
    yield ("columns", report["objective"]["metric"], *folds)
    for entry in counts:
        yield (entry["columns"], entry["value"], *(entry["folds"].get(fold) for fold in folds))


def check_picture(kind: str) -> None:
    """Refuse what `draw` would refuse, before any work is done.

    Raises:
        UsageError: neither svg nor png.
        DependencyError: matplotlib is not installed.
    """
    if kind not in _PICTURES:
        raise UsageError(f"picture {kind!r} is not known", hint=f"known: {', '.join(_PICTURES)}")
    with needs("the picture of select-features", "report"):
        import matplotlib  # noqa: F401


def draw(report: dict[str, Any], kind: str) -> bytes:
    """The picture; the same report and versions give the same bytes.

    Raises:
        UsageError: neither svg nor png.
        DependencyError: matplotlib is not installed.
    """
    check_picture(kind)
    import matplotlib as mpl
    from matplotlib.figure import Figure

    several, few = len(report["sets"]) > 1, report["few_columns"]
    wide = several or few is not None
    settings: dict[Any, Any] = {
        "svg.hashsalt": "vqa-train",
        "svg.fonttype": "none",
        "axes.spines.top": False,
        "font.size": 9,
    }
    with mpl.rc_context({**settings, "axes.spines.right": False}):
        figure = Figure(figsize=(15 if wide else 7, 4.8), layout="constrained")
        plots = list(figure.subplots(1, 3 if wide else 1, squeeze=False)[0])
        colours = {entry["name"]: _COLOURS[i % len(_COLOURS)] for i, entry in enumerate(report["sets"])}
        if several:
            _draw_redundancy(plots[0], report)
            _draw_forward(plots[2], report)
        elif wide:
            _draw_column_redundancy(plots[0], few)
            _draw_few(plots[2], report)
        _draw_columns(plots[1 if wide else 0], report, colours)
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else {"Software": None})
    return buffer.getvalue()


def _draw_redundancy(axes: Axes, report: dict[str, Any]) -> None:
    import numpy as np

    names = [_short(name) for name in report["redundancy"]["sets"]]
    matrix = np.asarray(report["redundancy"]["matrix"], dtype=np.float64)
    image = axes.imshow(matrix, vmin=0, vmax=1, cmap="viridis")
    axes.figure.colorbar(image, ax=axes, shrink=0.8)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    if len(names) <= _CELL_LABELS:
        for (row, column), value in np.ndenumerate(matrix):
            if np.isfinite(value):
                colour = "black" if value > 0.6 else "white"
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour)
    axes.set_title("Redundancy: debiased linear CKA\n(1: the same up to rotation, 0: unrelated)")


def _draw_column_redundancy(axes: Axes, few: dict[str, Any]) -> None:
    import numpy as np

    names = [str(column) for column in few["columns"]]
    image = axes.imshow(np.asarray(few["matrix"], dtype=np.float64).reshape(len(names), -1), vmin=0, vmax=1)
    axes.figure.colorbar(image, ax=axes, shrink=0.8)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=6)
    axes.set_yticks(range(len(names)), names, fontsize=6)
    axes.set_title(f"Absolute SROCC among the {len(names)} columns\nthat tell most, near copies together")


def _draw_columns(axes: Axes, report: dict[str, Any], colours: dict[str, str]) -> None:
    target = report["columns"][0]["target"]
    known = [e for e in report["columns"] if e["target"] == target and e["information"] is not None]
    top = sorted(known, key=lambda e: (-e["information"], e["set"], e["column"]))[:_BARS][::-1]
    axes.barh(range(len(top)), [e["information"] for e in top], color=[colours[e["set"]] for e in top])
    several = len(report["sets"]) > 1
    labels = [
        f"{_short(e['set']) + ' ' if several else ''}{_short(e['name']) if e['name'] else e['column']}" for e in top
    ]
    axes.set_yticks(range(len(top)), labels)
    axes.set_xlabel("mutual information with the label, nats")
    axes.set_title(f"Columns that tell most about {_short(target)}")


def _draw_forward(axes: Axes, report: dict[str, Any]) -> None:
    steps, metric = report["forward"], report["objective"]["metric"]
    places = range(1, len(steps) + 1)
    errors = [(step["std"] or 0) / max(len(step["folds"]), 1) ** 0.5 for step in steps]
    axes.errorbar(places, [step["value"] for step in steps], yerr=errors, marker="o", capsize=3, color=_COLOURS[0])
    added = [f"{'+ ' if i else ''}{_short(s['added'])}" for i, s in enumerate(steps)]
    axes.set_xticks(places, added, rotation=45, ha="right")
    chosen = len(report["selected"])
    _ring(axes, chosen, steps[chosen - 1]["value"])
    axes.set_xlim(0.5, len(steps) + 0.5)
    axes.set_ylabel(f"{metric.upper()}, mean over {report['objective']['folds']} folds ± standard error")
    axes.set_title("Forward selection")


def _draw_few(axes: Axes, report: dict[str, Any]) -> None:
    import statistics

    counts, chosen = report["few_columns"]["counts"], len(report["few_columns"]["selected"])
    places = [entry["columns"] for entry in counts]
    spread = [list(entry["folds"].values()) for entry in counts]
    errors = [statistics.stdev(each) / len(each) ** 0.5 if len(each) > 1 else 0.0 for each in spread]
    axes.errorbar(places, [e["value"] for e in counts], yerr=errors, marker="o", capsize=3, color=_COLOURS[0])
    for entry in counts:
        if entry["columns"] == chosen:
            _ring(axes, chosen, entry["value"])
    axes.set_xscale("log", base=2)
    axes.set_xticks(places, [str(place) for place in places])
    axes.minorticks_off()
    axes.set_xlabel("columns, chosen by stepwise regression in each fold")
    metric = report["objective"]["metric"]
    axes.set_ylabel(f"{metric.upper()}, mean over {report['objective']['folds']} folds ± standard error")
    axes.set_title("How few columns do as well as all")


def _ring(axes: Axes, x: float, y: float) -> None:
    """Round the fewest that are within one standard error of the best."""
    label = "fewest within one\nstandard error of the best"
    axes.plot([x], [y], "o", markersize=14, markerfacecolor="none", color=_COLOURS[5], linestyle="none", label=label)
    axes.legend(loc="lower right", frameon=False)


def _short(name: str) -> str:
    """Long names are cut; a dollar would start a formula."""
    text = name if len(name) <= 24 else f"{name[:23]}…"
    return text.replace("$", r"\$")

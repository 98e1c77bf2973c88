"""Metrics as headline numbers and tables: of splits, of a protocol's folds, of an evaluation with intervals."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from vqa_train.pipelines.report.boxes import LABELS, label_of
from vqa_train.pipelines.report.page import Card, Table

_MEANINGS = {
    "srocc": "Is the order of the videos right? 1 is perfect, 0 is chance.",
    "plcc": "Do the scores follow the opinions on a line? 1 is perfect.",
    "rmse": "The typical error, in points of the opinion scale.",
}
HEADLINES = ("srocc", "plcc_mapped", "rmse_mapped")
_STATISTICS = ("median", "mean", "std", "min", "max")
_MOST_FOLDS = 200
_FEW_GROUPS = 8
_IDS = re.compile(rf"\b({'|'.join(sorted(LABELS, key=len, reverse=True))})\b")


def number(value: float | None, digits: int = 4) -> str:
    """A number of a table; undefined ones are said to be."""
    return "undefined" if value is None else f"{value:.{digits}f}"


def glossary() -> Table:
    """What the metrics and other words of the page mean."""
    return Table(
        caption="What the words on this page mean",
        columns=["word", "meaning"],
        rows=[
            ["SROCC", "Spearman's rank correlation: is the order of the videos right? 1 is perfect, 0 is chance"],
            ["KROCC", "Kendall's rank correlation (tau-b): of two videos, how often is the better one scored higher?"],
            ["PLCC", "Pearson's linear correlation: do the scores follow the opinions on a line?"],
            ["RMSE, MAE", "typical error, in points of the opinion scale; RMSE weighs large errors more"],
            ["VQualA", "mean of SROCC and PLCC"],
            ["outlier ratio, RMSE*", "errors beyond the labels' own uncertainty (ITU-T P.1401)"],
            [
                "AUC different/similar, better/worse, C0",
                "can it tell which pairs people tell apart? (Krasula et al. 2016)",
            ],
            ["mapped", "after the fitted logistic, which takes out a different scale but not a wrong order"],
            ["median ± std, 95% interval", "how far the number may be from what other videos would give"],
            ["split, held out", "videos are parted into those that train and those, held out, that only test"],
            ["group", "videos of one source, which are never parted between training and testing"],
            ["head", "the small network that is trained; the final model averages its heads"],
            ["residual", "the prediction less the opinion score"],
        ],
        folded=True,
    )


def in_order(metrics: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Metrics in the order in which people read them; unknown ones last."""
    known = {name: place for place, name in enumerate(LABELS)}
    return sorted(metrics.items(), key=lambda item: known.get(item[0], len(known)))


def protocol_cards(protocol: Mapping[str, Any], targets: Sequence[str]) -> list[Card]:
    """Medians over the folds."""
    cards = []
    for target in targets:
        summary = protocol["summary"].get(target, {})
        for metric in HEADLINES:
            found = summary.get(metric)
            if found is None:
                continue
            std = f"± {found['std']:.3f} " if found.get("std") is not None else ""
            cards.append(
                Card(
                    name=_named(label_of(metric), target, targets),
                    value=number(found["median"], 3),
                    detail=f"{std}over {found['n']} splits" if found["n"] != 1 else "one split",
                    meaning=_meaning(metric),
                )
            )
    return cards


def evaluation_cards(evaluation: Mapping[str, Any], targets: Sequence[str]) -> list[Card]:
    """Values on all rows with their 95% intervals."""
    cards = []
    for result in evaluation["results"]:
        if result["dataset"] != "all" or result.get("group") is not None:
            continue
        for metric in HEADLINES:
            found = result["metrics"].get(metric)
            if found is None:
                continue
            known = found["low"] is not None and found["high"] is not None
            cards.append(
                Card(
                    name=_named(label_of(metric), result["target"], targets),
                    value=number(found["value"], 3),
                    detail=f"{found['low']:.3f} to {found['high']:.3f} (95%)" if known else f"{result['n']} rows",
                    meaning=_meaning(metric),
                )
            )
    return cards


def protocol_table(protocol: Mapping[str, Any], targets: Sequence[str]) -> Table:
    """Median, mean, deviation and range of every metric over the folds."""
    rows = []
    every = [found for target in targets for found in protocol["summary"].get(target, {}).values()]
    shown = [name for name in _STATISTICS if any(name in found for found in every)]
    for target in targets:
        for metric, found in in_order(protocol["summary"].get(target, {})):
            values = [number(found.get(name)) for name in shown]
            undefined = f" ({found['undefined']} undefined)" if found.get("undefined") else ""
            rows.append([*_target(target, targets), label_of(metric), *values, f"{found['n']}{undefined}"])
    columns = [*_target("target", targets), "metric", *shown, "splits"]
    return Table(
        caption="Every metric over the splits. Mapped values are taken after a logistic of four parameters, fitted to "
        "the held-out rows of each split, as papers of the field do.",
        columns=columns,
        rows=rows,
        numeric=frozenset(range(len(columns) - len(shown) - 1, len(columns))),
    )


def fold_table(protocol: Mapping[str, Any], targets: Sequence[str]) -> Table:
    """The folds one by one."""
    folds = protocol["folds"]
    rows = [
        [
            str(fold["name"]), *_target(target, targets), str(fold["train"]), str(fold["test"]),
            *(number(fold["metrics"].get(target, {}).get(metric)) for metric in HEADLINES),
        ]
        for fold in folds[:_MOST_FOLDS]
        for target in targets
    ]  # fmt: skip
    columns = ["split", *_target("target", targets), "trained on", "tested on", *(label_of(m) for m in HEADLINES)]
    shown = f"the first {_MOST_FOLDS} of {len(folds)}" if len(folds) > _MOST_FOLDS else f"all {len(folds)}"
    return Table(
        caption=f"Split by split ({shown})",
        columns=columns,
        rows=rows,
        numeric=frozenset(range(len(columns) - len(HEADLINES) - 2, len(columns))),
        folded=True,
    )


def evaluation_table(evaluation: Mapping[str, Any], caption: str, *, folded: bool = False) -> Table:
    """Every metric of an evaluation (schema vqa-train/eval/1) with its interval, one line per target and dataset."""
    results = [result for result in evaluation["results"] if result.get("group") is None]
    names = [name for name, _ in in_order(dict.fromkeys(name for result in results for name in result["metrics"]))]
    known = [n for n in names if any(r["metrics"].get(n, {}).get("value") is not None for r in results)]
    several = len({result["dataset"] for result in results}) > 1
    targets = list(dict.fromkeys(str(result["target"]) for result in results))
    rows = []
    for result in results:
        where = [*_target(result["target"], targets), *([result["dataset"]] if several else [])]
        for name in known:
            found = result["metrics"].get(name)
            if found is not None:
                rows.append([*where, label_of(name), number(found["value"]), _interval(found), str(result["n"])])
    columns = [
        *_target("target", targets),
        *(["dataset"] if several else []),
        "metric",
        "value",
        "95% interval",
        "rows",
    ]
    last = len(columns) - 1
    return Table(
        caption=caption, columns=columns, rows=rows, numeric=frozenset({last - 2, last - 1, last}), folded=folded
    )


def evaluation_notes(evaluation: Mapping[str, Any]) -> list[str]:
    """What the evaluation itself says must be known."""
    notes = []
    for result in evaluation["results"]:
        if result.get("group") is None:
            where = result["target"] if result["dataset"] == "all" else f"{result['target']} on {result['dataset']}"
            notes += [f"{where}: {_IDS.sub(lambda m: LABELS[m.group()], note)}" for note in result["notes"]]
            groups = result.get("groups")
            if groups is not None and groups < _FEW_GROUPS:
                notes.append(
                    f"{where}: the 95% intervals come from {groups} group{'s' if groups != 1 else ''} of videos, too "
                    "few to be trusted: new kinds of video may lie far outside"
                )
    return notes


def _meaning(metric: str) -> str:
    return _MEANINGS.get(metric.removesuffix("_mapped"), "")


def _interval(found: Mapping[str, Any]) -> str:
    if found["low"] is None or found["high"] is None:
        return ""
    return f"{found['low']:.4f} to {found['high']:.4f}"


def _target(name: str, targets: Sequence[str]) -> list[str]:
    """A cell that says which target, where there are several."""
    return [name] if len(targets) > 1 else []


def _named(metric: str, target: str, targets: Sequence[str]) -> str:
    return metric if len(targets) == 1 else f"{target}: {metric}"

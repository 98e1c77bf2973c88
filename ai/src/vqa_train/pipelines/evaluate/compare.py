"""compare: several models over the same held-out rows or splits, every pair tested."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import UsageError
from vqa_train.core.files import display_path
from vqa_train.core.plugins import did_you_mean
from vqa_train.core.provenance import RunProvenance, file_entry
from vqa_train.evaluation.mapping import check_mapping
from vqa_train.evaluation.pairs import Floats
from vqa_train.evaluation.rivals import Comparison, check_metrics, compare_rows, compare_splits
from vqa_train.pipelines.evaluate.predictions import Predictions, read_predictions

COMPARE_SCHEMA = "vqa-train/compare/1"
DEFAULT_METRICS = ("srocc", "plcc", "rmse")
# Labels that two runs read of one dataset may differ by float32 rounding.
_SAME_LABEL = 1e-5


@dataclass(frozen=True)
class CompareResult:
    """Every comparison, and what it rests on.

    Attributes:
        models: name -> path, in the order given.
        targets: compared.
        rows: rows that all models and the labels have, of the target with most.
        folds: how many, 0 for none.
        resampled: "rows" or "groups".
        comparisons: per target, metric, test and pair.
        notes: everything that a reader must know.
        provenance: of this comparison.
    """

    models: dict[str, str]
    targets: tuple[str, ...]
    rows: int
    folds: int
    resampled: str
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]
    provenance: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The document of schema `vqa-train/compare/1`; JSON values only, no NaN."""
        return {
            "schema": COMPARE_SCHEMA,
            "models": self.models,
            "targets": list(self.targets),
            "rows": self.rows,
            "folds": self.folds,
            "resampled": self.resampled,
            "correction": "Holm over the pairs of models, per target, metric and test",
            "comparisons": [comparison.to_json() for comparison in self.comparisons],
            "notes": list(self.notes),
            "run_provenance": self.provenance,
        }


def compare(
    models: Sequence[str],
    *,
    targets: Sequence[str] = (),
    metrics: Sequence[str] = DEFAULT_METRICS,
    split: str = "test",
    mapping: str = "logistic4",
    resamples: int = 2000,
    level: float = 0.95,
) -> CompareResult:
    """Test the difference of every pair of models.

    With several folds: Wilcoxon's signed-rank test and the corrected resampled t test over them. Where no row is in two
    folds: also the paired bootstrap over rows, or over groups where the tables have such.

    Args:
        models: run folders or prediction tables, two at least, each as PATH or NAME=PATH.
        targets: which; all that the models share when empty.
        metrics: names, "<name>_mapped" for after the mapping.
        split: rows of tables without folds that have a column `split`.
        mapping: for mapped metrics.
        resamples: of the bootstrap.
        level: of the bootstrap's intervals.

    Raises:
        UsageError: fewer than two models, unknown names, folds or labels that differ, no row in common.
        RunError: a run folder that is unfinished or changed.
    """
    check_metrics(metrics)
    check_mapping(mapping)
    if resamples < 1:
        raise UsageError(f"--resamples must be at least 1, got {resamples}")
    if any(metric.endswith("_mapped") for metric in metrics) and mapping == "none":
        raise UsageError("mapped metrics and --mapping none", hint="choose a mapping, or the raw metrics")
    named = _named(models)
    found = [read_predictions(name, path, split) for name, path in named.items()]
    notes = [f"{one.name}: {len(one.keys)} {one.what}" for one in found]
    chosen = _targets(found, targets)
    keys = _common(found, notes)
    folds = np.asarray([key[0] for key in keys], dtype=np.str_)
    several = len(np.unique(folds)) > 1
    once = max(Counter(key[1:] for key in keys).values()) == 1
    if several and not once:
        notes.append("rows are in several folds: tests are over the splits alone")
    elif several:
        notes.append("the bootstrap pools the held-out rows of all folds")
    groups = _groups(found, keys)
    share = _test_share(found, folds, keys, notes) if several else 0.0
    comparisons: list[Comparison] = []
    most = 0
    for target in chosen:
        predicted, labels, complete = _aligned(found, keys, target, notes)
        most = max(most, int(complete.sum()))
        rows = {name: scores[complete] for name, scores in predicted.items()}
        if several:
            comparisons += compare_splits(
                rows, labels[complete], folds[complete], metrics, name=target, mapping=mapping, test_share=share
            )
        if once:
            inside = None if groups is None else [group for group, there in zip(groups, complete, strict=True) if there]
            comparisons += compare_rows(
                rows,
                labels[complete],
                metrics,
                name=target,
                groups=inside,
                mapping=mapping,
                resamples=resamples,
                level=level,
            )
    provenance = RunProvenance(
        entrypoint="compare",
        config={
            "models": {name: display_path(path) for name, path in named.items()},
            "targets": list(chosen),
            "metrics": list(metrics),
            "split": split,
            "mapping": mapping,
            "resamples": resamples,
        },
    )
    for one in found:
        provenance.inputs[one.name] = file_entry(one.path, "prediction-table")
    provenance.counts = {"in": len(keys), "compared": most}
    return CompareResult(
        models={name: display_path(path) for name, path in named.items()},
        targets=chosen,
        rows=most,
        folds=len(np.unique(folds)) if several else 0,
        resampled="rows" if groups is None else "groups",
        comparisons=tuple(comparisons),
        notes=tuple(notes),
        provenance=provenance.to_json(),
    )


def _named(models: Sequence[str]) -> dict[str, Path]:
    """Name -> path; a path names itself by its last part, or whole where two would be alike."""
    if len(models) < 2:
        raise UsageError(f"nothing to compare: got {len(models)} model", hint="name two run folders or tables, or more")
    split = [model.split("=", 1) if "=" in model and not Path(model).exists() else ["", model] for model in models]
    parts = [(name, Path(path)) for name, path in split]
    stems = Counter(path.resolve().stem for _, path in parts)
    named: dict[str, Path] = {}
    for name, path in parts:
        stem = path.resolve().stem
        label = name or (stem if stems[stem] == 1 else str(path))
        if label in named:
            raise UsageError(f"two models are called {label!r}", hint="NAME=PATH names them apart")
        if not path.exists():
            raise UsageError(
                f"model {str(path)!r} does not exist", hint="name a run folder, or a .parquet or .csv table"
            )
        named[label] = path
    return named


def _targets(found: Sequence[Predictions], wanted: Sequence[str]) -> tuple[str, ...]:
    shared = [target for target in found[0].labels if all(target in one.labels for one in found)]
    if not shared:
        raise UsageError(
            "the models share no target: " + "; ".join(f"{one.name} has {', '.join(one.labels)}" for one in found)
        )
    for target in wanted:
        if target not in shared:
            raise UsageError(f"target {target!r} is not in every model", hint=did_you_mean(target, shared))
    return tuple(wanted) or tuple(shared)


def _common(found: Sequence[Predictions], notes: list[str]) -> list[tuple[str, str, str]]:
    """Rows that every model has, in the order of the first; with folds they must be the same rows."""
    first = found[0]
    sets = [set(one.keys) for one in found]
    for one, keys in zip(found[1:], sets[1:], strict=True):
        if one.has_folds != first.has_folds:
            raise UsageError(
                f"{first.name} holds {first.what}, {one.name} {one.what}", hint="fit both under one protocol"
            )
        if first.has_folds and keys != sets[0]:
            fold = min(key[0] for key in keys ^ sets[0])
            raise UsageError(
                f"fold {fold!r} of {first.name} and {one.name} holds different rows",
                hint="fit both with the same splits file",
            )
    shared = set.intersection(*sets)
    if not shared:
        raise UsageError("the models have no row (dataset and id) in common")
    for one, keys in zip(found, sets, strict=True):
        if left := len(keys) - len(shared):
            notes.append(f"{one.name}: {left} rows that another model lacks are left out")
    return [key for key in first.keys if key in shared]


def _aligned(
    found: Sequence[Predictions], keys: Sequence[tuple[str, str, str]], target: str, notes: list[str]
) -> tuple[dict[str, Floats], Floats, NDArray[np.bool_]]:
    """Predictions by model and labels of `keys`, and which of them all have."""
    predicted: dict[str, Floats] = {}
    labels: Floats | None = None
    for one in found:
        place = {key: i for i, key in enumerate(one.keys)}
        index = np.asarray([place[key] for key in keys], dtype=np.intp)
        predicted[one.name] = one.predicted[target][index]
        own = one.labels[target][index]
        if labels is None:
            labels = own
        both = np.isfinite(own) & np.isfinite(labels)
        differ = np.abs(own - labels) > _SAME_LABEL * np.maximum(1.0, np.abs(labels))
        if (both & differ).any() or (np.isfinite(own) != np.isfinite(labels)).any():
            at = int(np.flatnonzero((both & differ) | (np.isfinite(own) != np.isfinite(labels)))[0])
            raise UsageError(
                f"label {target!r} of {keys[at][2]!r} is {labels[at]:g} in {found[0].name}, {own[at]:g} in {one.name}",
                hint="compare models over the same labels",
            )
    if labels is None:
        raise UsageError("no model to compare")
    complete = np.isfinite(labels) & np.logical_and.reduce([np.isfinite(x) for x in predicted.values()])
    if missing := int(np.isfinite(labels).sum() - complete.sum()):
        notes.append(f"{target}: {missing} labelled rows, for which a model has no prediction, are left out for all")
    return predicted, labels, complete


def _groups(found: Sequence[Predictions], keys: Sequence[tuple[str, str, str]]) -> list[str] | None:
    """Of the first model that has them."""
    for one in found:
        if one.groups is not None:
            of = dict(zip(one.keys, one.groups, strict=True))
            return [f"{key[1]}\x1f{of[key]}" for key in keys]
    return None


def _test_share(
    found: Sequence[Predictions], folds: NDArray[np.str_], keys: Sequence[tuple[str, str, str]], notes: list[str]
) -> float:
    """n_test / n_train: what the runs say, else as if each fold had trained on all rows that it did not hold out."""
    said = [one.test_share for one in found if one.test_share is not None]
    if said:
        return max(said)
    total = len({key[1:] for key in keys})
    sizes = np.unique(folds, return_counts=True)[1]
    trained = total - sizes
    if (trained <= 0).any():
        raise UsageError("every fold holds all rows out: nothing is left that it could have trained on")
    notes.append("n_test / n_train is taken from the table: each fold trained on all rows that it does not hold out")
    return float((sizes / trained).mean())

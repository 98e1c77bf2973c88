"""eval: an ONNX model against the labels of one or more datasets, on cached features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import ModelError, UsageError
from vqa_train.core.files import atomic_write_bytes, display_path
from vqa_train.core.provenance import RunProvenance, file_entry
from vqa_train.core.types import Video
from vqa_train.datasets.load import Dataset, load_dataset
from vqa_train.evaluation.report import EvalReport, evaluate
from vqa_train.evaluation.uncertainty import LabelUncertainty
from vqa_train.onnx.runtime import OnnxModel
from vqa_train.pipelines.evaluate.seen_rows import seen_rows_warning
from vqa_train.pipelines.fit.data import with_splits
from vqa_train.pipelines.table import FeatureInput, Table, join
from vqa_train.registry.locate import locate
from vqa_train.registry.sidecar import HIGH, LOW, SCORES, ModelSidecar, read_sidecar, sidecar_path
from vqa_train.store.store import FeatureStore

SPLITS = ("train", "val", "test", "all")


@dataclass(frozen=True)
class EvalResult:
    """The report, what whoever reports its numbers must know, and the provenance of the evaluation."""

    report: EvalReport
    model: str
    model_sha256: str
    split: str
    provenance: dict[str, Any]
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The report's document with the model, the split and the provenance beside it."""
        return {
            **self.report.to_json(),
            "model": self.model,
            "model_sha256": self.model_sha256,
            "split": self.split,
            "warnings": list(self.warnings),
            "run_provenance": self.provenance,
        }


def evaluate_model(
    model: str,
    *,
    features: Path,
    datasets: Sequence[str] = (),
    split: str = "test",
    data_root: Path | None = None,
    manifests_dir: Path | None = None,
    registry: Path = Path("model"),
    predictions: Path | None = None,
    resamples: int = 1000,
    mapping: str = "logistic4",
    per_group: bool = False,
    votes: int | None = None,
) -> EvalResult:
    """Measure a model on the rows of one split.

    A row without features or without a label counts against coverage; it is never dropped silently. Which end of the
    labels is better is the manifests' word, and of the predictions the model's. Prediction intervals that the graph
    gives (outputs `low` and `high`) are checked against the labels.

    Args:
        model: ONNX file with its sidecar beside it, or the name of a registered model.
        features: the store.
        datasets: manifest names or paths; the one that the model was trained on when empty.
        split: "train", "val", "test" or "all".
        predictions: table to write (.csv or .parquet): id, dataset, split, group, label and prediction per target.
        resamples: of the bootstrap; 0 for no intervals.
        mapping: fitted to the rows before "<metric>_mapped": logistic4, logistic5, linear or none.
        per_group: also results for every group.
        votes: opinions behind each label, for the metrics that need confidence intervals; with the standard
            deviations of the manifest.

    Raises:
        UsageError: an unknown split or mapping, predictions of another suffix, fewer than 2 votes, datasets whose
            labels run against each other.
        ModelError: the model is missing, changed, or takes other features than the store has.
        StoreError: the store has none of the features.
    """
    if split not in SPLITS:
        raise UsageError(f"unknown split {split!r}", hint=f"one of: {', '.join(SPLITS)}")
    if predictions is not None and predictions.suffix not in (".csv", ".parquet"):
        raise UsageError(f"--predictions {str(predictions)!r} must end in .csv or .parquet")
    if votes is not None and votes < 2:
        raise UsageError(f"--votes must be at least 2, got {votes}")
    sidecar, path = find_model(model, registry)
    head = OnnxModel(path, expected_sha256=sidecar.onnx.sha256)
    names = list(datasets) or ([sidecar.dataset.name] if sidecar.dataset else [])
    if not names:
        raise UsageError("no dataset named", hint="pass --dataset")
    provenance = RunProvenance(
        entrypoint="eval",
        config={
            "model": sidecar.name,
            "datasets": names,
            "split": split,
            "resamples": resamples,
            "mapping": mapping,
            "per_group": per_group,
            "votes": votes,
        },
    )
    provenance.inputs["model"] = file_entry(path, "onnx-model")
    provenance.inputs["store"] = {"path": display_path(features), "kind": "feature-store"}
    parts = []
    directions: dict[str, str] = {}
    for name in names:
        data = load_dataset(name, data_root=data_root, manifests_dir=manifests_dir, stores=[features])
        provenance.inputs[f"dataset {data.manifest.name}"] = file_entry(data.path, "dataset-manifest")
        _join_directions(directions, data, sidecar.targets)
        parts.append(_predict(data, sidecar, head, FeatureStore.open(features), split))
    scores = np.concatenate([part.scores for part in parts])
    targets = np.concatenate([part.targets for part in parts])
    videos = [video for part in parts for video in part.videos]
    per_row = [part.dataset for part in parts for _ in part.videos]
    if not videos:
        raise UsageError(f"no rows in split {split!r} of {', '.join(names)}", hint="try --split all")
    report = evaluate(
        scores,
        targets,
        sidecar.targets,
        groups=[video.group or video.id for video in videos],
        datasets=per_row,
        resamples=resamples,
        mapping=mapping,
        uncertainty=_uncertainty(parts, sidecar.targets, votes),
        directions=directions,
        prediction_directions=dict.fromkeys(sidecar.targets, sidecar.direction),
        per_group=per_group,
        intervals=_intervals(parts),
    )
    if predictions is not None:
        _write_predictions(predictions, videos, per_row, sidecar.targets, targets, scores)
    provenance.counts = {"in": len(videos), "predicted": int(np.isfinite(scores).all(axis=1).sum())}
    warning = seen_rows_warning(sidecar, [part.dataset for part in parts], split)
    warnings = () if warning is None else (warning,)
    return EvalResult(report, sidecar.name, sidecar.onnx.sha256, split, provenance.to_json(), warnings)


def find_model(model: str, registry: Path) -> tuple[ModelSidecar, Path]:
    """The sidecar and the ONNX file of a model given as an exported file, or in any way that `registry.locate` takes.

    Raises:
        ModelError: no such model, or a sidecar that is missing or changed.
        UsageError: `model` is neither a name nor a path that exists.
    """
    if model.endswith(".onnx"):
        path = Path(model)
        sidecar = read_sidecar(sidecar_path(path))
        return sidecar, path
    sidecar, folder = locate(model, registry)
    return sidecar, folder / sidecar.onnx.file


@dataclass(frozen=True)
class _Part:
    dataset: str
    videos: tuple[Video, ...]
    targets: NDArray[np.float32]
    scores: NDArray[np.float32]
    intervals: NDArray[np.float32] | None


def _predict(data: Dataset, sidecar: ModelSidecar, head: OnnxModel, store: FeatureStore, split: str) -> _Part:
    """Labels and predictions of every record of the split; NaN where there is none."""
    videos = tuple(video for video in with_splits(data) if split in ("all", video.split))
    labels = [[video.labels.get(target, np.nan) for target in sidecar.targets] for video in videos]
    targets = np.asarray(labels, dtype=np.float32).reshape(len(videos), len(sidecar.targets))
    scores = np.full_like(targets, np.nan)
    intervals = np.full((2, *targets.shape), np.nan, dtype=np.float32) if {LOW, HIGH} <= head.outputs.keys() else None
    if videos:
        table = _features(videos, sidecar, store)
        row_of = {video.id: i for i, video in enumerate(videos)}
        found = np.asarray([row_of[video.id] for video in table.videos])
        outputs = head.run(table.arrays())
        scores[found] = outputs[SCORES]
        if intervals is not None:
            intervals[:, found] = np.stack([outputs[LOW], outputs[HIGH]])
    return _Part(data.manifest.name, videos, targets, scores, intervals)


def _join_directions(directions: dict[str, str], data: Dataset, targets: Sequence[str]) -> None:
    """Add the directions of a dataset's labels; labels that run against each other cannot be pooled."""
    for target in targets:
        direction = data.manifest.range_of(target).direction
        if directions.setdefault(target, direction) != direction:
            raise UsageError(
                f"labels of {target!r} are {direction} in {data.manifest.name!r} and {directions[target]} in another "
                f"dataset",
                hint="evaluate the datasets one by one",
            )


def _uncertainty(
    parts: Sequence[_Part], targets: Sequence[str], votes: int | None
) -> Mapping[str, LabelUncertainty] | None:
    """How sure the labels are, where their standard deviations and the number of votes are known."""
    videos = [video for part in parts for video in part.videos]
    known = {target for video in videos for target in video.label_std}
    if votes is None:
        return None
    if not known.intersection(targets):
        raise UsageError("--votes needs standard deviations of the labels", hint="name their columns in the manifest")
    return {
        target: LabelUncertainty.from_votes([video.label_std.get(target, np.nan) for video in videos], votes)
        for target in targets
        if target in known
    }


def _intervals(parts: Sequence[_Part]) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Low and high ends of all parts, where the graph gives them."""
    found = [part.intervals for part in parts if part.intervals is not None]
    if not found:
        return None
    low, high = np.concatenate(found, axis=1)
    return low, high


def _features(videos: Sequence[Video], sidecar: ModelSidecar, store: FeatureStore) -> Table:
    """The inputs of the head, by fingerprint: a set of the same backbone with another meaning is refused."""
    inputs = {}
    for item in sidecar.inputs:
        item.feature_spec()
        there = {found.fingerprint: found.name for found in store.sets()}
        if item.fingerprint not in there:
            raise ModelError(
                f"model {sidecar.name!r} takes {item.backbone}@{item.fingerprint[:12]}, the store has "
                f"{', '.join(sorted(there.values())) or 'nothing'}",
                hint="extract with the version and settings of the backbone that the model was trained on",
            )
        inputs[item.name] = FeatureInput(set=item.fingerprint, output=item.output, of=item.of)
    return join(videos, store, inputs, sidecar.targets)


def _write_predictions(
    path: Path,
    videos: Sequence[Video],
    datasets: Sequence[str],
    targets: Sequence[str],
    labels: NDArray[np.float32],
    scores: NDArray[np.float32],
) -> None:
    import io

    import polars as pl

    columns: dict[str, Any] = {
        "id": [video.id for video in videos],
        "dataset": list(datasets),
        "split": [video.split for video in videos],
        "group": [video.group for video in videos],
        "video_sha256": [video.sha256 for video in videos],
    }
    for i, target in enumerate(targets):
        columns[target] = labels[:, i]
        columns[f"predicted_{target}"] = scores[:, i]
    frame = pl.DataFrame(columns).with_columns(pl.col(pl.Float32).fill_nan(None))
    buffer = io.BytesIO()
    if path.suffix == ".csv":
        frame.write_csv(buffer)
    else:
        frame.write_parquet(buffer)
    atomic_write_bytes(path, buffer.getvalue())

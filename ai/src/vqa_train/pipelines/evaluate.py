"""eval: an ONNX model against the labels of one or more datasets, on cached features."""

from __future__ import annotations

from collections.abc import Sequence
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
from vqa_train.onnx.runtime import OnnxModel
from vqa_train.pipelines.fit import with_splits
from vqa_train.pipelines.table import FeatureInput, Table, join
from vqa_train.registry.registry import ModelRegistry
from vqa_train.registry.sidecar import SCORES, ModelSidecar, read_sidecar, sidecar_path
from vqa_train.store.store import FeatureStore

SPLITS = ("train", "val", "test", "all")


@dataclass(frozen=True)
class EvalResult:
    """The report, and the provenance of the evaluation."""

    report: EvalReport
    model: str
    model_sha256: str
    split: str
    provenance: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The report's document with the model, the split and the provenance beside it."""
        return {
            **self.report.to_json(),
            "model": self.model,
            "model_sha256": self.model_sha256,
            "split": self.split,
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
) -> EvalResult:
    """Measure a model on the rows of one split.

    A row without features or without a label counts against coverage; it is never dropped silently.

    Args:
        model: ONNX file with its sidecar beside it, or the name of a registered model.
        features: the store.
        datasets: manifest names or paths; the one that the model was trained on when empty.
        split: "train", "val", "test" or "all".
        predictions: table to write (.csv or .parquet): id, dataset, split, group, label and prediction per target.

    Raises:
        UsageError: an unknown split, or predictions of another suffix.
        ModelError: the model is missing, changed, or takes other features than the store has.
        StoreError: the store has none of the features.
    """
    if split not in SPLITS:
        raise UsageError(f"unknown split {split!r}", hint=f"one of: {', '.join(SPLITS)}")
    if predictions is not None and predictions.suffix not in (".csv", ".parquet"):
        raise UsageError(f"--predictions {str(predictions)!r} must end in .csv or .parquet")
    sidecar, path = find_model(model, registry)
    head = OnnxModel(path, expected_sha256=sidecar.onnx.sha256)
    names = list(datasets) or ([sidecar.dataset.name] if sidecar.dataset else [])
    if not names:
        raise UsageError("no dataset named", hint="pass --dataset")
    provenance = RunProvenance(
        entrypoint="eval", config={"model": sidecar.name, "datasets": names, "split": split, "resamples": resamples}
    )
    provenance.inputs["model"] = file_entry(path, "onnx-model")
    provenance.inputs["store"] = {"path": display_path(features), "kind": "feature-store"}
    parts = []
    for name in names:
        data = load_dataset(name, data_root=data_root, manifests_dir=manifests_dir)
        provenance.inputs[f"dataset {data.manifest.name}"] = file_entry(data.path, "dataset-manifest")
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
    )
    if predictions is not None:
        _write_predictions(predictions, videos, per_row, sidecar.targets, targets, scores)
    provenance.counts = {"in": len(videos), "predicted": int(np.isfinite(scores).all(axis=1).sum())}
    return EvalResult(report, sidecar.name, sidecar.onnx.sha256, split, provenance.to_json())


def find_model(model: str, registry: Path) -> tuple[ModelSidecar, Path]:
    """The sidecar and the ONNX file of a model given as a file or as a registered name.

    Raises:
        ModelError: no such model, or a sidecar that is missing or changed.
    """
    if model.endswith(".onnx"):
        path = Path(model)
        sidecar = read_sidecar(sidecar_path(path))
        return sidecar, path
    sidecar, folder = ModelRegistry(registry).find(model)
    return sidecar, folder / sidecar.onnx.file


@dataclass(frozen=True)
class _Part:
    dataset: str
    videos: tuple[Video, ...]
    targets: NDArray[np.float32]
    scores: NDArray[np.float32]


def _predict(data: Dataset, sidecar: ModelSidecar, head: OnnxModel, store: FeatureStore, split: str) -> _Part:
    """Labels and predictions of every record of the split; NaN where there is none."""
    videos = tuple(video for video in with_splits(data) if split in ("all", video.split))
    labels = [[video.labels.get(target, np.nan) for target in sidecar.targets] for video in videos]
    targets = np.asarray(labels, dtype=np.float32).reshape(len(videos), len(sidecar.targets))
    scores = np.full_like(targets, np.nan)
    if videos:
        table = _features(videos, sidecar, store)
        row_of = {video.id: i for i, video in enumerate(videos)}
        found = np.asarray([row_of[video.id] for video in table.videos])
        scores[found] = head.run(table.features)[SCORES]
    return _Part(data.manifest.name, videos, targets, scores)


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
        inputs[item.name] = FeatureInput(set=item.fingerprint, output=item.output)
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

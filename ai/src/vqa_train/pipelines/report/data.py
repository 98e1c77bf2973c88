"""What lies outside a run folder and a report can use: records of the datasets, and features for importance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import VqaError
from vqa_train.core.hashing import sha256_file
from vqa_train.core.types import FeatureSpec, Video
from vqa_train.datasets.load import Dataset, load_dataset
from vqa_train.pipelines.report.clips import Record
from vqa_train.pipelines.report.config import Advance
from vqa_train.pipelines.report.importance import Importance, Predict, permutation_importance, rows_to_use, steps_of
from vqa_train.pipelines.report.rows import ScoredRows, spread_out
from vqa_train.pipelines.table import FeatureInput, join
from vqa_train.store.store import FeatureStore


def load_datasets(
    wanted: Mapping[str, str | None],
    *,
    given: Sequence[str] = (),
    read: Mapping[str, Any] | None = None,
    data_root: Path | None = None,
    manifests_dir: Path | None = None,
    features: Path | None = None,
) -> tuple[dict[str, Dataset], list[str]]:
    """The datasets that can be loaded, by name, and why others cannot.

    Args:
        wanted: name -> sha256 of the manifest that the predictions are of.
        given: names or paths of manifests, looked at first.
        read: inputs of a run_provenance block, for the path of the manifest then.
        data_root, manifests_dir: as `load_dataset` takes them.
        features: store whose imported labels are looked through too.

    Raises:
        VqaError: a dataset that was given, or with `data_root` any, cannot be loaded.
    """
    stores = [features] if features is not None else []
    found: dict[str, Dataset] = {}
    notes: list[str] = []
    for name in given:
        data = load_dataset(name, data_root=data_root, manifests_dir=manifests_dir, stores=stores)
        found[data.manifest.name] = data
    for name, digest in wanted.items():
        if name in found:
            continue
        try:
            place = _manifest(name, digest, read or {})
            found[name] = load_dataset(place, data_root=data_root, manifests_dir=manifests_dir, stores=stores)
        except VqaError as error:
            if data_root is not None:
                raise
            notes.append(f"dataset {name!r} is not at hand: {error.message}")
    for name, data in found.items():
        if wanted.get(name) not in (None, data.sha256):
            notes.append(f"the manifest of dataset {name!r} has changed since; videos are matched by their sha256")
    return found, notes


def records_of(datasets: Mapping[str, Dataset]) -> dict[str, Record]:
    """Row key (as `ScoredRows.keys`) -> dataset and video."""
    return {f"{name}\x1f{video.id}": (data, video) for name, data in datasets.items() for video in data.videos}


def importance_of(
    rows: ScoredRows,
    predict: Predict,
    inputs: Mapping[str, tuple[FeatureInput, FeatureSpec]],
    store: Path,
    records: Mapping[str, Record],
    advance: Advance,
) -> tuple[Importance | None, list[str]]:
    """Permutation importance over these rows, and why there is none.

    Args:
        rows: one per video.
        predict: features -> scores (N, K).
        inputs: input name -> feature set and output, and what it is.
        store: of the features.
        records: of the datasets; text features need the prompts in them, features of references the references.
        advance: (name, count) -> function to call after each of the steps.

    Raises:
        StoreError: the store lacks the features.
    """
    labelled = rows.take(np.flatnonzero(np.isfinite(rows.label).any(axis=1)))
    shapes = [spec.output(selector.output).shape for selector, spec in inputs.values()]
    count = rows_to_use(sum(shape[-1] for shape in shapes), sum(int(np.prod(shape)) for shape in shapes))
    chosen = labelled.take(spread_out(labelled.keys, count))
    videos = [_video(chosen, i, records) for i in range(len(chosen))]
    if any(spec.modality == "text" for _, spec in inputs.values()) and not any(v.prompt for v in videos):
        return None, ["importance needs the prompts of the videos, and the dataset is not at hand"]
    if any(selector.of == "reference" for selector, _ in inputs.values()) and not any(v.reference for v in videos):
        return None, ["importance needs the references of the videos, and the dataset is not at hand"]
    table = join(
        videos,
        FeatureStore.open(store),
        {name: selector for name, (selector, _) in inputs.items()},
        rows.targets,
        datasets=chosen.datasets.tolist(),
    )
    place = {key: i for i, key in enumerate(chosen.keys)}
    kept = [place[f"{dataset}\x1f{video.id}"] for dataset, video in zip(table.datasets, table.videos, strict=True)]
    notes = []
    if len(kept) < len(chosen):
        notes.append(f"importance leaves out {len(chosen) - len(kept)} of {len(chosen)} rows, which lack features")
    names = {name: spec.output(selector.output).names for name, (selector, spec) in inputs.items()}
    features: dict[str, NDArray[np.float32]] = table.arrays()
    show = advance("permutation importance", steps_of(features))
    found = permutation_importance(predict, features, chosen.label[kept], names, advance=show)
    return found, notes


def _manifest(name: str, digest: str | None, read: Mapping[str, Any]) -> str:
    """The manifest at the place where the run read it, if it is still that file; else its name, to be looked up."""
    entry = read.get(f"dataset {name}") or read.get("dataset")
    if isinstance(entry, Mapping) and digest is not None:
        path = Path(str(entry.get("path", ""))).expanduser()
        if path.suffix in (".yaml", ".yml") and path.is_file() and sha256_file(path) == digest:
            return str(path)
    return name


def _video(rows: ScoredRows, number: int, records: Mapping[str, Record]) -> Video:
    """The record of a row; without its dataset, one with what the row knows."""
    found = records.get(rows.key_of(number))
    if found is not None and found[1].sha256 == str(rows.sha256[number]):
        return found[1]
    return Video(id=str(rows.ids[number]), path="", sha256=str(rows.sha256[number]), bytes=0)

"""The labels of a feature file on their way into the store's own dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.files import display_path
from vqa_train.datasets.external.dataset import DatasetConfig, WrittenDataset, videos_of, write_dataset
from vqa_train.datasets.external.labels import FileLabels
from vqa_train.datasets.load import IMPORTED_FOLDER, imported_folder, publish_imported
from vqa_train.pipelines.importing.config import ImportConfig, ImportReport


def import_labels(
    labels: FileLabels,
    keys: Sequence[str | None],
    dataset: str,
    config: ImportConfig,
    ranges: Mapping[str, tuple[float, float]],
    report: ImportReport,
) -> None:
    """Write or extend the dataset in the store, and note in the report what became of it.

    Rows without a label are part of it; rows whose video is not known are not.

    Raises:
        LabelError: the dataset is there with other labels.
    """
    videos = [video for video, key in zip(videos_of(labels, [key or "" for key in keys]), keys, strict=True) if key]
    written = write_dataset(
        videos,
        list(labels.targets),
        DatasetConfig(
            name=dataset,
            folder=imported_folder(config.output),
            license=config.label_license,
            source=f"imported from {config.file.name}, sha256 {report.file['sha256']}",
            direction="lower_is_better" if config.lower_is_better else "higher_is_better",
            ranges=ranges,
            overwrite=config.overwrite_labels,
        ),
    )
    publish_imported(config.output)
    report.dataset = {
        "name": dataset,
        "manifest": display_path(config.output / IMPORTED_FOLDER / written.path.name),
        "state": written.state,
        "videos": written.videos,
        "license": written.manifest.license,
        "groups": len({group for group in labels.groups if group}) if labels.groups is not None else None,
        "targets": [_target(name, labels, written, ranges) for name in labels.targets],
    }


def _target(
    name: str, labels: FileLabels, written: WrittenDataset, ranges: Mapping[str, tuple[float, float]]
) -> dict[str, Any]:
    scores = labels.targets[name]
    known = scores[~np.isnan(scores)]
    mos = written.manifest.range_of(name)
    return {
        "name": name,
        "labelled": len(known),
        "missing": len(scores) - len(known),
        "observed": [float(known.min()), float(known.max())] if len(known) else None,
        "range": [mos.min, mos.max],
        "range_from": _range_from(name, (mos.min, mos.max), known, ranges),
        "direction": mos.direction,
    }


def _range_from(
    name: str, bounds: tuple[float, float], known: NDArray[np.float64], ranges: Mapping[str, tuple[float, float]]
) -> str:
    if name in ranges:
        return "given"
    return "observed" if len(known) and bounds == (known.min(), known.max()) else "kept"

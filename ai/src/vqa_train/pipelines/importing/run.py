"""import-features: features and labels that another tool wrote become a feature set and a dataset of the store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import StoreError, UsageError
from vqa_train.core.files import display_path
from vqa_train.core.hashing import sha256_file
from vqa_train.core.progress import progress
from vqa_train.core.provenance import RunProvenance, file_entry
from vqa_train.core.types import FeatureSpec, OutputSpec
from vqa_train.datasets.external.base import FeatureFile, rechunk
from vqa_train.datasets.external.keys import imported_key, keys_of_videos
from vqa_train.datasets.external.labels import FileLabels, read_labels
from vqa_train.datasets.external.open import open_feature_file
from vqa_train.datasets.load import IMPORTED_FOLDER, find_manifest, imported_folder, load_dataset
from vqa_train.pipelines.importing.columns import Resolved, check_names, ranges_of, resolve_columns
from vqa_train.pipelines.importing.config import ImportConfig, ImportReport
from vqa_train.pipelines.importing.labels import import_labels
from vqa_train.pipelines.importing.scan import Scanned, scan_features
from vqa_train.store import filesystem
from vqa_train.store.batch import RowBatch, digests
from vqa_train.store.commits import places
from vqa_train.store.layout import BACKBONE_NAME, STORE_FILE
from vqa_train.store.store import FeatureSet, FeatureStore

__all__ = ["ImportConfig", "ImportReport", "import_features"]

OUTPUT = "pooled"
_DEFINITION = 1


def import_features(config: ImportConfig) -> ImportReport:
    """Bring a feature file into a store. What is there already is left alone; a wrong file changes nothing.

    The file is read twice: once to check everything, once to write. Memory holds a block of rows, the ids and labels.

    Raises:
        UsageError: options that contradict each other or name what is not there.
        FeatureFileError: the file cannot be read as asked (names row and column).
        LabelError: the store has other labels for the dataset.
        StoreError: the set is there with another licence or, appending, other features; or a failing disk.
    """
    _check_name(config)
    file = open_feature_file(config.file)
    resolved = resolve_columns(file, config)
    ranges = ranges_of(config.mos_range, resolved.labels.targets)
    dataset = config.dataset_name
    provenance = RunProvenance(entrypoint="import-features", config=config.to_json())
    provenance.inputs["features"] = file_entry(config.file, "feature-file")
    sha256 = provenance.inputs["features"]["sha256"]
    labels = read_labels(file, resolved.labels, ranges)
    keys = _keys(labels, dataset, config)
    scanned = scan_features(file, resolved.features, len(labels), labels.targets)
    check_names(config.feature_names, scanned.dims, file)
    if sha256_file(config.file) != sha256:
        raise UsageError(f"{file.what} changed while it was read", hint="run again once it is whole")
    spec = _spec(config, resolved, scanned.dims, sha256)
    found = _find(config, spec)
    kept = found.spec if found is not None else spec
    report = ImportReport(
        file={**provenance.inputs["features"], "format": file.format},
        set=kept.set_name,
        fingerprint=kept.fingerprint,
        dims=scanned.dims,
        columns=_columns(resolved),
        rows=len(labels),
        nonfinite_rows=scanned.nonfinite_rows,
        nonfinite_values=scanned.nonfinite_values,
        beyond_float32=scanned.beyond,
        constant=scanned.constant,
        license=found.license if found is not None else config.license or "unknown",
    )
    chosen = _choose(labels, keys, scanned, report)
    rows = _Rows(file, resolved.features, keys, chosen)
    known = found.known_keys() if found is not None else set()
    if config.append and found is not None:
        _check_known(found, rows, known)
    # All that can be wrong has been looked at but for the labels, which are refused before the first row is written.
    store = FeatureStore(config.output)
    store.create()
    if labels.targets:
        import_labels(labels, keys, dataset, config, ranges, report)
    feature_set = found or store.create_set(spec, license=report.license)
    profile = {"source": file.format, **file.versions()}
    with progress("writing", len(chosen)) as advance:
        for names, values in rows.new(known):
            feature_set.append_arrays(names, {OUTPUT: values}, profile=profile, run_id=provenance.run_id)
            report.added += len(names)
            advance(len(names))
    report.known = len(chosen) - report.added
    report.notes += _notes(config, resolved, scanned, report)
    if not report.no_op:
        _record(feature_set, config, provenance, report)
    return report


def _record(feature_set: FeatureSet, config: ImportConfig, provenance: RunProvenance, report: ImportReport) -> None:
    left = {"without_features": report.without_features, "not_in_videos": report.not_in_videos}
    provenance.counts = {
        "inputs": report.rows,
        "done": report.added,
        "known": report.known,
        **{name: len(ids) for name, ids in left.items()},
        "same_video": len(report.same_video),
    }
    if report.dataset is not None:
        entry = file_entry(imported_folder(config.output) / _manifest(config).name, "dataset-manifest")
        provenance.outputs["dataset"] = {**entry, "path": display_path(_manifest(config))}
    report.run_id = provenance.run_id
    feature_set.write_run(provenance.to_json())
    feature_set.snapshot()


def _manifest(config: ImportConfig) -> Path:
    return config.output / IMPORTED_FOLDER / f"{config.dataset_name}.yaml"


def _check_name(config: ImportConfig) -> None:
    from vqa_train.backbones import BACKBONES, TEXT_ENCODERS

    # Appending, the name may be that of one of several sets: NAME@DIGITS.
    name = config.name.partition("@")[0] if config.append else config.name
    if not BACKBONE_NAME.fullmatch(name):
        raise UsageError(f"--name {config.name!r} cannot name a folder", hint="letters, digits and . _ -")
    if name in BACKBONES or name in TEXT_ENCODERS:
        raise UsageError(
            f"--name {name!r} is a backbone of vqa-train", hint="imported features need a name of their own"
        )
    dataset = config.dataset_name
    if not BACKBONE_NAME.fullmatch(dataset):
        raise UsageError(f"--dataset {dataset!r} cannot name a file", hint="letters, digits and . _ -")


def _keys(labels: FileLabels, dataset: str, config: ImportConfig) -> list[str | None]:
    """The key of each row; None for an id that the dataset of `videos` does not have."""
    if config.videos is not None:
        data = load_dataset(config.videos, data_root=config.data_root, manifests_dir=config.manifests_dir)
        # A row's video goes before a reference of the same name.
        found = keys_of_videos(labels.ids, (*data.references, *data.videos))
        if not any(found):
            raise UsageError(
                f"none of the {len(labels)} ids of {str(config.file)!r} is a video of {data.manifest.name!r}: "
                f"{labels.ids[0]!r} is one of the ids, {data.videos[0].id if data.videos else 'none'!r} of the videos"
            )
        return [video.sha256 if video is not None else None for video in found]
    folder = config.manifests_dir if config.manifests_dir is not None else Path("manifests")
    if (folder / f"{dataset}.yaml").is_file():
        path = find_manifest(dataset, config.manifests_dir)
        raise UsageError(
            f"dataset {dataset!r} has videos of its own: {str(path)!r}",
            hint=f"pass --videos {dataset} to give them these features, or another --dataset",
        )
    return [imported_key(dataset, name) for name in labels.ids]


def _spec(config: ImportConfig, resolved: Resolved, dims: int, sha256: str) -> FeatureSpec:
    names = config.feature_names or (tuple(resolved.features) if not resolved.vector and dims > 1 else None)
    return FeatureSpec(
        backbone=config.name,
        definition=_DEFINITION,
        modality="video",
        outputs=(OutputSpec(name=OUTPUT, shape=(dims,), names=names or None),),
        preprocessing={"imported": {"file_sha256": sha256, "columns": resolved.features}},
    )


def _find(config: ImportConfig, spec: FeatureSpec) -> FeatureSet | None:
    """The set that the rows go into, where it is there already; it must be as they are."""
    store = FeatureStore(config.output)
    if config.append:
        found: FeatureSet | None = FeatureStore.open(config.output).find(config.name)
    elif filesystem.exists(store.root / STORE_FILE):
        found = next((each for each in store.sets() if each.name == spec.set_name), None)
    else:
        return None
    if found is None:
        return None
    if not found.spec.imported or found.spec.outputs != spec.outputs:
        there = ", ".join(f"{o.name} {list(o.shape)}" for o in found.spec.outputs)
        what = f"holds {there}" if found.spec.imported else "was extracted by a backbone"
        raise StoreError(
            f"{found.name} {what}; {str(config.file)!r} has {OUTPUT} {list(spec.outputs[0].shape)}: not the same",
            hint="dimensions and their names must be equal; import it without --append, under another --name",
        )
    if config.license not in (None, found.license):
        raise StoreError(
            f"{found.name} holds features under licence {found.license!r}, not {config.license!r}",
            hint="write to another store, so that no model inherits the wrong licence",
        )
    return found


@dataclass(frozen=True)
class _Rows:
    """The rows of a file that are imported: `keys` per row, `chosen` row numbers."""

    file: FeatureFile
    features: Sequence[str]
    keys: Sequence[str | None]
    chosen: NDArray[np.int64]

    def new(self, known: set[str]) -> Iterator[tuple[list[str], NDArray[np.float32]]]:
        """Keys and features that are not in `known`, in blocks; the file is not read when there are none."""
        return self._pick(np.array([row for row in self.chosen.tolist() if self.keys[row] not in known], np.int64))

    def old(self, known: set[str]) -> Iterator[tuple[list[str], NDArray[np.float32]]]:
        """Keys and features that are in `known`, in blocks."""
        return self._pick(np.array([row for row in self.chosen.tolist() if self.keys[row] in known], np.int64))

    def _pick(self, rows: NDArray[np.int64]) -> Iterator[tuple[list[str], NDArray[np.float32]]]:
        if not len(rows):
            return
        start = 0
        for block in rechunk(self.file.blocks(self.features)):
            stop = start + len(block.values)
            part = rows[np.searchsorted(rows, start) : np.searchsorted(rows, stop)]
            if len(part):
                yield [str(self.keys[row]) for row in part.tolist()], block.values[part - start]
            start = stop


def _choose(
    labels: FileLabels, keys: Sequence[str | None], scanned: Scanned, report: ImportReport
) -> NDArray[np.int64]:
    """Rows that have a key and features; of rows of one video the first. The others are listed in the report."""
    chosen: list[int] = []
    seen: set[str] = set()
    for row, (key, given) in enumerate(zip(keys, scanned.given.tolist(), strict=True)):
        if key is None:
            report.not_in_videos.append(labels.ids[row])
        elif not given:
            report.without_features.append(labels.ids[row])
        elif key in seen:
            report.same_video.append(labels.ids[row])
        else:
            seen.add(key)
            chosen.append(row)
    if not chosen:
        raise UsageError(f"no row of {str(report.file['path'])!r} has features and a video to belong to")
    return np.array(chosen, dtype=np.int64)


def _check_known(feature_set: FeatureSet, rows: _Rows, known: set[str]) -> None:
    """Refuse other features for a key that the set has."""
    commits = feature_set.commits()
    for names, values in rows.old(known):
        there = places(commits, set(names))
        here = digests(feature_set.spec, RowBatch(names, [0] * len(names), {OUTPUT: values}))
        for key, digest in zip(names, here, strict=True):
            if there[key, 0].digest != digest:
                raise StoreError(
                    f"{feature_set.name} holds other features for {key[:12]} than {str(rows.file.path)!r}",
                    hint="import the file without --append: it becomes a set of its own",
                )


def _columns(resolved: Resolved) -> dict[str, Any]:
    labels = resolved.labels
    return {
        "id": labels.id,
        "features": resolved.features,
        "labels": dict(labels.targets),
        "std": dict(labels.std),
        "group": labels.group,
        "split": labels.split,
        "prompt": labels.prompt,
        "unused": resolved.unused,
    }


def _notes(config: ImportConfig, resolved: Resolved, scanned: Scanned, report: ImportReport) -> list[str]:
    notes = []
    if scanned.nonfinite_values:
        notes.append(
            f"{scanned.nonfinite_values:,} NaN or infinite values in {scanned.nonfinite_rows:,} rows, kept as published"
        )
    if scanned.beyond:
        notes.append(f"{scanned.beyond:,} values are beyond float32 and became infinite")
    if scanned.constant:
        notes.append(f"{scanned.constant:,} of {scanned.dims:,} dimensions are constant")
    if resolved.labels.id is None:
        notes.append("ids are row numbers: join only files whose rows are in the same order")
    if not resolved.labels.targets and config.videos is None:
        notes.append("no labels were read; name their column with --label")
    if report.license == "unknown":
        notes.append("the licence of the features is unknown; say it with --license on the first import")
    others = [s.name for s in FeatureStore(config.output).sets() if s.spec.backbone == config.name.partition("@")[0]]
    if len(others) > 1:
        notes.append(f"{config.name!r} names several sets here: {', '.join(others)}; recipes must say which")
    return notes

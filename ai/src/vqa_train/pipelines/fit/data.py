"""What a fit works on: the datasets joined with their features, what must not straddle, and the folds."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import ConfigError
from vqa_train.core.types import Video
from vqa_train.datasets.load import Dataset, load_dataset
from vqa_train.datasets.manifest import Direction, MosRange, SplitName
from vqa_train.datasets.protocols import FixedSplits, SplitPlan, plan_splits
from vqa_train.datasets.protocols.units import units_of
from vqa_train.datasets.splits import split_by_group
from vqa_train.heads.table import TrainingTable, build_table
from vqa_train.pipelines.fit.config import FitConfig
from vqa_train.pipelines.fit.crossfit import Fold
from vqa_train.pipelines.table import Table, join
from vqa_train.store.store import FeatureStore

DEFAULT_SPLITS: dict[SplitName, float] = {"train": 0.8, "test": 0.2}
"""Shares of the groups where neither the manifest nor its tables decide."""


@dataclass(frozen=True, kw_only=True)
class FitData:
    """Everything that training sees.

    Attributes:
        datasets: in the order named; the first one's scale is that of the predictions.
        table: N rows with features, labelled or not.
        training: the same rows for the trainer.
        units: (N,) what must not straddle training and validation.
        plan: what the protocol decided, of labelled rows.
        folds: of the plan, with rows of `table`; measured where the protocol refits, else the one that is trained.
        final: rows of the final model; `test` is what it must not see.
        splits: (N,) split of each row as the final model has it: train, val, test or "" for none.
    """

    datasets: tuple[Dataset, ...]
    table: Table
    training: TrainingTable
    units: tuple[str, ...]
    plan: SplitPlan
    folds: tuple[Fold, ...]
    final: Fold
    splits: NDArray[np.str_]

    @cached_property
    def references(self) -> dict[str, Dataset]:
        """Target -> the dataset whose scale its predictions have: the first with two different training labels."""
        found = [self.reference_of(self.final.train, column) for column in range(len(self.table.target_names))]
        return dict(zip(self.table.target_names, found, strict=True))

    def reference_of(self, rows: NDArray[np.int64], column: int) -> Dataset:
        """The dataset whose scale a head trained on `rows` predicts a target on; the first one where none fits."""
        for data in self.datasets:
            labels = self.table.targets[rows[self.rows_of(data)[rows]], column]
            if len(np.unique(labels[~np.isnan(labels)])) > 1:
                return data
        return self.datasets[0]

    def rows_of(self, data: Dataset) -> NDArray[np.bool_]:
        """(N,) the rows of one dataset."""
        name = data.manifest.name
        return np.fromiter((dataset == name for dataset in self.table.datasets), np.bool_, len(self.table.videos))

    @property
    def mos_ranges(self) -> dict[str, MosRange]:
        """Target -> scale of the predictions."""
        return {target: data.manifest.range_of(target) for target, data in self.references.items()}

    @property
    def directions(self) -> dict[str, str]:
        """Target -> which end is better."""
        return {target: scale.direction for target, scale in self.mos_ranges.items()}

    @property
    def records(self) -> int:
        """Records of all datasets, with features or without."""
        return sum(len(data.videos) for data in self.datasets)


def load_fit_data(
    config: FitConfig,
    *,
    features: Path,
    datasets: Sequence[str] = (),
    data_root: Path | None = None,
    manifests_dir: Path | None = None,
) -> FitData:
    """Load, join and split.

    Args:
        config: the recipe.
        features: the store; labels that were imported with features are found in it by name.
        datasets: names or paths, instead of the recipe's.
        data_root: where the data is; with several datasets its subfolder of a dataset's name, where there is one.
        manifests_dir: where names are looked up.

    Raises:
        ConfigError: no dataset named, unknown targets, a protocol that does not fit the rows.
        ManifestError, LabelError: a dataset that cannot be loaded.
        StoreError: the store lacks the features.
    """
    loaded = _load(config, list(datasets) or config.datasets, features, data_root, manifests_dir)
    targets = _targets(config.targets, loaded)
    _check_directions(loaded, targets)
    videos = [video for data in loaded for video in with_splits(data)]
    own = [video.split for data in loaded for video in data.videos]
    names = [data.manifest.name for data in loaded for _ in data.videos]
    table = join(
        videos,
        FeatureStore.open(features),
        config.features,
        targets,
        datasets=names,
        missing=config.missing_features,
        memory_limit=_memory_limit(config.memory_limit),
        matrix_dtype=config.matrix_dtype,
    )
    given = {(name, video.id): split for name, video, split in zip(names, videos, own, strict=True)}
    return _split(config, loaded, table, given)


def with_splits(data: Dataset) -> tuple[Video, ...]:
    """The dataset's records, each with a split: its own, or one drawn by the hash of its group.

    Videos without a group that share a reference, and that reference itself, are one group here.
    """
    named = {video.reference.path for video in data.videos if video.reference is not None}
    grouped = [replace(video, group=_content(video, named)) for video in data.videos] if named else data.videos
    drawn = split_by_group(grouped, DEFAULT_SPLITS, salt=data.manifest.name)
    return tuple(replace(video, split=found.split) for video, found in zip(data.videos, drawn, strict=True))


def _content(video: Video, references: Collection[str]) -> str | None:
    if video.group is not None:
        return video.group
    if video.reference is not None:
        return video.reference.path
    return video.path if video.path in references else None


def _load(
    config: FitConfig, names: Sequence[str], features: Path, data_root: Path | None, manifests_dir: Path | None
) -> tuple[Dataset, ...]:
    if not names:
        raise ConfigError("no dataset named", hint="set `dataset:` in the recipe or pass --dataset")

    def root(name: str) -> Path | None:
        inside = data_root / Path(name).stem if data_root is not None and len(names) > 1 else None
        return inside if inside is not None and inside.is_dir() else data_root

    loaded = tuple(
        load_dataset(
            name,
            data_root=root(name),
            manifests_dir=manifests_dir,
            missing_mos=config.missing_mos,
            stores=[features],
        )
        for name in names
    )
    known = [data.manifest.name for data in loaded]
    if len(set(known)) < len(known):
        raise ConfigError(f"a dataset is named twice: {', '.join(known)}")
    return loaded


def _targets(wanted: Sequence[str], loaded: Sequence[Dataset]) -> list[str]:
    """Targets of the recipe, or of all datasets; every dataset has at least one of them."""
    known = list(dict.fromkeys(target for data in loaded for target in data.manifest.target_names))
    targets = list(wanted) or known
    unknown = [target for target in targets if target not in known]
    if unknown:
        names = ", ".join(repr(data.manifest.name) for data in loaded)
        raise ConfigError(
            f"dataset{'s' if len(loaded) > 1 else ''} {names} {'have' if len(loaded) > 1 else 'has'} no target "
            f"{unknown[0]!r}",
            hint=f"known: {', '.join(known)}",
        )
    for data in loaded:
        if not set(targets) & set(data.manifest.target_names):
            raise ConfigError(
                f"dataset {data.manifest.name!r} has none of the targets {', '.join(targets)}",
                hint=f"it has: {', '.join(data.manifest.target_names)}",
            )
    return targets


def _check_directions(loaded: Sequence[Dataset], targets: Sequence[str]) -> None:
    """One direction for all: a map between scales rises, and one head is better at one end."""
    found: dict[Direction, list[str]] = {}
    for data in loaded:
        for target in targets:
            if target in data.manifest.target_names:
                direction = data.manifest.range_of(target).direction
                found.setdefault(direction, []).append(f"{data.manifest.name}.{target}" if len(loaded) > 1 else target)
    if len(found) > 1:
        named = "; ".join(f"{direction}: {', '.join(names)}" for direction, names in found.items())
        raise ConfigError(
            f"targets differ in direction (one is better when higher, another when lower): {named}",
            hint="fit one head per direction",
        )


def _memory_limit(gib: float | None) -> int:
    if gib is not None:
        return int(gib * (1 << 30))
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 8


def _split(
    config: FitConfig, loaded: tuple[Dataset, ...], table: Table, given: Mapping[tuple[str, str], str | None]
) -> FitData:
    protocol = config.protocol
    labelled = np.flatnonzero(table.labelled)
    rows = [_as_given(table, int(i), given, keep=isinstance(protocol, FixedSplits)) for i in labelled]
    names = [table.datasets[i] for i in labelled]
    plan = plan_splits(protocol, names, rows)
    inside = labelled[plan.positions(names, rows)]
    folds = tuple(
        Fold(name=fold.name, train=fold.train, test=fold.test, validation=fold.validation)
        for fold in plan.placed(inside)
    )
    splits = np.zeros(len(table.videos), dtype="<U16")
    if plan.protocol.refit:
        taken = np.sort(inside)
        rest = np.setdiff1d(labelled, taken)
        final = Fold(name="", train=taken, test=rest)
        splits[rest] = "test"
    else:
        fold = folds[0]
        final = Fold(name="", train=fold.train, test=fold.test, validation=fold.validation)
        if isinstance(plan.protocol, FixedSplits):
            splits[:] = [video.split or "" for video in table.videos]
        splits[fold.test] = "test"
    splits[final.train], splits[final.validation] = "train", "val"
    units = units_of(table.datasets, table.videos)
    return FitData(
        datasets=loaded,
        table=table,
        training=build_table(
            table.features,
            table.targets,
            table.target_names,
            units,
            table.row_keys,
            datasets=table.datasets,
            target_std=table.target_std,
        ),
        units=tuple(units),
        plan=plan,
        folds=folds if plan.protocol.refit else (),
        final=final,
        splits=splits,
    )


def _as_given(table: Table, row: int, given: Mapping[tuple[str, str], str | None], *, keep: bool) -> Video:
    """A record with the split that its dataset says, or, with `keep`, the one drawn for it too."""
    video = table.videos[row]
    return video if keep else replace(video, split=given[table.datasets[row], video.id])

"""Where the drift gate looks: the sums in commit files, rows of a whole feature set, or rows of datasets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import ModelError, StoreError, UsageError
from vqa_train.core.plugins import did_you_mean
from vqa_train.datasets.load import load_dataset
from vqa_train.pipelines.gates.drift_columns import Observed, least_moved
from vqa_train.pipelines.table import FeatureInput, join, rows_of
from vqa_train.registry.facts import InputStatistics
from vqa_train.registry.sidecar import ModelInput, ModelSidecar
from vqa_train.store import filesystem
from vqa_train.store.index import RowIndex
from vqa_train.store.layout import SNAPSHOTS, TAGS
from vqa_train.store.records import ShardCommit
from vqa_train.store.rows import num_views
from vqa_train.store.snapshot import read_snapshot
from vqa_train.store.store import FeatureSet, FeatureStore
from vqa_train.store.tags import commits_at, read_tag

Block = Mapping[str, NDArray[np.float32]]
# Bytes of features that are held at once; larger ones stay in a file.
_MEMORY = 1 << 30
_BLOCK = 1 << 26


@dataclass
class Rows:
    """Rows that all inputs have, in blocks.

    Attributes:
        blocks: input name -> float32 (n, *shape), NaN where missing.
        groups: different contents among them.
        group_of: content of each row in the order of the blocks; empty where it is not known.
        lacking: records that are asked for and have no features.
        records: records that are asked for.
        inputs: what was read: dataset name -> manifest.
    """

    blocks: Iterator[Block]
    groups: int
    group_of: Sequence[str] = ()
    lacking: int = 0
    records: int = 0
    inputs: dict[str, Path] = field(default_factory=dict)


def sets_of(sidecar: ModelSidecar, store: FeatureStore) -> dict[str, FeatureSet]:
    """Input name -> its feature set.

    Raises:
        ModelError: the store has no features of one of the fingerprints.
    """
    there = {found.fingerprint: found for found in store.sets()}
    for item in sidecar.inputs:
        if item.fingerprint not in there:
            names = ", ".join(sorted(found.name for found in there.values())) or "nothing"
            raise ModelError(
                f"model {sidecar.name!r} takes {item.backbone}@{item.fingerprint[:12]}, the store has {names}",
                hint="extract with the version and settings of the backbone that the model was trained on",
            )
    return {item.name: there[item.fingerprint] for item in sidecar.inputs}


def whole_set(found: FeatureSet, tag: str | None) -> list[ShardCommit]:
    """Commits of a set as they are, or as a tag keeps them.

    Raises:
        StoreError: no such tag, a damaged commit, or no rows.
    """
    if tag is None:
        commits = found.commits()
    else:
        names = [name.removesuffix(".json") for name in filesystem.names(found.folder / TAGS, ".json")]
        if tag not in names:
            raise StoreError(f"{found.name} has no tag {tag!r}", hint=did_you_mean(tag, names))
        record = read_tag(found.folder, tag)
        commits = list(commits_at(found.folder, read_snapshot(found.folder / SNAPSHOTS / f"{record.snapshot}.json")))
    if not commits:
        raise StoreError(f"{found.name} has no rows{f' under tag {tag!r}' if tag else ''}")
    return commits


def from_sums(
    found: FeatureSet,
    item: ModelInput,
    commits: Sequence[ShardCommit],
    training: InputStatistics,
    rows_per_group: float,
) -> Observed | None:
    """One input from the sums of commit files, without reading a row.

    Commit files do not say which rows are of one content: so many as in training.

    None where the sums are not those of the rows that a head gets: several views, an output over time, rows that stand
    twice, values that are missing.
    """
    index = RowIndex.of(commits)
    exact = num_views(found.spec) == 1 and index.num_rows() == len(index)
    sums = [commit.statistics.get(item.output) for commit in commits]
    if not exact or any(s is None or s.n != commit.rows for s, commit in zip(sums, commits, strict=True)):
        return None
    known = [s for s in sums if s is not None]
    rows = sum(s.n for s in known)
    mean = np.sum([s.sum for s in known], axis=0) / rows
    # The difference of two large numbers has no more digits than they have.
    square = np.sum([s.sum_of_squares for s in known], axis=0) / rows
    variance = np.where(square - mean**2 > 1e-12 * square, square - mean**2, 0.0)
    std = np.sqrt(variance)
    return Observed(
        source="sums",
        rows=rows,
        groups=round(rows / rows_per_group),
        mean=mean,
        std=std,
        count=np.full(len(mean), float(rows)),
        moved=least_moved(mean, std, training),
    )


def input_rows(found: FeatureSet, output: str, keys: Sequence[str]) -> Iterator[NDArray[np.float32]]:
    """Blocks (n, *shape) of one output of some keys, averaged over the views."""
    views, size = num_views(found.spec), 4 * int(np.prod(found.spec.output(output).shape))
    if len(keys) * size > _MEMORY:
        matrix = found.mapped(output, keys)
        for index in _blocks(len(keys), size):
            yield rows_of(matrix, index)
        return
    # Views in double precision, as the training table averages them.
    total = found.matrix(output, keys).astype(np.float64)
    for view in range(1, views):
        total += found.matrix(output, keys, view=view)
    yield (total / views).astype(np.float32)


def keys_of(commits: Sequence[ShardCommit], found: FeatureSet) -> list[str]:
    """Keys with every view, sorted: by hash, so any first part of them is a random one."""
    return sorted(RowIndex.of(commits).known_keys(num_views(found.spec)))


def rows_of_sets(
    sidecar: ModelSidecar,
    sets: Mapping[str, FeatureSet],
    commits: Mapping[str, Sequence[ShardCommit]],
    rows: int,
    rows_per_group: float,
) -> Rows:
    """The first `rows` keys, by hash, that every set has; 0 for all.

    Raises:
        UsageError: a text goes into the model, and a store does not say which text belongs to which video.
    """
    if sidecar.takes_prompt:
        raise UsageError(
            f"model {sidecar.name!r} takes a prompt, and a store does not say which belongs to which video",
            hint="name the rows with --dataset",
        )
    keys = sorted(set.intersection(*(set(keys_of(commits[name], found)) for name, found in sets.items())))
    keys = keys[:rows] if rows else keys

    def blocks() -> Iterator[Block]:
        size = 4 * sum(int(np.prod(item.dims)) for item in sidecar.inputs)
        for index in _blocks(len(keys), size, _MEMORY):
            some = [keys[i] for i in index]
            yield {
                item.name: np.concatenate(list(input_rows(sets[item.name], item.output, some)))
                for item in sidecar.inputs
            }

    return Rows(blocks(), groups=round(len(keys) / rows_per_group), records=len(keys))


def rows_of_datasets(
    sidecar: ModelSidecar,
    store: FeatureStore,
    names: Sequence[str],
    *,
    data_root: Path | None = None,
    manifests_dir: Path | None = None,
) -> Rows:
    """The records of some datasets that have features; one without a whole input is NaN there where the model bears it.

    Raises:
        StoreError: none of a dataset's records has features.
    """
    inputs = {i.name: FeatureInput(set=i.fingerprint, output=i.output, of=i.of) for i in sidecar.inputs}
    tables, records, paths = [], 0, {}
    for name in names:
        data = load_dataset(name, data_root=data_root, manifests_dir=manifests_dir, stores=[store.root])
        paths[f"dataset {data.manifest.name}"] = data.path
        records += len(data.videos)
        masked = bool(sidecar.optional_inputs)
        tables.append(
            join(
                data.videos,
                store,
                inputs,
                sidecar.targets,
                missing="mask" if masked else "drop",
                memory_limit=None if masked else _MEMORY,
            )
        )

    def blocks() -> Iterator[Block]:
        size = 4 * sum(int(np.prod(item.dims)) for item in sidecar.inputs)
        for table in tables:
            for index in _blocks(len(table.videos), size):
                yield {name: rows_of(matrix, index) for name, matrix in table.features.items()}

    group_of = [group for table in tables for group in table.groups]
    lacking = sum(len(table.without_features) for table in tables)
    return Rows(blocks(), len(set(group_of)), group_of, lacking, records, paths)


def _blocks(rows: int, row_bytes: int, size: int = _BLOCK) -> Iterator[NDArray[np.int64]]:
    step = max(1, size // row_bytes)
    for start in range(0, rows, step):
        yield np.arange(start, min(start + step, rows))

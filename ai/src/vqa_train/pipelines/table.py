"""The training table: videos of one or several datasets joined with their features in a store, by sha256."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vqa_train.core.config import StrictModel
from vqa_train.core.errors import ConfigError, StoreError, UsageError
from vqa_train.core.hashing import sha256_bytes
from vqa_train.core.types import FeatureSpec, Video
from vqa_train.pipelines.fit.run_features import RowsRead, rows_read
from vqa_train.store.store import FeatureSet, FeatureStore

if TYPE_CHECKING:
    from vqa_train.store.mapped import MappedMatrix

MissingFeatures = Literal["drop", "mask"]


Whose = Literal["reference"]
_OF_REFERENCE = "@reference"


class FeatureInput(StrictModel):
    """One named input of a head.

    Attributes:
        set: which feature set: `nss`, `nss@<fingerprint prefix>`.
        output: which of its outputs.
        of: `reference` for the features of each record's reference; None for those of the record itself. Left out of
            the JSON where None.
    """

    set: str
    output: str = "pooled"
    of: Whose | None = Field(default=None, exclude_if=lambda value: value is None)


def parse_inputs(values: Sequence[str]) -> dict[str, FeatureInput]:
    """Inputs written as `NAME=SET[:OUTPUT][@reference]`. A fingerprint is hexadecimal, so `@reference` is never one.

    Raises:
        UsageError: another form, or a name twice.
    """
    inputs: dict[str, FeatureInput] = {}
    for value in values:
        name, _, rest = value.partition("=")
        whose: Whose | None = "reference" if rest.endswith(_OF_REFERENCE) else None
        found, colon, output = rest.removesuffix(_OF_REFERENCE).partition(":")
        if not name or not found or (colon and not output) or "@" in output:
            raise UsageError(
                f"--input {value!r} is not NAME=SET[:OUTPUT][@reference]",
                hint="for example features=nss:pooled, and pristine=nss:pooled@reference beside it",
            )
        if name in inputs:
            raise UsageError(f"--input names {name!r} twice", hint="give each input a name of its own")
        inputs[name] = FeatureInput(set=found, output=output or "pooled", of=whose)
    return inputs


@dataclass(frozen=True)
class Table:
    """Rows that have the features asked for, in the order of the records, or of `row_keys` where a file holds them.

    Attributes:
        videos: the N records.
        features: input name -> float32 (N, D) or (N, T, D); a `MappedMatrix` where memory is too small for them.
        targets: float32 (N, K); NaN where an opinion score is missing.
        target_names: K names.
        specs: input name -> identity of its features.
        licenses: input name -> licence that travels with them.
        without_features: ids of records that were left out for want of features (counted).
        datasets: N names.
        target_std: float32 (N, K) standard deviation of the opinions, NaN where unknown; None where all are.
        masked: input name -> rows that lack it and have NaN in its place.
        read: input name -> which rows of which shards the join read.
    """

    videos: tuple[Video, ...]
    features: Mapping[str, NDArray[np.float32] | MappedMatrix]
    targets: NDArray[np.float32]
    target_names: tuple[str, ...]
    specs: Mapping[str, FeatureSpec]
    licenses: Mapping[str, str]
    without_features: tuple[str, ...]
    datasets: tuple[str, ...] = ()
    target_std: NDArray[np.float32] | None = None
    masked: Mapping[str, int] = field(default_factory=dict)
    read: Mapping[str, RowsRead] = field(default_factory=dict)

    @property
    def keys(self) -> list[str]:
        """Video hashes, N."""
        return [video.sha256 for video in self.videos]

    @property
    def row_keys(self) -> list[str]:
        """A name of each row made of content, N different ones."""
        return _row_keys(self.datasets, self.videos)

    @property
    def groups(self) -> list[str]:
        """What must not straddle a split, N: the record's group, or its own hash where it has none."""
        return [video.group or video.sha256 for video in self.videos]

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """(N,) rows with at least one opinion score."""
        return np.asarray(~np.isnan(self.targets).all(axis=1))

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """The features in memory.

        Raises:
            ConfigError: they are in a file.
        """
        found = {name: matrix for name, matrix in self.features.items() if isinstance(matrix, np.ndarray)}
        if len(found) < len(self.features):
            raise ConfigError("the features are in a file, not in memory", hint="raise the memory limit")
        return found

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> Table:
        """The table with only these rows, in this order, in memory."""
        index = np.asarray(rows, dtype=np.int64)
        return replace(
            self,
            videos=tuple(self.videos[i] for i in index),
            features={name: rows_of(matrix, index) for name, matrix in self.features.items()},
            targets=self.targets[index],
            datasets=tuple(self.datasets[i] for i in index) if self.datasets else (),
            target_std=None if self.target_std is None else self.target_std[index],
        )


def rows_of(matrix: NDArray[np.float32] | MappedMatrix, index: NDArray[np.int64]) -> NDArray[np.float32]:
    """Some rows of a feature as float32, in this order."""
    taken = matrix[index] if isinstance(matrix, np.ndarray) else matrix.rows(index)
    return np.asarray(taken, dtype=np.float32)


def feature_key(spec: FeatureSpec, video: Video, of: Whose | None = None) -> str | None:
    """The key of a record in a feature set: hash of its bytes, its reference's or its prompt's; None without one."""
    if of == "reference":
        return video.reference.sha256 if video.reference is not None else None
    if spec.modality == "video":
        return video.sha256
    return sha256_bytes(video.prompt.encode("utf-8")) if video.prompt and video.prompt.strip() else None


def join(
    videos: Sequence[Video],
    store: FeatureStore,
    inputs: Mapping[str, FeatureInput],
    targets: Sequence[str],
    *,
    datasets: Sequence[str] = (),
    missing: MissingFeatures = "drop",
    memory_limit: int | None = None,
    matrix_dtype: Literal["float32", "float16"] = "float32",
) -> Table:
    """Join records with features.

    Args:
        videos: records; those of several datasets one after the other.
        store: where the features are.
        inputs: input name -> feature set and output.
        targets: columns of the labels.
        datasets: (N,) name of each record's dataset; empty for one dataset.
        missing: a record that lacks some features: `drop` leaves it out; `mask` keeps it with NaN in their place, as
            long as it has any.
        memory_limit: bytes; larger features stay in a file and the rows come in the order of their keys. None: never.
        matrix_dtype: of that file.

    Raises:
        StoreError: a feature set is missing or ambiguous, or no record has all features.
        ConfigError: an output that is unknown or has more than two dimensions, records masked in a file, or features
            of text that are to be a reference's.
    """
    sets = {name: store.find(selector.set) for name, selector in inputs.items()}
    for name, found in sets.items():
        _check_input(name, found, inputs[name])
    keys = {name: [feature_key(found.spec, video, inputs[name].of) for video in videos] for name, found in sets.items()}
    known = {name: found.known_keys() for name, found in sets.items()}
    need = all if missing == "drop" else any
    kept = [i for i in range(len(videos)) if need(keys[name][i] in known[name] for name in sets)]
    if not kept:
        _refuse_without_references(videos, inputs)
        names = ", ".join(found.name for found in sets.values())
        raise StoreError(
            f"none of the {len(videos)} videos has features in {'all' if missing == 'drop' else 'any'} of: {names}",
            hint="run `vqa-train extract-features` for this dataset and these backbones first",
        )
    shapes = {name: found.spec.output(inputs[name].output).shape for name, found in sets.items()}
    in_file = memory_limit is not None and 4 * len(kept) * sum(map(prod, shapes.values())) > memory_limit
    if in_file:
        named = _row_keys(datasets, videos)
        kept.sort(key=lambda i: named[i])
    features: dict[str, NDArray[np.float32] | MappedMatrix] = {}
    masked, read = {}, {}
    for name, found in sets.items():
        wanted = [key if (key := keys[name][i]) in known[name] else None for i in kept]
        masked[name] = wanted.count(None)
        read[name] = rows_read(found, [key for key in wanted if key is not None])
        features[name] = (
            _mapped(found, inputs[name].output, wanted, matrix_dtype)
            if in_file
            else _matrix(found, inputs[name].output, wanted)
        )
    left_out = set(range(len(videos))).difference(kept)
    rows = tuple(videos[i] for i in kept)
    std = _per_target([video.label_std for video in rows], targets)
    return Table(
        videos=rows,
        features=features,
        targets=_per_target([video.labels for video in rows], targets),
        target_names=tuple(targets),
        specs={name: found.spec for name, found in sets.items()},
        licenses={name: found.license for name, found in sets.items()},
        without_features=tuple(videos[i].id for i in sorted(left_out)),
        datasets=tuple(datasets[i] for i in kept) if datasets else (),
        target_std=None if np.isnan(std).all() else std,
        masked={name: count for name, count in masked.items() if count},
        read=read,
    )


def _row_keys(datasets: Sequence[str], videos: Sequence[Video]) -> list[str]:
    """Rows of the dataset that was named first come first, also when they are sorted by key."""
    number = {name: i for i, name in enumerate(dict.fromkeys(datasets))}
    if len(number) < 2:
        return [f"{video.sha256}/{video.id}" for video in videos]
    return [f"{number[dataset]:04d}/{video.sha256}/{video.id}" for dataset, video in zip(datasets, videos, strict=True)]


def _per_target(values: Sequence[Mapping[str, float]], targets: Sequence[str]) -> NDArray[np.float32]:
    rows = [[row.get(target, np.nan) for target in targets] for row in values]
    return np.asarray(rows, dtype=np.float32).reshape(len(values), len(targets))


def _refuse_without_references(videos: Sequence[Video], inputs: Mapping[str, FeatureInput]) -> None:
    named = [name for name, selector in inputs.items() if selector.of == "reference"]
    if named and all(video.reference is None for video in videos):
        raise StoreError(
            f"input {named[0]!r} is of the reference, and none of the {len(videos)} videos has one",
            hint="name the column with `vqa-train datasets scan --reference-column`",
        )


def _check_input(name: str, feature_set: FeatureSet, selector: FeatureInput) -> None:
    if selector.of == "reference" and feature_set.spec.modality != "video":
        raise ConfigError(
            f"input {name!r} is of the reference, and {feature_set.name} has features of {feature_set.spec.modality}",
            hint="a reference is a video; leave `of` (or @reference) out",
        )
    output = selector.output
    shape = feature_set.spec.output(output).shape
    if len(shape) not in (1, 2):
        raise ConfigError(
            f"output {output!r} of {feature_set.name} has shape {list(shape)}, a head takes vectors or vectors over "
            f"time",
            hint="choose an output with one dimension, such as `pooled`, or two",
        )


def _matrix(feature_set: FeatureSet, output: str, keys: Sequence[str | None]) -> NDArray[np.float32]:
    """One output as (N, D) or (N, T, D), averaged over the views; NaN where there is no key."""
    spec = feature_set.spec
    there = np.asarray([i for i, key in enumerate(keys) if key is not None], dtype=np.int64)
    known = [key for key in keys if key is not None]
    views = spec.sampling.views if spec.sampling else 1
    found = feature_set.matrix(output, known)
    if views > 1:
        total = found.astype(np.float64)
        for view in range(1, views):
            total += feature_set.matrix(output, known, view=view)
        found = (total / views).astype(np.float32)
    if len(there) == len(keys):
        return found
    matrix = np.full((len(keys), *spec.output(output).shape), np.nan, dtype=np.float32)
    matrix[there] = found
    return matrix


def _mapped(
    feature_set: FeatureSet, output: str, keys: Sequence[str | None], dtype: Literal["float32", "float16"]
) -> Any:
    known = [key for key in keys if key is not None]
    if len(known) < len(keys):
        raise ConfigError(
            f"{len(keys) - len(known)} records lack {feature_set.name}, and features that stay in a file cannot be "
            f"masked",
            hint="set missing_features: drop, or raise the memory limit",
        )
    return feature_set.mapped(output, known, dtype=dtype)

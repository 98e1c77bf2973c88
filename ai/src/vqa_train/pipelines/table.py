"""The training table: videos of a dataset joined with their features in a store, by sha256."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.config import StrictModel
from vqa_train.core.errors import ConfigError, StoreError
from vqa_train.core.hashing import sha256_bytes
from vqa_train.core.types import FeatureSpec, Video
from vqa_train.store.store import FeatureSet, FeatureStore


class FeatureInput(StrictModel):
    """One named input of a head: which feature set (`nss`, `nss@<fingerprint prefix>`) and which of its outputs."""

    set: str
    output: str = "pooled"


@dataclass(frozen=True)
class Table:
    """Rows that have every feature asked for, in the dataset's order.

    Attributes:
        videos: the N records.
        features: input name -> float32 (N, D).
        targets: float32 (N, K); NaN where an opinion score is missing.
        target_names: K names.
        specs: input name -> identity of its features.
        licenses: input name -> licence that travels with them.
        without_features: ids of records that lack at least one feature (left out, counted).
    """

    videos: tuple[Video, ...]
    features: Mapping[str, NDArray[np.float32]]
    targets: NDArray[np.float32]
    target_names: tuple[str, ...]
    specs: Mapping[str, FeatureSpec]
    licenses: Mapping[str, str]
    without_features: tuple[str, ...]

    @property
    def keys(self) -> list[str]:
        """Video hashes, N."""
        return [video.sha256 for video in self.videos]

    @property
    def groups(self) -> list[str]:
        """What must not straddle a split, N: the record's group, or its own hash where it has none."""
        return [video.group or video.sha256 for video in self.videos]

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> Table:
        """The table with only these rows, in this order."""
        index = np.asarray(rows, dtype=np.int64)
        return Table(
            videos=tuple(self.videos[i] for i in index),
            features={name: matrix[index] for name, matrix in self.features.items()},
            targets=self.targets[index],
            target_names=self.target_names,
            specs=self.specs,
            licenses=self.licenses,
            without_features=self.without_features,
        )


def feature_key(spec: FeatureSpec, video: Video) -> str | None:
    """The key of a video in a feature set: its bytes' hash, or its prompt's; None for a video without prompt."""
    if spec.modality == "video":
        return video.sha256
    return sha256_bytes(video.prompt.encode("utf-8")) if video.prompt and video.prompt.strip() else None


def join(
    videos: Sequence[Video],
    store: FeatureStore,
    inputs: Mapping[str, FeatureInput],
    targets: Sequence[str],
) -> Table:
    """Join records with features; records that lack a feature are left out and listed.

    Raises:
        StoreError: a feature set is missing or ambiguous, or no record has all features.
        ConfigError: an output that is unknown or not a vector.
    """
    sets = {name: store.find(selector.set) for name, selector in inputs.items()}
    keys = {name: [feature_key(found.spec, video) for video in videos] for name, found in sets.items()}
    known = {name: found.known_keys() for name, found in sets.items()}
    complete = [i for i in range(len(videos)) if all(keys[name][i] in known[name] for name in sets)]
    kept = set(complete)
    if not complete:
        names = ", ".join(found.name for found in sets.values())
        raise StoreError(
            f"none of the {len(videos)} videos has features in all of: {names}",
            hint="run `vqa-train extract-features` for this dataset and these backbones first",
        )
    features = {
        name: _matrix(found, inputs[name].output, [str(keys[name][i]) for i in complete])
        for name, found in sets.items()
    }
    rows = tuple(videos[i] for i in complete)
    labels = [[video.labels.get(target, np.nan) for target in targets] for video in rows]
    return Table(
        videos=rows,
        features=features,
        targets=np.asarray(labels, dtype=np.float32).reshape(len(rows), len(targets)),
        target_names=tuple(targets),
        specs={name: found.spec for name, found in sets.items()},
        licenses={name: found.license for name, found in sets.items()},
        without_features=tuple(video.id for i, video in enumerate(videos) if i not in kept),
    )


def _matrix(feature_set: FeatureSet, output: str, keys: Sequence[str]) -> NDArray[np.float32]:
    """One output as (N, D), averaged over the views."""
    spec = feature_set.spec
    shape = spec.output(output).shape
    if len(shape) != 1:
        raise ConfigError(
            f"output {output!r} of {feature_set.name} has shape {list(shape)}, a head takes vectors",
            hint="choose an output with one dimension, such as `pooled`",
        )
    views = spec.sampling.views if spec.sampling else 1
    total = np.zeros((len(keys), shape[0]), dtype=np.float64)
    for view in range(views):
        total += feature_set.matrix(output, keys, view=view)
    return (total / views).astype(np.float32)

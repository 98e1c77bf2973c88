"""Rows of a feature store as a model's inputs; imports no torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import StoreError
from vqa_train.pipelines.gates.drift_rows import input_rows, sets_of
from vqa_train.registry.sidecar import ModelSidecar
from vqa_train.store.rows import num_views
from vqa_train.store.store import FeatureStore


def store_rows(sidecar: ModelSidecar, features: Path, limit: int) -> dict[str, NDArray[np.float32]]:
    """Input name -> float32 (N, *shape) of at most `limit` rows, first by the hash of their key.

    Features of a video have the same key in every set. Those of a text or of a reference video have keys of their own
    and are paired with the rest in order: rows that no video has, made of numbers as they occur.

    Raises:
        ModelError: the store lacks a feature set.
        StoreError: no video has every input.
    """
    sets = sets_of(sidecar, FeatureStore.open(features))
    known = {name: set(found.known_keys(num_views(found.spec))) for name, found in sets.items()}
    videos = [item.name for item in sidecar.inputs if item.modality == "video" and item.of is None]
    shared = set.intersection(*(known[name] for name in videos)) if videos else set()
    keys = {name: sorted(shared if name in videos else found) for name, found in known.items()}
    count = min([limit, *(len(found) for found in keys.values())])
    if not count:
        raise StoreError(f"{str(features)!r} has no video with every input of model {sidecar.name!r}")
    return {
        item.name: np.concatenate(list(input_rows(sets[item.name], item.output, keys[item.name][:count])))
        for item in sidecar.inputs
    }

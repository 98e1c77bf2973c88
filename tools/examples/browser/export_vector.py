"""Put a registered model and one stored feature vector where the page can fetch them.

    pip install 'vqa-train[store]'   # no torch
    python export_vector.py MODEL STORE [--video SHA256] [--registry model] [--output data]

Writes OUTPUT/model.onnx and OUTPUT/model.json as they are registered, OUTPUT/registered.json with the registry's hash of
model.json, and OUTPUT/vector.json: the features of one video (by default the first) for each input, each with the
fingerprint of the feature set that it was read from. MODEL takes features of videos alone, since a page has no text encoder.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from vqa_train.core.errors import StoreError, UsageError, VqaError
from vqa_train.core.hashing import sha256_file
from vqa_train.registry.locate import locate
from vqa_train.registry.sidecar import SIDECAR_FILE, ModelSidecar
from vqa_train.store.rows import num_views
from vqa_train.store.store import FeatureStore


def vector_of(sidecar: ModelSidecar, store: FeatureStore, video: str | None) -> dict[str, Any]:
    """What the page reads as vector.json; a video of several views counts as their mean, as in training."""
    sets = {feature_set.fingerprint: feature_set for feature_set in store.sets()}
    inputs: dict[str, Any] = {}
    for item in sidecar.inputs:
        if item.modality != "video" or item.of is not None:
            raise UsageError(f"input {item.name!r} of {sidecar.name!r} is not a feature of the video itself")
        if item.fingerprint not in sets:
            raise StoreError(f"the store has no features with the fingerprint {item.fingerprint[:12]} of {item.name!r}")
        found = sets[item.fingerprint]
        video = video or min(found.known_keys())
        views = [found.matrix(item.output, [video], view=view)[0] for view in range(num_views(found.spec))]
        inputs[item.name] = {
            "fingerprint": found.fingerprint,
            "dims": list(item.dims),
            "values": np.mean(views, axis=0, dtype=np.float32).ravel().tolist(),
        }
    return {"video_sha256": video, "inputs": inputs}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="NAME, NAME:VERSION, NAME@ALIAS, a model's folder or a bundle")
    parser.add_argument("store", type=Path)
    parser.add_argument("--video", help="sha256 of the video's bytes (default: the first in the store)")
    parser.add_argument("--registry", type=Path, default=Path("model"))
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "data")
    options = parser.parse_args()
    try:
        sidecar, folder = locate(options.model, options.registry)
        vector = vector_of(sidecar, FeatureStore.open(options.store), options.video)
    except VqaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    options.output.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / sidecar.onnx.file, options.output / "model.onnx")
    shutil.copyfile(folder / SIDECAR_FILE, options.output / "model.json")
    registered = {"sidecar_sha256": sha256_file(folder / SIDECAR_FILE)}
    (options.output / "registered.json").write_text(json.dumps(registered))
    (options.output / "vector.json").write_text(json.dumps(vector, allow_nan=False))
    print(
        f"wrote {sidecar.name}:{sidecar.version} and the features of {vector['video_sha256'][:12]} to {options.output}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A small feature spec, rows of known content, and a store to put them in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vqa_train.core.hashing import seed_from, sha256_bytes
from vqa_train.core.types import FeatureSpec, OutputSpec, Sampling
from vqa_train.store.rows import FeatureRow
from vqa_train.store.store import FeatureSet, FeatureStore

MakeRow = Callable[..., FeatureRow]


@pytest.fixture
def spec() -> FeatureSpec:
    """A video backbone with a pooled vector, a matrix over time and a number; two views."""
    return FeatureSpec(
        backbone="nss",
        definition=1,
        modality="video",
        outputs=(
            OutputSpec(name="pooled", shape=(4,), names=("a", "b", "c", "d")),
            OutputSpec(name="tokens", shape=(3, 2)),
            OutputSpec(name="sharpness", shape=()),
        ),
        sampling=Sampling(mode="uniform", n=8, views=2),
    )


@pytest.fixture
def text_spec() -> FeatureSpec:
    """A text encoder with one vector."""
    return FeatureSpec(
        backbone="bge-small-en-v1.5",
        definition=1,
        modality="text",
        outputs=(OutputSpec(name="pooled", shape=(8,)),),
        weights_sha256="0" * 64,
    )


@pytest.fixture
def make_row() -> MakeRow:
    """`make_row(spec, number, view=0, variant=0)`: content decided by its arguments alone."""

    def make(spec: FeatureSpec, number: int, view: int = 0, variant: int = 0) -> FeatureRow:
        rng = np.random.default_rng(seed_from("row", number, view, variant))
        facts = {
            "num_frames": 24 + number,
            "fps": 24.0,
            "width": 128,
            "height": 96,
            "duration_s": (24 + number) / 24,
            "codec": "h264",
            "decoder": f"pyav {variant}",
        }
        return FeatureRow(
            key=sha256_bytes(str(number).encode()),
            view=view,
            outputs={o.name: np.asarray(rng.normal(size=o.shape), dtype=np.float32) for o in spec.outputs},
            facts=facts if spec.modality == "video" else {},
        )

    return make


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the store of a test is."""
    return tmp_path / "store"


@pytest.fixture
def features(root: Path, spec: FeatureSpec) -> FeatureSet:
    """An empty feature set of `spec`."""
    return FeatureStore(root).create_set(spec, license="Apache-2.0")

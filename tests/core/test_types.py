from typing import Any

import numpy as np
import pytest

from vqa_train.core.errors import ConfigError
from vqa_train.core.hashing import canonical_json, sha256_bytes
from vqa_train.core.types import Clip, FeatureSpec, OutputSpec, Sampling

SPEC = FeatureSpec(
    backbone="demo",
    definition=1,
    modality="video",
    sampling=Sampling(mode="uniform", n=4, burst=2),
    outputs=(OutputSpec(name="pooled", shape=(2,), names=("a", "b")), OutputSpec(name="temporal", shape=(4, 2))),
    preprocessing={"resize": None},
)


def test_spec_survives_json() -> None:
    assert FeatureSpec.from_json(SPEC.to_json()) == SPEC
    assert FeatureSpec.from_json(SPEC.to_json()).fingerprint == SPEC.fingerprint


def test_fingerprint_is_the_hash_of_this_very_text() -> None:
    text = (
        '{"backbone":"demo","definition":1,"modality":"video","outputs":[{"name":"pooled","names":["a","b"],"shape":[2]},'
        '{"name":"temporal","shape":[4,2]}],"preprocessing":{"resize":null},"sampling":{"burst":2,"mode":"uniform","n":4,'
        '"short":"hold","views":1},"schema":"vqa-train/feature-spec/1","weights":{"random_seed":null,"sha256":null}}'
    )
    assert canonical_json(SPEC.to_json()) == text
    assert SPEC.fingerprint == sha256_bytes(text.encode())
    assert SPEC.set_name == f"demo@{SPEC.fingerprint[:12]}"


@pytest.mark.parametrize(
    "change",
    [
        {"definition": 2},
        {"weights_sha256": "0" * 64},
        {"random_seed": 0},
        {"sampling": Sampling(mode="uniform", n=5, burst=2)},
        {"preprocessing": {"resize": 224}},
    ],
)
def test_any_change_of_meaning_changes_the_fingerprint(change: dict[str, Any]) -> None:
    fields = {name: getattr(SPEC, name) for name in SPEC.__dataclass_fields__}
    assert FeatureSpec(**{**fields, **change}).fingerprint != SPEC.fingerprint


def test_spec_of_a_newer_schema_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"feature-spec/2.*install"):
        FeatureSpec.from_json({**SPEC.to_json(), "schema": "vqa-train/feature-spec/2"})
    with pytest.raises(ConfigError, match="malformed"):
        FeatureSpec.from_json({k: v for k, v in SPEC.to_json().items() if k != "weights"})


def test_unknown_output_lists_those_there_are() -> None:
    with pytest.raises(ConfigError, match="no output 'x' - it has: pooled, temporal"):
        SPEC.output("x")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "uniform", "n": 0}, "n must be at least 1, got 0"),
        ({"mode": "fps", "n": 8}, "'fps' needs rate"),
        ({"mode": "uniform", "n": 8, "seconds": 2.0}, "'uniform' does not take seconds"),
        ({"mode": "duration", "n": 8, "seconds": -1.0}, "seconds must be positive"),
        ({"mode": "uniform", "n": 8, "burst": 4, "decode_budget": 31}, "at least n \\* burst = 32, got 31"),
    ],
)
def test_sampling_that_means_nothing_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Sampling(**arguments)


def test_clip_shows_shapes_not_pixels() -> None:
    clip = Clip(
        frames=np.zeros((2, 4, 6, 3), np.uint8), times=np.zeros(2), indices=np.zeros(2, np.int64), fps=25.0,
        num_frames=50, duration_s=2.0, width=6, height=4, codec="h264", decoder="x",
    )  # fmt: skip
    assert repr(clip) == "Clip(frames=(2, 4, 6, 3) uint8, fps=25, duration_s=2, codec='h264', decoder='x')"

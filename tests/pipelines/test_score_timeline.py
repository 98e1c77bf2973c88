"""Which features a second of a video is given: refused where it is not known, and as the backbone itself would pool."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from vqa_train.backbones import nss
from vqa_train.core.errors import ModelError, UsageError
from vqa_train.core.types import FeatureSpec, OutputSpec, Sampling
from vqa_train.pipelines.score.seconds import Seconds, shares
from vqa_train.pipelines.score.timeline import Columns, columns_of, moved
from vqa_train.registry.sidecar import ModelInput

SPEC = FeatureSpec(
    backbone="steps",
    definition=1,
    modality="video",
    outputs=(
        OutputSpec(name="pooled", shape=(3,)),
        OutputSpec(name="temporal", shape=(4, 3)),
        OutputSpec(name="spatial_std", shape=(3,)),
    ),
    sampling=Sampling(mode="uniform", n=8),
)


def item(spec: FeatureSpec, output: str = "pooled") -> ModelInput:
    shape = spec.output(output).shape
    return ModelInput(
        name="look", modality=spec.modality, backbone=spec.backbone, fingerprint=spec.fingerprint, output=output,
        dim=shape[-1], shape=shape if len(shape) > 1 else None, spec=spec.to_json(), license="MIT",
    )  # fmt: skip


@dataclass
class Sight:
    """As much of a clip as the shares need."""

    times: np.ndarray
    num_frames: int

    @property
    def indices(self) -> np.ndarray:
        return np.arange(len(self.times))


def test_a_mean_over_time_follows_every_step() -> None:
    columns = columns_of(item(SPEC), SPEC)
    assert columns is not None
    assert columns.sources.tolist() == [0, 1, 2]
    assert columns.means.all()


def test_the_statistics_of_nss_follow_by_name() -> None:
    spec = nss.NssBackbone().spec
    columns = columns_of(item(spec), spec)
    assert columns is not None
    pooled, temporal = spec.output("pooled").names, spec.output("temporal").names
    assert pooled is not None
    assert temporal is not None
    for column, name in enumerate(pooled):
        feature, _, how = name.rpartition(".")
        follows = temporal.index(feature) if how in ("mean", "worst") else -1
        assert columns.sources[column] == follows
        assert columns.means[column] == (how == "mean")
    assert (columns.sources >= 0).sum() == 2 * len(temporal)


def test_a_text_holds_throughout() -> None:
    spec = FeatureSpec(
        backbone="words", definition=1, modality="text", outputs=(OutputSpec(name="pooled", shape=(3,)),)
    )
    assert columns_of(item(spec), spec) is None


@pytest.mark.parametrize(
    ("spec", "output", "message"),
    [
        (SPEC, "spatial_std", "how 'spatial_std' of 'steps' follows its features in time is not known"),
        (replace(SPEC, outputs=SPEC.outputs[:1]), "pooled", "backbone 'steps' gives no features in time"),
        (
            replace(SPEC, sampling=Sampling(mode="fps", n=8, rate=2)),
            "pooled",
            "backbone 'steps' does not look at the whole video evenly",
        ),
        (
            replace(SPEC, sampling=Sampling(mode="uniform", n=7)),
            "pooled",
            "backbone 'steps' has steps that are no equal parts of its frames",
        ),
    ],
)
def test_an_input_without_a_counterpart_in_time_is_refused(spec: FeatureSpec, output: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"no timeline: model input 'look': {message}"):
        columns_of(item(spec, output), spec)


@pytest.mark.parametrize(("duration", "steps", "views"), [(2.5, 4, 1), (10.0, 8, 1), (0.4, 3, 1), (60.0, 8, 2)])
def test_each_step_counts_for_its_own_stretch(duration: float, steps: int, views: int) -> None:
    sights = [Sight(np.zeros(steps * 2), 10_000)] * views
    weights = shares(sights, steps, Seconds(duration))  # type: ignore[arg-type]
    assert weights.sum(axis=1) == pytest.approx(np.ones(len(weights)))
    # Independently: which stretch each of a million moments lies in.
    moments = (np.arange(1_000_000) + 0.5) / 1_000_000 * duration
    stretch = np.floor(moments / duration * steps * views).astype(int)
    place = (stretch % views) * steps + stretch // views
    counted = np.zeros_like(weights)
    np.add.at(counted, (np.floor(moments).astype(int), place), 1)
    assert weights == pytest.approx(counted / counted.sum(axis=1, keepdims=True), abs=1e-4)


def test_frames_that_repeat_count_where_they_are() -> None:
    # 5 frames at 2 a second, taken over and over: steps of two frames.
    times = np.array([0, 0.5, 1, 1.5, 2, 0, 0.5, 1])
    weights = shares([Sight(times, 5)], 4, Seconds(2.5))  # type: ignore[list-item]
    assert weights == pytest.approx(np.array([[2, 0, 1, 1], [0, 2, 0, 1], [0, 0, 1, 0]]) / [[4], [3], [1]])


def test_moved_features_are_those_of_moved_steps() -> None:
    """Against the pooling of nss itself."""
    rng = np.random.default_rng(0)
    spec = nss.NssBackbone().spec
    steps = rng.normal(0, 2, (8, 99)).astype(np.float32)
    clip = rng.normal(0, 1, 10).astype(np.float32)

    def pooled(of: np.ndarray) -> np.ndarray:
        return np.concatenate([part.numpy() for part in nss._pool(torch.from_numpy(of))] + [clip])

    columns = columns_of(item(spec), spec)
    assert columns is not None
    weights = np.eye(8)[[0, 3]]
    rows = moved("look", pooled(steps), steps[None], weights, columns)
    for row, step in zip(rows, (0, 3), strict=True):
        assert row == pytest.approx(pooled(steps + (steps[step] - steps.mean(axis=0))), abs=2e-5)
    assert not np.allclose(rows[0], rows[1])


def test_a_pooled_that_is_no_mean_of_the_steps_is_refused() -> None:
    steps = np.arange(12, dtype=np.float32).reshape(1, 4, 3)
    columns = Columns(np.arange(3), np.ones(3, np.bool_))
    weights = np.eye(4)
    row = steps[0].mean(axis=0)
    assert moved("look", row, steps, weights, columns) == pytest.approx(steps[0])
    with pytest.raises(ModelError, match="'look' is not the mean over time"):
        moved("look", row + np.array([0, 0, 0.1]), steps, weights, columns)

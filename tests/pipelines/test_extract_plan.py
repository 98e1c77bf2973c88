"""What a run plans when the store knows every key already."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

from vqa_train.core.hashcache import HashCache
from vqa_train.core.hashing import sha256_bytes
from vqa_train.core.types import FeatureSpec, OutputSpec, Video
from vqa_train.datasets.labels import LabelReport
from vqa_train.datasets.load import Dataset
from vqa_train.datasets.manifest import DatasetManifest
from vqa_train.pipelines.extract.config import ExtractConfig
from vqa_train.pipelines.extract.plan import plan_videos
from vqa_train.pipelines.extract.writer import SetWriter
from vqa_train.store.rows import FeatureRow
from vqa_train.store.store import FeatureStore

SPEC = FeatureSpec(backbone="x", definition=1, modality="text", outputs=(OutputSpec(name="pooled", shape=(1,)),))


@pytest.fixture
def plan(tmp_path):
    """`plan()`: tasks and log lines for four videos that the store knows."""
    root, lines = tmp_path / "videos", []
    root.mkdir()
    contents = {f"{n}.mp4": b"%d" % n for n in range(4)}
    hour_ago = time.time() - 3600
    for name, data in contents.items():
        (root / name).write_bytes(data)
        os.utime(root / name, (hour_ago, hour_ago))
    videos = tuple(
        Video(id=name, path=name, sha256=sha256_bytes(data), bytes=len(data)) for name, data in contents.items()
    )
    features = FeatureStore(tmp_path / "store").create_set(SPEC, license="MIT")
    rows = [FeatureRow(key=video.sha256, outputs={"pooled": np.ones(1, np.float32)}) for video in videos]
    features.append(rows, profile={}, run_id="r")
    manifest = DatasetManifest.model_construct(name="d")
    dataset = Dataset(manifest, tmp_path / "d.yaml", "", root, videos, LabelReport())
    config = ExtractConfig(dataset="d", output=tmp_path / "store")

    def call():
        writer = SetWriter(features, config, "r")
        with HashCache() as cache:
            tasks, _ = plan_videos(dataset, {features.name: writer}, config, cache, lines.append)
        assert writer.report.known == 4
        return tasks, lines

    return root, call


def test_nothing_is_to_be_done_and_nothing_is_said(plan):
    root, call = plan
    (root / "3.mp4").unlink()
    assert call() == ([], [])


def test_known_videos_that_changed_are_counted(plan):
    root, call = plan
    (root / "0.mp4").write_bytes(b"longer")
    # Of the same size: its hash tells, where a run has noted it.
    (root / "1.mp4").write_bytes(b"9")
    os.utime(root / "1.mp4", (1, 1))
    with HashCache() as cache:
        cache.sha256(root / "1.mp4")
    tasks, lines = call()
    assert not tasks
    assert len(lines) == 1
    assert lines[0].startswith("warning: 2 known videos differ on disk")

"""Stores that earlier versions wrote, kept under data/, stay readable and verify."""

from __future__ import annotations

from pathlib import Path

import pytest

from vqa_train.core.errors import Reason
from vqa_train.store.gc import gc
from vqa_train.store.store import FeatureStore
from vqa_train.store.verify import verify

DATA = Path(__file__).with_name("data")


@pytest.mark.parametrize("version", ["v1"])
def test_a_kept_store_reads_as_it_was_written(version):
    root = DATA / version
    features = FeatureStore.open(root).find("nss")
    rows = sorted(features.read().to_pylist(), key=lambda row: row["num_frames"])
    assert [row["pooled"] for row in rows] == [[n, n + 1, n + 2, n + 3] for n in range(4)]
    assert [row["tokens"] for row in rows] == [[[n, n]] * 3 for n in range(4)]
    assert len(features.known_keys()) == 4
    assert [(f.path, f.reason) for f in features.failures()] == [("x.mp4", Reason.UNREADABLE)]
    assert verify(root).problems == []
    assert gc(root, grace_s=0) == []

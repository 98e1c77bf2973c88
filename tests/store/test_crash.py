"""Writers that are killed or write all at once: nothing that was reported as committed is lost, nothing is torn."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from vqa_train.core.hashing import sha256_bytes
from vqa_train.store.gc import gc
from vqa_train.store.snapshot import current
from vqa_train.store.store import FeatureStore
from vqa_train.store.verify import verify

WRITER = Path(__file__).with_name("writer.py")


def run(*arguments: object) -> list[str]:
    """The keys that the writers reported as committed."""
    done = subprocess.run([sys.executable, WRITER, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout.split()


def assert_rows_are_whole(features) -> None:
    """Every row holds the numbers of its key: writer.py derives both from one number, kept in num_frames."""
    rows = features.read().to_pylist()
    assert len({(row["video_sha256"], row["view"]) for row in rows}) == len(rows)
    for row in rows:
        number = row["num_frames"]
        assert row["video_sha256"] == sha256_bytes(str(number).encode())
        assert row["pooled"] == [number, number + 1, number + 2, number + 3]
        assert row["tokens"] == [[number, number]] * 3


def test_kill_9_at_random_moments_loses_no_row_that_was_reported(root):
    reported = run("killed", root, 50, 7)
    features = FeatureStore.open(root).find("nss")
    known = features.known_keys()
    assert set(reported) <= known
    # The first writer was left alone; the others died between their first step and their last.
    assert 12 <= len(set(reported)) < 150 * 4
    assert len(known) % 4 == 0
    assert_rows_are_whole(features)
    assert verify(root).problems == []
    leftovers = gc(root, dry_run=False, grace_s=0)
    assert leftovers, "no writer died inside an append: the test kills at the wrong moments"
    assert gc(root, grace_s=0) == []
    assert features.known_keys() == known
    features.snapshot()
    report = verify(root)
    assert (report.problems, report.shards) == ([], len(known) // 4)


def test_eight_writers_at_once_lose_nothing_and_read_as_one(root):
    reported = run("together", root, 8)
    features = FeatureStore.open(root).find("nss")
    assert features.known_keys() == set(reported)
    assert len(features.known_keys()) == 8 * 20 + 20
    assert len(features.commits()) == 8 * 8
    assert_rows_are_whole(features)
    assert len(features.read(["view"])) == 180
    assert len(features.failures()) == 8
    manifest = current(features.folder)
    assert manifest is not None
    assert {shard.shard for shard in manifest[1].shards} == {commit.shard for commit in features.commits()}
    assert len(manifest[1].failures) == 8
    assert verify(root).problems == []
    keys = sorted(features.known_keys())
    np.testing.assert_array_equal(features.matrix("pooled", keys)[:, 1] - features.matrix("pooled", keys)[:, 0], 1)

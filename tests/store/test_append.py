"""An append is one shard and one commit that describes it; a failing disk leaves the store as it was."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from vqa_train.core.errors import Reason, StoreError
from vqa_train.core.types import FeatureSpec, OutputSpec
from vqa_train.store.gc import gc
from vqa_train.store.rows import FeatureRow
from vqa_train.store.store import FeatureStore
from vqa_train.store.verify import verify

WRITER = Path(__file__).with_name("writer.py")


def append(features, make_row, numbers, view=0):
    return features.append([make_row(features.spec, n, view) for n in numbers], profile={"device": "cpu"}, run_id="r1")


def test_the_commit_describes_the_shard(features, make_row):
    commit = append(features, make_row, range(3))
    data = (features.folder / "shards" / f"{commit.shard}.parquet").read_bytes()
    assert commit.sha256 == hashlib.sha256(data).hexdigest()
    assert (commit.bytes, commit.rows) == (len(data), 3)
    assert list(commit.keys) == [hashlib.sha256(str(n).encode()).hexdigest() for n in range(3)]
    assert (commit.views, commit.profile, commit.run_id) == ((0, 0, 0), {"device": "cpu"}, "r1")
    on_disk = json.loads((features.folder / "shards" / f"{commit.shard}.json").read_text())
    assert on_disk["schema"] == "vqa-train/shard-commit/1"
    assert on_disk["keys"] == list(commit.keys)


def test_sums_are_those_of_the_pooled_values_in_float64(features, make_row):
    commit = append(features, make_row, range(50))
    values = pl.read_parquet(features.folder / "shards" / "*.parquet")["pooled"].to_numpy().astype(np.float64)
    sums = commit.statistics["pooled"]
    assert sums.n == 50
    np.testing.assert_allclose(sums.sum, values.sum(axis=0), rtol=1e-12)
    np.testing.assert_allclose(sums.sum_of_squares, (values**2).sum(axis=0), rtol=1e-12)
    assert list(commit.statistics) == ["pooled"]


def test_large_values_do_not_overflow_the_sums(root):
    spec = FeatureSpec(backbone="x", definition=1, modality="text", outputs=(OutputSpec(name="pooled", shape=(1,)),))
    features = FeatureStore(root).create_set(spec, license="MIT")
    row = FeatureRow(key="0" * 64, outputs={"pooled": np.array([3e38], np.float32)})
    commit = features.append([row] * 3, profile={}, run_id="r")
    assert commit.statistics["pooled"].sum_of_squares[0] == pytest.approx(3 * float(np.float32(3e38)) ** 2)


def test_nothing_to_append_is_an_error(features):
    with pytest.raises(StoreError, match="nothing to append"):
        features.append([], profile={}, run_id="r")


@pytest.mark.parametrize("run_id", ["", "../up", ".hidden", "a/b", "x" * 201])
def test_a_run_id_names_a_file(features, make_row, run_id):
    with pytest.raises(StoreError, match="run id"):
        features.append([make_row(features.spec, 1)], profile={}, run_id=run_id)


def test_one_bad_row_keeps_the_whole_batch_out(features, make_row):
    good = make_row(features.spec, 1)
    bad = replace(good, outputs={**good.outputs, "pooled": np.full(4, np.nan, np.float32)})
    with pytest.raises(StoreError) as caught:
        features.append([good, bad], profile={}, run_id="r")
    assert caught.value.reason is Reason.NON_FINITE
    assert not (features.folder / "shards").exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("call", range(6))
def test_an_error_at_any_step_leaves_a_whole_store(features, make_row, monkeypatch, code, call):
    """The steps that can fail are fsync and rename of the shard, of the commit, and fsync of the folder after each."""
    kept = append(features, make_row, [1])
    with monkeypatch.context() as patch:
        _fail_at(patch, call, code)
        with pytest.raises(StoreError, match=os.strerror(code)):
            append(features, make_row, [2])
    # Only in the very last step has the commit got its name already; then its rows are all there.
    expected = {make_row(features.spec, n).key for n in ((1, 2) if call == 5 else (1,))}
    assert features.known_keys(views=1) == expected
    assert len(features.read(columns=["view"])) == len(expected)
    assert verify(features.folder.parent).problems == []
    assert gc(features.folder.parent, grace_s=0) == []
    assert kept in features.commits()
    append(features, make_row, [2])
    assert len(features.known_keys(views=1)) == 2


def _fail_at(patch: pytest.MonkeyPatch, call: int, code: int) -> None:
    """Make the `call`-th of all calls of os.fsync and os.replace raise."""
    calls = [0]

    def wrap(function):
        def wrapped(*arguments):
            calls[0] += 1
            if calls[0] == call + 1:
                raise OSError(code, os.strerror(code))
            return function(*arguments)

        return wrapped

    for name in ("fsync", "replace"):
        patch.setattr(os, name, wrap(getattr(os, name)))


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("this account cannot mount a small file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_costs_only_the_rows_that_did_not_fit(small_disk, spec, make_row):
    features = FeatureStore(small_disk / "store").create_set(spec, license="MIT")
    committed: set[str] = set()
    with pytest.raises(StoreError, match="No space left on device.*everything committed so far is kept"):
        for number in range(1000):
            append(features, make_row, [number])
            committed.add(make_row(spec, number).key)
    assert committed
    assert features.known_keys(views=1) == committed
    assert verify(small_disk / "store").problems == []
    assert gc(small_disk / "store", grace_s=0) == []


def test_a_file_size_limit_costs_only_the_rows_that_did_not_fit(root, spec, make_row):
    """The same in a process whose files may not grow beyond a few KiB: the shard or its commit is cut short."""
    done = subprocess.run([sys.executable, WRITER, "limited", root], capture_output=True, text=True, check=True)
    *reported, error = done.stdout.splitlines()
    assert "File too large" in error
    features = FeatureStore.open(root).find("nss")
    assert features.known_keys() == set(reported) != set()
    assert verify(root).problems == []
    assert gc(root, grace_s=0) == []

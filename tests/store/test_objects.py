"""A feature store behind a URL is the same store, on S3 with and without faults and on any fsspec filesystem."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from vqa_train.core.errors import Reason, StoreError
from vqa_train.core.locations import location
from vqa_train.store import filesystem
from vqa_train.store.gc import gc
from vqa_train.store.rows import Failure
from vqa_train.store.store import FeatureStore
from vqa_train.store.verify import verify


def fill(root: Path, spec: Any, make_row: Any) -> Any:
    """Three shards, one of them of rows that are there already, failures, two snapshots, a run."""
    features = FeatureStore(root).create_set(spec, license="Apache-2.0")
    for numbers in ((0, 1), (2,), (1, 2)):
        rows = [make_row(spec, number, view) for number in numbers for view in (0, 1)]
        features.append(rows, profile={"device": "cpu"}, run_id="run")
        features.snapshot()
    features.add_failures([Failure(key=None, id="x", path="x.mp4", reason=Reason.MISSING_FILE, message="gone")], "run")
    features.write_run({"run_id": "run"})
    features.snapshot()
    return features


@pytest.fixture
def local(tmp_path: Path, spec: Any, make_row: Any) -> Any:
    """What a local disk makes of `fill`."""
    return fill(tmp_path / "local", spec, make_row)


def check_same(root: Path, local: Any) -> None:
    """Read by somebody who starts from the URL alone."""
    features = FeatureStore.open(root).find("nss")
    assert features.read().equals(local.read())
    assert features.known_keys() == local.known_keys()
    assert [f.path for f in features.failures()] == ["x.mp4"]
    keys = sorted(features.known_keys())
    mapped = features.mapped("pooled", keys)
    assert (mapped.read(0, len(keys)) == local.mapped("pooled", keys).read(0, len(keys))).all()
    report = verify(root)
    assert report.ok, report.problems
    assert (report.shards, report.rows) == (3, 10)


def test_a_store_on_s3_reads_as_the_local_one(s3: Any, local: Any, spec: Any, make_row: Any) -> None:
    root = location("s3://bucket/some/store")
    fill(root, spec, make_row)
    check_same(root, local)


def test_a_store_in_any_fsspec_filesystem_reads_as_the_local_one(
    local: Any, spec: Any, make_row: Any, tmp_path: Path
) -> None:
    root = location(f"memory://{tmp_path}/store")
    fill(root, spec, make_row)
    check_same(root, local)


def test_faults_of_every_kind_lose_and_double_nothing(
    s3_proxy: Any, local: Any, spec: Any, make_row: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vqa_train.core.retry._FIRST_S", 0.02)
    root = location("s3://bucket/store")
    s3_proxy.rate = 0.3
    fill(root, spec, make_row)
    check_same(root, local)
    assert set(s3_proxy.met) >= {"error", "slow_down", "slow", "truncated", "lost", "reset"}


def test_what_other_writers_add_is_seen_at_once(s3: Any) -> None:
    folder = location("s3://bucket/store")
    filesystem.write(folder / "a", b"ours")
    assert filesystem.names(folder) == ["a"]
    s3.request("PUT", "/bucket/store/b", b"theirs")
    assert filesystem.names(folder) == ["a", "b"]


def test_nothing_within_the_libraries_tries_again(s3_proxy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries within retries would multiply."""
    monkeypatch.setenv("VQA_TRAIN_RETRY_SECONDS", "0")
    s3_proxy.rate = 1.0
    # aiohttp sends a request once more when a connection that it had kept open turns out to be closed.
    for fault, most in (("error", 1), ("slow_down", 1), ("reset", 2), ("lost", 2)):
        s3_proxy.faults, before = (fault,), len(s3_proxy.requests)
        with pytest.raises(StoreError):
            filesystem.write(location("s3://bucket/x"), b"data")
        assert len(s3_proxy.requests) - before <= most, fault


@pytest.mark.parametrize("kind", ["s3", "memory"])
def test_gc_takes_only_the_shard_without_its_commit(
    kind: str, request: pytest.FixtureRequest, spec: Any, make_row: Any, tmp_path: Path
) -> None:
    if kind == "s3":
        request.getfixturevalue("s3")
    root = location("s3://bucket/store" if kind == "s3" else f"memory://{tmp_path}/store")
    features = fill(root, spec, make_row)
    features.mapped("pooled", sorted(features.known_keys()))
    stray = features.folder / "shards" / "0b0c1d5e-0000-4000-8000-000000000000.parquet"
    filesystem.write(stray, b"half an append")
    assert gc(root, dry_run=False) == [], "it is too young"
    assert [leftover.path for leftover in gc(root, dry_run=False, grace_s=0)] == [stray]
    assert not filesystem.exists(stray)
    assert verify(root).ok


def test_verify_finds_an_object_that_was_changed(s3: Any, spec: Any, make_row: Any) -> None:
    root = location("s3://bucket/store")
    features = fill(root, spec, make_row)
    features.read()
    name = filesystem.names(features.folder / "shards", ".parquet")[0]
    data = bytearray(filesystem.read(features.folder / "shards" / name, "shard"))
    data[100] ^= 1
    filesystem.write(features.folder / "shards" / name, bytes(data))
    problems = verify(root).problems
    assert len(problems) == 1 and name in problems[0] and "damaged" in problems[0]


def test_a_bucket_that_is_not_there_fails_at_once_and_says_so(s3_proxy: Any, spec: Any) -> None:
    with pytest.raises(StoreError, match="cannot write 's3://nowhere/store/store.json'.*create the bucket"):
        FeatureStore(location("s3://nowhere/store")).create_set(spec, license="Apache-2.0")
    writes = [path for method, path in s3_proxy.requests if method == "PUT"]
    assert len(writes) == 1, "a permanent error is not tried again"


def test_a_refusal_names_the_credentials(s3_proxy: Any) -> None:
    def refuse(method: str, path: str) -> str | None:
        return "forbidden" if method == "PUT" else None

    s3_proxy.watch = refuse
    with pytest.raises(StoreError, match="check the credentials"):
        filesystem.write(location("s3://bucket/x"), b"data")


def test_an_answer_that_never_comes_ends_after_the_time_allowed(s3_proxy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VQA_TRAIN_RETRY_SECONDS", "3")
    monkeypatch.setattr("vqa_train.core.retry._LONGEST_S", 0.2)
    s3_proxy.rate, s3_proxy.faults = 1.0, ("error",)
    with pytest.raises(StoreError, match="run again later, everything committed so far is kept"):
        filesystem.write(location("s3://bucket/x"), b"data")
    assert len(s3_proxy.requests) > 1


def test_a_lost_answer_is_asked_for_again_and_the_object_stays_one(s3_proxy: Any) -> None:
    told: list[str] = []

    def lose_the_first_put(method: str, path: str) -> str | None:
        told.append(method)
        return "lost" if told.count("PUT") == 1 and method == "PUT" else None

    s3_proxy.watch = lose_the_first_put
    filesystem.write(location("s3://bucket/x/y"), b"data")
    assert told.count("PUT") == 2
    assert filesystem.names(location("s3://bucket/x")) == ["y"]
    assert filesystem.read(location("s3://bucket/x/y"), "object") == b"data"


def test_a_commit_whose_answer_never_comes_keeps_its_shard(
    s3_proxy: Any, spec: Any, make_row: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer cannot know that the commit arrived; taking the shard from under it would lose the rows."""
    root = location("s3://bucket/store")
    features = FeatureStore(root).create_set(spec, license="Apache-2.0")
    monkeypatch.setenv("VQA_TRAIN_RETRY_SECONDS", "0")
    s3_proxy.watch = lambda method, path: "lost" if method == "PUT" and path.endswith(".json") else None
    with pytest.raises(StoreError, match="cannot write"):
        features.append([make_row(spec, 0, view) for view in (0, 1)], profile={}, run_id="run")
    report = verify(root)
    assert report.ok and report.rows == 2, report.problems


def test_secrets_of_the_environment_are_in_no_object(s3: Any, spec: Any, make_row: Any) -> None:
    root = location("s3://bucket/store")
    features = fill(root, spec, make_row)
    for folder in ("shards", "runs", "failures", "snapshots"):
        for name in filesystem.names(features.folder / folder):
            assert os.environ["AWS_SECRET_ACCESS_KEY"].encode() not in filesystem.read(
                features.folder / folder / name, "object"
            )


def test_gc_aborts_old_uploads_that_were_never_completed(s3: Any, spec: Any, make_row: Any) -> None:
    import s3fs

    root = location("s3://bucket/store")
    fill(root, spec, make_row)
    key = "store/nss@6d9806be79f7/shards/dead.parquet"
    for path in (key, "elsewhere/dead.parquet"):
        s3fs.S3FileSystem().call_s3("create_multipart_upload", Bucket="bucket", Key=path)
    # moto says of every upload that it was begun in 2010.
    assert gc(root, dry_run=False, grace_s=1e9) == [], "it is too young"
    found = gc(root, dry_run=False)
    assert [(leftover.why, leftover.path.name) for leftover in found] == [("unfinished upload", "dead.parquet")]
    left = s3fs.S3FileSystem().list_multipart_uploads("bucket")
    assert [upload["Key"] for upload in left] == ["elsewhere/dead.parquet"], "those of others stay"


def test_a_large_object_whose_upload_fails_leaves_no_parts(s3_proxy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """From 100 MiB on s3fs uploads in parts."""
    import s3fs

    monkeypatch.setattr("vqa_train.core.retry._FIRST_S", 0.02)
    failed: list[str] = []

    def fail_the_third_part_once(method: str, path: str) -> str | None:
        if "partNumber=2" in path and not failed:
            failed.append(path)
            return "error"
        return None

    s3_proxy.watch = fail_the_third_part_once
    data = bytes(100 << 20)
    filesystem.write(location("s3://bucket/large"), data)
    assert failed
    assert filesystem.size(location("s3://bucket/large")) == len(data)
    assert not s3fs.S3FileSystem().list_multipart_uploads("bucket")


def test_a_local_copy_that_rotted_is_fetched_again(s3: Any, local: Any, spec: Any, make_row: Any) -> None:
    root = location("s3://bucket/store")
    features = fill(root, spec, make_row)
    assert features.read().equals(local.read())
    for commit in features.commits():
        copy = filesystem.fetch(features.folder / "shards" / f"{commit.shard}.parquet", commit.sha256)
        copy.write_bytes(b"rot" + copy.read_bytes()[3:])
    assert FeatureStore.open(root).find("nss").read().equals(local.read())

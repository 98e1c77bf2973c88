"""Failures are written whole with their reason, and stand until something answers them."""

from __future__ import annotations

import json

import pytest

from vqa_train.core.errors import Reason, StoreError
from vqa_train.store.failures import read_file
from vqa_train.store.rows import Failure


def failure(key=None, path="a.mp4", reason=Reason.DECODE_ERROR, message="bad", name="a"):
    return Failure(key=key, id=name, path=path, reason=reason, message=message)


def standing(features):
    return [(f.key, f.path, f.reason) for f in features.failures()]


KEY, OTHER = "1" * 64, "2" * 64


def test_a_failure_comes_back_with_its_run(features):
    features.add_failures([failure(KEY, "ünïcode name.mp4", Reason.TIMEOUT, "took\n too  long")], run_id="run-1")
    (found,) = features.failures()
    assert (found.key, found.id, found.path, found.reason) == (KEY, "a", "ünïcode name.mp4", Reason.TIMEOUT)
    assert (found.message, found.run_id) == ("took too long", "run-1")


def test_lines_are_json_with_a_schema(features):
    features.add_failures([failure(KEY), failure(None, "b.mp4")], run_id="r")
    (path,) = (features.folder / "failures").iterdir()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["schema"] for line in lines] == ["vqa-train/failure/1"] * 2
    assert [line["reason"] for line in lines] == ["decode_error"] * 2


def test_no_failures_write_no_file(features):
    features.add_failures([], run_id="r")
    assert not (features.folder / "failures").exists()


def test_the_latest_failure_of_a_key_stands(features):
    features.add_failures([failure(KEY, reason=Reason.TIMEOUT), failure(OTHER, "b.mp4")], "r1")
    features.add_failures([failure(KEY, reason=Reason.CRASH)], "r2")
    assert standing(features) == [(KEY, "a.mp4", Reason.CRASH), (OTHER, "b.mp4", Reason.DECODE_ERROR)]


def test_the_latest_failure_of_an_unreadable_path_stands(features):
    features.add_failures([failure(reason=Reason.UNREADABLE)], "r1")
    features.add_failures([failure(reason=Reason.EMPTY_FILE)], "r2")
    assert standing(features) == [(None, "a.mp4", Reason.EMPTY_FILE)]


def test_a_path_that_could_be_read_later_is_known_by_its_key(features):
    features.add_failures([failure(reason=Reason.UNREADABLE)], "r1")
    features.add_failures([failure(KEY, reason=Reason.DECODE_ERROR)], "r2")
    assert standing(features) == [(KEY, "a.mp4", Reason.DECODE_ERROR)]


def test_a_key_that_got_all_its_rows_no_longer_fails(features, make_row):
    spec = features.spec
    key = make_row(spec, 1).key
    features.add_failures([failure(key)], "r1")
    features.append([make_row(spec, 1, 0)], profile={}, run_id="r2")
    assert len(features.failures()) == 1
    features.append([make_row(spec, 1, 1)], profile={}, run_id="r2")
    assert features.failures() == []


def test_resolved_paths_no_longer_fail_until_they_do_again(features):
    features.add_failures([failure(KEY), failure(None, "b.mp4"), failure(OTHER, "c.mp4")], "r1")
    features.resolve_failures(["a.mp4", "b.mp4"], "r2")
    assert standing(features) == [(OTHER, "c.mp4", Reason.DECODE_ERROR)]
    features.add_failures([failure(None, "b.mp4")], "r3")
    assert [path for _, path, _ in standing(features)] == ["b.mp4", "c.mp4"]


def test_a_changed_or_cut_file_is_an_error(features):
    features.add_failures([failure(KEY), failure(OTHER, "b.mp4")], "r")
    (path,) = (features.folder / "failures").iterdir()
    data = path.read_bytes()
    for changed in (data.replace(b"bad", b"bed"), data[: data.index(b"\n") + 1], b""):
        path.write_bytes(changed)
        with pytest.raises(StoreError, match="does not hash to its name"):
            features.failures()
    path.write_bytes(data)
    assert len(read_file(path)) == 2


def test_an_undecodable_name_is_spelled_out(features):
    name = b"caf\xe9.mp4".decode("utf-8", "surrogateescape")
    features.add_failures([failure(None, name, name=name)], "r")
    assert [(f.path, f.id) for f in features.failures()] == [("caf\\udce9.mp4", "caf\\udce9.mp4")]
    features.resolve_failures([name], "r")
    assert features.failures() == []


@pytest.mark.usefixtures("broken_documents")
def test_a_key_that_is_no_hash_is_refused_before_anything_is_written(features):
    with pytest.raises(StoreError, match="key"):
        features.add_failures([failure(KEY), failure("short")], "r")
    assert not (features.folder / "failures").exists()

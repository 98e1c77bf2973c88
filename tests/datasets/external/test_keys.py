"""Keys of videos that are not at hand, names that stand for their files, and ids that mean videos that are."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from vqa_train.core.types import Video
from vqa_train.datasets.external.keys import imported_key, keys_of_videos, safe_path
from vqa_train.datasets.files_table import climbs


def test_a_key_is_the_hash_of_dataset_and_id():
    expected = hashlib.sha256(b"vqa-train/id\x1fkonvid1k\x1f3339962845").hexdigest()
    assert imported_key("konvid1k", "3339962845") == expected
    assert imported_key("konvid1k", "é") == hashlib.sha256("vqa-train/id\x1fkonvid1k\x1fé".encode()).hexdigest()


def test_datasets_and_ids_do_not_run_into_each_other():
    assert len({imported_key("a", "bc"), imported_key("ab", "c"), imported_key("abc", "")}) == 3


def test_plain_ids_are_their_own_paths_and_odd_ones_are_spelled_out():
    assert safe_path("Test01_City-D01.v2~") == "Test01_City-D01.v2~"
    assert safe_path("../a b/ü") == "%2E.%2Fa%20b%2F%C3%BC"
    assert safe_path(".hidden") == "%2Ehidden"


@given(st.text(min_size=1), st.text(min_size=1))
def test_a_path_stays_inside_and_no_two_ids_share_one(one, other):
    path = safe_path(one)
    assert path.isascii()
    assert not climbs(path)
    assert "/" not in path
    assert not path.startswith(".")
    assert (path == safe_path(other)) == (one == other)


def video(name: str, path: str) -> Video:
    return Video(id=name, path=path, sha256=hashlib.sha256(path.encode()).hexdigest(), bytes=1)


def test_ids_find_their_video_by_id_and_else_by_path():
    videos = [video("a", "clips/one.mp4"), video("b", "clips/two.mp4"), video("one", "clips/three.mp4")]
    found = keys_of_videos(["b", "one", "two", "clips/two.mp4", "zzz", "a"], videos)
    assert [v.id if v is not None else None for v in found] == ["b", "one", "b", "b", None, "a"]


def test_an_id_that_means_two_videos_finds_none():
    videos = [video("a", "x/one.mp4"), video("b", "y/one.mp4")]
    assert keys_of_videos(["one", "x/one"], videos) == [None, videos[0]]

"""Keys of videos that are not at hand: made of the dataset's name and the video's id, so that two files join."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from urllib.parse import quote

from vqa_train.core.hashing import sha256_bytes
from vqa_train.core.types import Video
from vqa_train.datasets.files_table import FileEntry, FileIndex


def imported_key(dataset: str, video_id: str) -> str:
    """Hex sha256 of `vqa-train/id`, the dataset's name and the id, joined by U+001F."""
    return sha256_bytes(f"vqa-train/id\x1f{dataset}\x1f{video_id}".encode())


def safe_path(video_id: str) -> str:
    """A relative file name that stands for an id in a files table: letters, digits and `_.-~`, the rest as %XX."""
    name = quote(video_id, safe="")
    # One object for both, where they are equal: a million rows have a million of each.
    return f"%2E{name[1:]}" if name.startswith(".") else video_id if name == video_id else name


def keys_of_videos(ids: Sequence[str], videos: Sequence[Video]) -> list[Video | None]:
    """The video of each id: the one of that id, else the one whose path the id means (as a label table's would)."""
    by_id = {video.id: video for video in videos}
    if all(name in by_id for name in ids):
        return [by_id[name] for name in ids]
    by_path = {video.path: video for video in videos}
    index = FileIndex(FileEntry(video.path, video.sha256, video.bytes) for video in videos)
    found: list[Video | None] = []
    for name in ids:
        matches = index.find(str(PurePosixPath(name))) if name not in by_id else []
        found.append(by_id.get(name) or (by_path[matches[0].path] if len(matches) == 1 else None))
    return found

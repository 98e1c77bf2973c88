"""Plans an extraction: which keys each feature set lacks, of videos and references, and where their files are."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vqa_train.core.errors import Reason, VqaError
from vqa_train.core.hashcache import HashCache
from vqa_train.core.hashing import sha256_bytes
from vqa_train.core.types import Video
from vqa_train.datasets.load import Dataset
from vqa_train.engines.base import VideoTask
from vqa_train.pipelines.extract.config import ExtractConfig
from vqa_train.pipelines.extract.writer import SetWriter, failure_of
from vqa_train.store.rows import Failure


def plan_videos(
    dataset: Dataset,
    writers: Mapping[str, SetWriter],
    config: ExtractConfig,
    cache: HashCache,
    log: Callable[[str], None],
) -> tuple[list[VideoTask], dict[str, Video]]:
    """Tasks for the keys that some set lacks, each key once; failures found without decoding are recorded.

    References that are no record's video come after the videos, one input each.
    """
    tasks: list[VideoTask] = []
    videos: dict[str, Video] = {}
    changed, folder = 0, os.path.abspath(str(dataset.root))  # noqa: PTH100
    _fail_labels_without_file(dataset, writers, config)
    for name in {video.reference.id for video in dataset.videos if video.reference is not None}:
        for writer in writers.values():
            writer.resolve_label(name)
    for video in (*dataset.videos, *dataset.references):
        full = config.limit is not None and len(tasks) >= config.limit
        lacking = []
        for name, writer in writers.items():
            writer.report.inputs += 1
            writer.resolve_label(video.id)
            if video.sha256 in writer.known or video.sha256 in videos:
                writer.report.known += 1
                writer.resolve(video.path)
            elif video.sha256 in writer.failed_keys and not config.retry_failed:
                writer.report.skipped[writer.failed_keys[video.sha256]] += 1
            elif full or not config.shard.holds(video.sha256):
                writer.report.left += 1
            else:
                lacking.append(name)
        if not lacking:
            changed += _has_changed(video, dataset, folder, cache)
            continue
        located = _locate(video, dataset, cache)
        if isinstance(located, Failure):
            for name in lacking:
                writers[name].fail(located)
            continue
        path, verify = located
        videos[video.sha256] = video
        tasks.append(
            VideoTask(key=video.sha256, path=path, verify=verify, sets=tuple(lacking), id=video.id, name=video.path)
        )
    if changed:
        log(
            f"warning: {changed} known videos differ on disk from the manifest - "
            "scan the dataset again if that is meant"
        )
    return tasks, videos


def _fail_labels_without_file(dataset: Dataset, writers: Mapping[str, SetWriter], config: ExtractConfig) -> None:
    """A label row, or a reference, that names no file or several is an input without features."""
    labels = dataset.report
    none = "names no file of the dataset"
    found = [(name, f"label {name!r} {none}") for name in labels.ids_without_file]
    found += [(item["id"], f"label {item['id']!r} names {_files(item)}") for item in labels.ambiguous_ids]
    for item in labels.references_without_file:
        found.append((item["id"], f"reference {item['id']!r} of {item['videos']} videos {none}"))
    for item in labels.ambiguous_references:
        found.append((item["id"], f"reference {item['id']!r} of {item['videos']} videos names {_files(item)}"))
    for video_id, problem in found:
        mine = config.shard.holds(sha256_bytes(video_id.encode()))
        for writer in writers.values():
            writer.report.inputs += 1
            if not mine:
                writer.report.left += 1
                continue
            message = f"{problem} - correct the label table, or scan the dataset again"
            # It has no path; its id stands in, so that the failure is found again once the label has its file.
            writer.fail(Failure(key=None, id=video_id, path=video_id, reason=Reason.LABEL_MISMATCH, message=message))


def _files(item: Mapping[str, Any]) -> str:
    return f"{len(item['files'])} files: {', '.join(item['files'][:3])}"


def _has_changed(video: Video, dataset: Dataset, folder: str, cache: HashCache) -> bool:
    """Whether a video that needs no decoding is, by its stat, not what the manifest says; absent is no change.

    `folder` is the data root as text: a run that has nothing to do comes here for every video of the dataset.
    """
    try:
        if dataset.listing is None:
            name = f"{folder}/{video.path}"
            stat = os.stat(name)  # noqa: PTH116 - a Path for each would take longer than its stat
            size, hashed = stat.st_size, cache.cached_as(name, stat)
        else:
            size, hashed = dataset.look(dataset.root / video.path, video, cache)
        return size != video.bytes or hashed not in (None, video.sha256)
    except OSError:
        return False


def _locate(video: Video, dataset: Dataset, cache: HashCache) -> tuple[Path, bool] | Failure:
    """The file and whether its bytes must be hashed again, or why it cannot be used."""
    try:
        path = dataset.path_of(video)
        size, hashed = dataset.look(path, video, cache)
    except VqaError as error:
        return failure_of(video, error.reason or Reason.UNREADABLE, str(error))
    except FileNotFoundError:
        return failure_of(video, Reason.MISSING_FILE, f"{video.path!r} is not in the data root")
    except OSError as error:
        return failure_of(video, Reason.UNREADABLE, f"{video.path!r}: {error.strerror}")
    if size != video.bytes or (hashed is not None and hashed != video.sha256):
        found = f"{size} bytes" if size != video.bytes else f"sha256 {hashed}"
        expected = f"{video.bytes} bytes, sha256 {video.sha256}"
        return failure_of(
            video,
            Reason.CHECKSUM_MISMATCH,
            f"{video.path!r}: manifest says {expected}, file has {found} - scan the dataset again if that is meant",
        )
    return path, hashed is None

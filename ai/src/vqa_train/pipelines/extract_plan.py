"""Plans an extraction: which keys each feature set lacks, and where their files are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from vqa_train.core.errors import Reason, VqaError
from vqa_train.core.files import confined
from vqa_train.core.hashcache import HashCache
from vqa_train.core.types import Video
from vqa_train.datasets.load import Dataset
from vqa_train.engines.base import VideoTask
from vqa_train.pipelines.extract_config import ExtractConfig
from vqa_train.pipelines.extract_writer import SetWriter, failure_of
from vqa_train.store.rows import Failure


def plan_videos(
    dataset: Dataset,
    writers: Mapping[str, SetWriter],
    config: ExtractConfig,
    cache: HashCache,
    log: Callable[[str], None],
) -> tuple[list[VideoTask], dict[str, Video]]:
    """Tasks for the keys that some set lacks, each key once; failures found without decoding are recorded."""
    tasks: list[VideoTask] = []
    videos: dict[str, Video] = {}
    changed = 0
    part, parts = config.part
    for video in dataset.videos:
        full = config.limit is not None and len(tasks) >= config.limit
        lacking = []
        for name, writer in writers.items():
            writer.report.inputs += 1
            if video.sha256 in writer.known or video.sha256 in videos:
                writer.report.known += 1
                writer.resolve(video.path)
            elif video.sha256 in writer.failed_keys and not config.retry_failed:
                writer.report.skipped[writer.failed_keys[video.sha256]] += 1
            elif full or int(video.sha256[:8], 16) % parts != part:
                writer.report.left += 1
            else:
                lacking.append(name)
        if not lacking:
            changed += _has_changed(video, dataset.root, cache)
            continue
        located = _locate(video, dataset.root, cache)
        if isinstance(located, Failure):
            for name in lacking:
                writers[name].fail(located)
            continue
        path, verify = located
        videos[video.sha256] = video
        tasks.append(VideoTask(key=video.sha256, path=path, verify=verify, sets=tuple(lacking)))
    if changed:
        log(
            f"warning: {changed} known videos differ on disk from the manifest - "
            "scan the dataset again if that is meant"
        )
    return tasks, videos


def _has_changed(video: Video, root: Path, cache: HashCache) -> bool:
    """Whether a video that needs no decoding is, by its stat, not what the manifest says; absent is no change."""
    path = root / video.path
    try:
        return path.stat().st_size != video.bytes or cache.cached(path) not in (None, video.sha256)
    except OSError:
        return False


def _locate(video: Video, root: Path, cache: HashCache) -> tuple[Path, bool] | Failure:
    """The file and whether its bytes must be hashed again, or why it cannot be used."""
    try:
        path = confined(root, video.path)
        size = path.stat().st_size
        hashed = cache.cached(path)
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

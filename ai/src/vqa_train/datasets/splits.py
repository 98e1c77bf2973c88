"""Splits decided by content: the hash of a video's group, never the order of rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from vqa_train.core.errors import UsageError
from vqa_train.core.hashing import unit_interval
from vqa_train.core.types import Video
from vqa_train.datasets.manifest import SPLITS, SplitName


def group_of(video: Video) -> str:
    """The content that must not straddle a split: the group, or the video itself."""
    return video.group if video.group is not None else video.id


def split_by_group(videos: Sequence[Video], fractions: Mapping[SplitName, float], salt: str = "") -> tuple[Video, ...]:
    """`videos` with a split each: their own where they have one, else the one that the hash of their group draws.

    A group with videos in exactly one given split keeps the rest of it there too. `fractions` ("train", "val",
    "test" -> share of the groups) sum to 1; the shares of a small dataset differ from them by chance.

    Raises:
        UsageError: fractions of other splits, negative, or not summing to 1.
    """
    bounds = _bounds(fractions)
    given: defaultdict[str, set[str]] = defaultdict(set)
    for video in videos:
        if video.split is not None:
            given[group_of(video)].add(video.split)
    drawn: dict[str, str] = {}
    result = []
    for video in videos:
        group = group_of(video)
        if group not in drawn:
            own = given.get(group, set())
            point = unit_interval("split", salt, group)
            drawn[group] = next(iter(own)) if len(own) == 1 else next(name for name, upper in bounds if point < upper)
        result.append(video if video.split is not None else replace(video, split=drawn[group]))
    return tuple(result)


def _bounds(fractions: Mapping[SplitName, float]) -> list[tuple[str, float]]:
    """(split, upper bound in [0, 1]) in the fixed order train, val, test; the last bound lies above every draw."""
    unknown = [name for name in fractions if name not in SPLITS]
    if unknown or any(not value >= 0 for value in fractions.values()) or abs(sum(fractions.values()) - 1) > 1e-6:
        raise UsageError(f"split fractions must be shares of {', '.join(SPLITS)} that sum to 1, got {dict(fractions)}")
    names = [name for name in SPLITS if fractions.get(name, 0) > 0]
    uppers = [sum(fractions.get(name, 0) for name in SPLITS[: SPLITS.index(last) + 1]) for last in names]
    return list(zip(names, [*uppers[:-1], 2.0], strict=True))


def groups_across_splits(videos: Sequence[Video]) -> list[dict[str, Any]]:
    """`{group, splits}` of every group with videos in more than one split."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for video in videos:
        if video.split is not None and video.group is not None:
            found[video.group].add(video.split)
    return [{"group": g, "splits": sorted(splits)} for g, splits in sorted(found.items()) if len(splits) > 1]


def references_across_splits(videos: Sequence[Video]) -> list[dict[str, Any]]:
    """`{reference, splits}` of every reference (by its path) whose videos are in more than one split."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for video in videos:
        if video.split is not None and video.reference is not None:
            found[video.reference.path].add(video.split)
    return [{"reference": r, "splits": sorted(splits)} for r, splits in sorted(found.items()) if len(splits) > 1]


def bytes_across_splits(videos: Sequence[Video]) -> list[dict[str, Any]]:
    """`{sha256, ids, splits}` of every file content that is in more than one split."""
    first: dict[str, str] = {}
    across = {v.sha256 for v in videos if v.split is not None and first.setdefault(v.sha256, v.split) != v.split}
    found: defaultdict[str, list[Video]] = defaultdict(list)
    for video in videos:
        if video.split is not None and video.sha256 in across:
            found[video.sha256].append(video)
    return [
        {"sha256": sha256, "ids": sorted(v.id for v in same), "splits": sorted({str(v.split) for v in same})}
        for sha256, same in sorted(found.items())
    ]

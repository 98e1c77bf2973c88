"""Which frames a backbone sees, a pure function of frame times and key frames (formulas: docs/decoding.md)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vqa_train.core.errors import ConfigError, MediaError, Reason, UsageError
from vqa_train.core.hashing import content_draws
from vqa_train.core.types import Sampling

Indices = NDArray[np.int64]
Times = NDArray[np.float64]

# Times closer than this are equal: far below the tick of any container, far above float64 rounding.
_EPSILON_S = 1e-6


def select_frames(sampling: Sampling, times: ArrayLike, keyframes: ArrayLike, key: str = "") -> list[Indices]:
    """Frame indices of each view.

    Args:
        sampling: the positions asked for.
        times: (N,) presentation times in seconds from the first frame, ascending.
        keyframes: (K,) ascending indices of key frames; index 0 counts as one.
        key: sha256 of the video's bytes; decides the frames where `sampling.jitter` is "content".

    Returns:
        `sampling.views` arrays, int64 (sampling.num_frames,), values in [0, N).

    Raises:
        MediaError: TOO_SHORT, when the video has too few frames and `sampling.short` is "error".
        ConfigError: `times` is empty.
        UsageError: `sampling.jitter` is "content" and there is no key.
    """
    at = np.asarray(times, np.float64)
    if at.ndim != 1 or len(at) == 0:
        raise ConfigError(f"frame times must be a non-empty vector, got shape {at.shape}")
    keys = np.union1d([0], np.asarray(keyframes, np.int64)).astype(np.int64)
    return [_view(sampling, view, at, keys, key) for view in range(sampling.views)]


def segment_frames(segments: Sequence[tuple[int, int, int]], count: int, offsets: ArrayLike) -> Indices:
    """Frames of mode `segments` of a video of `count` frames; those of `count` and more lie beyond its end.

    Args:
        segments: (parts, length, step) triples.
        count: frames in the video.
        offsets: (sum of parts,) frames between the start of each part and its first frame.

    Returns:
        int64 (sum of parts * length,), part after part.
    """
    given = iter(np.asarray(offsets, np.int64))
    runs = [
        part * (count // parts) + next(given) + np.arange(length) * step
        for parts, length, step in segments
        for part in range(parts)
    ]
    return np.concatenate(runs).astype(np.int64)


def decode_cost(indices: ArrayLike, keyframes: ArrayLike) -> int:
    """Frames to decode, in presentation order, to reach `indices`: the union of the runs [key frame, frame]."""
    cost, done = 0, -1
    keys = np.union1d([0], np.asarray(keyframes, np.int64)).astype(np.int64)
    for index in np.unique(np.asarray(indices, np.int64)):
        start = max(done + 1, int(keys[np.searchsorted(keys, index, "right") - 1]))
        cost += int(index) - start + 1
        done = int(index)
    return cost


def _view(sampling: Sampling, view: int, times: Times, keys: Indices, key: str) -> Indices:
    count, burst = len(times), sampling.burst
    starts = _starts(sampling, view, times) if sampling.segments is None else _segments(sampling, view, count, key)
    if sampling.short == "error" and int((starts + burst).max()) > count:
        raise MediaError(
            f"the video has {count} frames in {times[-1]:.3f} s, too few for {_asked(sampling)}",
            reason=Reason.TOO_SHORT,
        )
    if sampling.decode_budget is not None and count > sampling.decode_budget:
        folded = starts % count if sampling.short == "circulant" else np.minimum(starts, count - 1)
        unique, back = np.unique(np.minimum(folded, count - burst), return_inverse=True)
        starts = _within_budget(unique, burst, keys, sampling.decode_budget, sampling.n)[back]
    indices = (starts[:, None] + np.arange(burst)).ravel()
    folded = indices % count if sampling.short == "circulant" else np.minimum(indices, count - 1)
    return folded.astype(np.int64)


def _asked(sampling: Sampling) -> str:
    details = {k: v for k, v in sampling.to_json().items() if k in ("n", "burst", "rate", "seconds", "step")}
    return f"{sampling.mode}({', '.join(f'{k}={v}' for k, v in details.items())})"


def _segments(sampling: Sampling, view: int, count: int, key: str) -> Indices:
    """Frames of mode `segments`, (n,), with one draw for each part whether or not there is room to move in."""
    segments = sampling.segments or ()
    room = np.array([count // parts - length * step for parts, length, step in segments for _ in range(parts)])
    room = np.maximum(room, 0)
    if sampling.jitter == "centre":
        return segment_frames(segments, count, room // 2)
    if not key:
        raise UsageError(
            "sampling with jitter 'content' takes frames by the video's sha256, and none was given",
            hint="give the key of the video, or sample with jitter 'centre'",
        )
    # A draw is under 2**32 and a video has far fewer than 2**31 frames, so the product fits.
    draws = content_draws(len(room), "segments", key, view)
    return segment_frames(segments, count, (draws * room) >> 32)


def _starts(sampling: Sampling, view: int, times: Times) -> Indices:
    """First frame of each burst, (n,); values of N and more lie beyond the end, N standing for one whole video."""
    count, n, burst = len(times), sampling.n, sampling.burst
    if sampling.mode == "frame_step":
        step = int(sampling.step or 1)
        room = max(0, count - ((n - 1) * step + burst))
        return np.arange(n) * step + round(_offset(room, view, sampling.views))
    if sampling.mode == "uniform" and count < n * burst:
        return np.arange(n) * burst
    interval = float(times[-1]) / (count - 1) if count > 1 else 0.0
    length = float(times[-1]) + interval
    if length <= 0:
        return np.arange(n) * burst
    if sampling.mode == "uniform":
        phase = (view + 0.5) / sampling.views
        positions = (np.arange(n) + phase) * length / n - interval / 2
        return _apart(_nearest(times, positions) - (burst - 1) // 2, burst, count)
    if sampling.mode == "fps":
        rate = float(sampling.rate or 1)
        positions = np.arange(n) / rate + _offset(max(0.0, length - n / rate), view, sampling.views)
        return _beyond_end(times, positions, 0, burst, interval)
    seconds = float(sampling.seconds or 1)
    positions = (np.arange(n) + 0.5) * seconds / n - interval / 2
    positions = positions + _offset(max(0.0, length - seconds), view, sampling.views)
    return _beyond_end(times, positions, (burst - 1) // 2, burst, interval)


def _offset(room: float, view: int, views: int) -> float:
    """Where a view starts in the room that the mode leaves: the first at 0, the last at the end."""
    return room * view / (views - 1) if views > 1 else 0.0


def _nearest(times: Times, positions: Times) -> Indices:
    """Index of the frame nearest in time to each position; of two equally near ones, the earlier."""
    after = np.clip(np.searchsorted(times, positions), 1, max(1, len(times) - 1))
    if len(times) == 1:
        return np.zeros(len(positions), np.int64)
    before = after - 1
    return np.where(positions - times[before] <= times[after] - positions + _EPSILON_S, before, after)


def _apart(starts: Indices, burst: int, count: int) -> Indices:
    """Shift bursts, as little and as late as possible, until none overlaps and all fit into the video."""
    steps = np.arange(len(starts)) * burst
    slack = np.maximum.accumulate(starts - steps)
    return np.clip(slack, 0, count - len(starts) * burst) + steps


def _beyond_end(times: Times, positions: Times, lead: int, burst: int, interval: float) -> Indices:
    """Bursts that begin `lead` frames before their position; each length of the video past its end adds N."""
    count = len(times)
    length = float(times[-1]) + interval
    rounds = np.maximum(0, np.floor((positions + interval / 2 - _EPSILON_S) / length)).astype(np.int64)
    starts = _nearest(times, positions - rounds * length) - lead
    return np.clip(starts, 0, max(0, count - burst)) + rounds * count


def _within_budget(starts: Indices, burst: int, keys: Indices, budget: int, n: int) -> Indices:
    """Move bursts back until the frames decoded for the first i of them are at most i * budget / n.

    Decoding for a burst starts at its key frame, or after the burst before it where that has already been
    decoded past the key frame. What earlier bursts leave of their share later ones may use.
    """
    moved = np.empty_like(starts)
    spent, done = 0, -1
    for i, start in enumerate(starts):
        begin = max(done + 1, int(keys[np.searchsorted(keys, start, "right") - 1]))
        allowed = (i + 1) * budget // n - spent
        last = min(int(start) + burst - 1, begin + allowed - 1)
        moved[i] = last - burst + 1
        spent += max(0, last - begin + 1)
        done = max(done, last)
    return moved

"""The seconds of a video, and how much of each a step of a backbone covers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.types import Clip

TEMPORAL = "temporal"
"""Name of the output that has features for each time step, (steps, d)."""


@dataclass(frozen=True)
class Seconds:
    """The seconds of a video: `count` of them, the last may be shorter."""

    duration_s: float

    @property
    def count(self) -> int:
        """How many; a rest under a millisecond is no second of its own."""
        return max(1, math.ceil(self.duration_s - 1e-3))

    @property
    def starts(self) -> tuple[float, ...]:
        """Start of each in seconds."""
        return tuple(map(float, range(self.count)))


def shares(views: Sequence[Clip], steps: int, seconds: Seconds) -> NDArray[np.float64]:
    """How much each step counts in each second, (seconds, views * steps), rows sum to 1.

    The video is cut into as many equal stretches as there are steps (of all views, which lie between each other), and
    each step stands for its own. Of a video with fewer frames than a clip takes, whose frames repeat, each step counts
    in a second as often as it saw a frame of that second.
    """
    views_, count = len(views), seconds.count
    if views[0].num_frames >= len(views[0].indices):
        # Step s of view v is stretch s * views + v.
        total = views_ * steps
        edges = np.arange(total + 1) * (seconds.duration_s / total)
        starts = np.array(seconds.starts)
        ends = np.minimum(starts + 1, seconds.duration_s)
        overlap = np.minimum(ends[:, None], edges[None, 1:]) - np.maximum(starts[:, None], edges[None, :-1])
        weights = np.clip(overlap, 0, None).reshape(count, steps, views_).transpose(0, 2, 1).reshape(count, total)
    else:
        seen = np.stack([clip.times.reshape(steps, -1) for clip in views]).reshape(views_ * steps, -1)
        at = np.clip(np.floor(seen).astype(np.int64), 0, count - 1)
        weights = np.stack([(at == second).sum(axis=1) for second in range(count)]).astype(np.float64)
        # A second without a frame of its own, as a slow video may have, is like the one before.
        for second in range(1, count):
            if not weights[second].any():
                weights[second] = weights[second - 1]
    sums: NDArray[np.float64] = weights.sum(axis=1, keepdims=True)
    normalised: NDArray[np.float64] = weights / sums
    return normalised

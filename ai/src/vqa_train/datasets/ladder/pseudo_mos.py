"""pseudo_mos: a full-reference quality in 1-5 by one fixed formula. It is not a MOS: no person gave an opinion.

docs/ladder.md gives the formula. One formula serves all kinds of distortion, and no constant was fitted to opinions or
to no-reference features: it must not know what a model is later asked to predict.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from vqa_train.core.errors import MediaError
from vqa_train.datasets.ladder import measures
from vqa_train.datasets.ladder.frames import Frames, Plane
from vqa_train.datasets.ladder.measures import Array

TARGET = "pseudo_mos"
LOWEST, HIGHEST = 1.0, 5.0
MIDPOINT = 0.12
STEEPNESS = 2.0
TEMPORAL_WEIGHT = 0.6
# The weights that Zhang et al. give the first three scales; their fourth has 0.019.
_SCALE_WEIGHTS = (0.096, 0.596, 0.289)
_LONGEST_SHORT_SIDE = 384
_SPATIAL_STRIDE = 3
_STEPS = (1, 2, 4, 8)
_LONGEST_STEP_S = 0.35
_LONGEST_DELAY_S = 1.5
_WORST = 0.1


@dataclass(frozen=True)
class Score:
    """A clip's quality and what it is made of.

    Attributes:
        pseudo_mos: 1 (worst) to 5 (the pristine clip itself).
        spatial: departure of edges and colour from the reference frame that is shown, 0 (none) to about 1.
        temporal: departure of the motion, 0 (none) to about 1.
    """

    pseudo_mos: float
    spatial: float
    temporal: float


@dataclass(frozen=True)
class _Planes:
    """A clip at the sizes that are measured; `small` is luma at a quarter, `blocks` at a 32nd of the size."""

    luma: Plane
    chroma: Plane
    small: Array
    thumbnails: Array
    blocks: Array


class Reference:
    """A pristine clip, with what all comparisons against it share."""

    def __init__(self, pristine: Frames) -> None:
        fps = float(pristine.fps)
        self._planes = _planes(pristine)
        self._steps = [k for k in _STEPS if k < len(pristine) and (k == 1 or k / fps <= _LONGEST_STEP_S)]
        self._most_delay = round(_LONGEST_DELAY_S * fps)
        self._motion = [_motion(self._planes, k) for k in self._steps]

    def score(self, distorted: Frames) -> Score:
        """Quality of `distorted` against this reference.

        Raises:
            MediaError: the clips differ in length or size.
        """
        planes = _planes(distorted)
        got, expected = planes.luma.shape, self._planes.luma.shape
        if got != expected:
            raise MediaError(f"distorted clip has (frames, height, width) {got}, its reference {expected}")
        spatial, temporal = pool(self._spatial(planes)), pool(self._temporal(planes))
        return Score(to_pseudo_mos(spatial, temporal), spatial, temporal)

    def _spatial(self, planes: _Planes) -> Array:
        shown = measures.shown_frames(self._planes.thumbnails, planes.thumbnails, self._most_delay)
        times = range(0, len(shown), _SPATIAL_STRIDE)
        pairs = ((_frame(self._planes, int(shown[t])), _frame(planes, t)) for t in times)
        return np.array([spatial_departure(reference, distorted) for reference, distorted in pairs], np.float32)

    def _temporal(self, planes: _Planes) -> Array:
        """Per frame, the mean over the time steps of the RMS of the two departures, 0 before a step's first frame."""
        departures = np.zeros((len(self._steps), len(planes.luma)), np.float32)
        for row, k, reference in zip(departures, self._steps, self._motion, strict=True):
            parts = [
                measures.departure(measures.similarity(a, b, measures.MOTION_C))
                for a, b in zip(reference, _motion(planes, k), strict=True)
            ]
            row[k:] = np.sqrt((parts[0] ** 2 + parts[1] ** 2) / 2)
        return np.asarray(departures.mean(axis=0)) if self._steps else np.zeros(1, np.float32)


def spatial_departure(reference: tuple[Array, Array], distorted: tuple[Array, Array]) -> float:
    """How far a frame's edges and colours are from the reference's, 0 (equal) to about 1.

    The root of the weighted mean square, over three scales, of `measures.departure` of the gradient similarity; at the
    second scale, where 4:2:0 chroma lives, each pixel is multiplied by its chroma similarity.

    Args:
        reference, distorted: (luma (H, W), 0-255; chroma (2, H / 2, W / 2), centred on 0).
    """
    (a, a_chroma), (b, b_chroma) = reference, distorted
    total = 0.0
    for scale, weight in enumerate(_SCALE_WEIGHTS):
        gradients = measures.gradient_magnitude(a), measures.gradient_magnitude(b)
        similar = measures.similarity(*gradients, measures.GRADIENT_C)
        if scale == 1:
            similar = similar * measures.chroma_similarity(a_chroma, b_chroma)[1:-1, 1:-1]
        total += weight * float(measures.departure(similar)) ** 2
        a, b = measures.halve(a), measures.halve(b)
    return float(np.sqrt(total / sum(_SCALE_WEIGHTS)))


def to_pseudo_mos(spatial: float, temporal: float) -> float:
    """1 + 4 / (1 + (d / MIDPOINT)^STEEPNESS) of d = hypot(spatial, TEMPORAL_WEIGHT * temporal); 5 at no departure."""
    distance = math.hypot(spatial, TEMPORAL_WEIGHT * temporal)
    return LOWEST + (HIGHEST - LOWEST) / (1.0 + math.pow(distance / MIDPOINT, STEEPNESS))


def pool(values: Array) -> float:
    """Half the mean over time plus half the mean of the worst (largest) tenth."""
    worst = np.sort(values)[-max(1, round(_WORST * len(values))) :]
    return float(values.mean() + worst.mean()) / 2


def _motion(planes: _Planes, steps: int) -> tuple[Array, Array]:
    """What moved: the energy of change in fine blocks, and the signed change of coarse blocks' brightness."""
    return measures.block_motion(planes.small, steps), planes.blocks[steps:] - planes.blocks[:-steps]


def _frame(planes: _Planes, index: int) -> tuple[Array, Array]:
    return planes.luma[index].astype(np.float32), planes.chroma[index].astype(np.float32) - np.float32(128)


def _planes(frames: Frames) -> _Planes:
    luma, chroma = frames.luma, frames.chroma
    while min(luma.shape[1:]) > _LONGEST_SHORT_SIDE:
        luma, chroma = (np.rint(measures.halve(plane)).astype(np.uint8) for plane in (luma, chroma))
    small = measures.halve(measures.halve(luma))
    thumbnails = measures.halve(small)
    return _Planes(luma, chroma, small, thumbnails, blocks=measures.halve(measures.halve(thumbnails)))

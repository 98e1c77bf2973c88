"""The `nss` backbone: weight-free natural-scene statistics of frames and of the differences between frames."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.onnx import is_in_onnx_export, operators

from vqa_train.backbones.base import BackboneOptions, VideoBackbone
from vqa_train.backbones.graph_loop import export_map
from vqa_train.backbones.nss_names import MEASURED_NAMES, PER_BURST, PER_CLIP, POOLED_NAMES, TEMPORAL_NAMES
from vqa_train.backbones.nss_spatial import luma_of, planes_of, spatial_features
from vqa_train.backbones.nss_statistics import quantile
from vqa_train.backbones.nss_temporal import burst_series, difference_features, motion_features, split_series
from vqa_train.core.errors import MediaError, Reason
from vqa_train.core.types import Clip, FeatureSpec, OutputSpec, Sampling

BURSTS = 8
BURST = 6
# The frame of a burst that the costly features look at, with the one after it.
KEY = 2
DECODE_BUDGET = 320
SMALLEST = 32
LARGEST = 1920
_WORST = 0.1
# Bursts measured at once, in pixels of one frame: temporary planes of about this size stay in cache.
_CHUNK_PIXELS = 1_000_000


class NssBackbone(VideoBackbone):
    """Statistics that distortions change: no weights, no labels; docs/features/nss.md lists every feature.

    `forward` takes uint8 RGB frames (BURSTS * BURST, H, W, 3) and gives `pooled` (D,), the mean, deviation and worst
    decile over the bursts of each feature and features of the whole clip, and `temporal` (BURSTS, d). Frames under
    SMALLEST pixels are continued by their last row and column; of larger ones than LARGEST the middle is measured.
    Finite on any frames.
    """

    license = "Apache-2.0"

    def __init__(self, options: BackboneOptions | None = None) -> None:
        super().__init__()
        (options or BackboneOptions()).choose("nss", {})
        self.spec = FeatureSpec(
            backbone="nss",
            definition=1,
            modality="video",
            outputs=(
                OutputSpec(name="pooled", shape=(len(POOLED_NAMES),), names=POOLED_NAMES),
                OutputSpec(name="temporal", shape=(BURSTS, len(TEMPORAL_NAMES)), names=TEMPORAL_NAMES),
            ),
            sampling=Sampling(mode="uniform", n=BURSTS, burst=BURST, short="circulant", decode_budget=DECODE_BUDGET),
            preprocessing={"colour": "RGB uint8", "smallest": SMALLEST, "largest": LARGEST},
        )

    def prepare(self, clip: Clip) -> tuple[Tensor, ...]:
        """The clip's frames as they are, uint8 (T, H, W, 3).

        Raises:
            MediaError: not BURSTS * BURST frames of RGB uint8.
        """
        frames = clip.frames
        if frames.ndim != 4 or frames.shape[0] != BURSTS * BURST or frames.shape[3] != 3 or frames.dtype != "uint8":
            raise MediaError(
                f"nss takes uint8 frames ({BURSTS * BURST}, H, W, 3), got {frames.dtype} {frames.shape}",
                reason=Reason.BACKBONE_ERROR,
            )
        return super().prepare(clip)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """pooled (D,) and temporal (BURSTS, d), float32, from frames uint8 (BURSTS * BURST, H, W, 3)."""
        (given,) = inputs
        frames = given.reshape(BURSTS, BURST, given.shape[1], given.shape[2], 3)
        if is_in_onnx_export():
            measured = export_map(_measure, frames)
        else:
            # Temporary planes of about _CHUNK_PIXELS stay in cache, and memory stays low.
            chunk = max(1, _CHUNK_PIXELS // max(1, frames.shape[2] * frames.shape[3]))
            measured = torch.cat([_measure(frames[i : i + chunk]) for i in range(0, BURSTS, chunk)])
        values = dict(zip(MEASURED_NAMES, measured.unbind(1), strict=False))
        per_burst, per_clip = motion_features(split_series(measured[:, len(MEASURED_NAMES) :], BURST))
        values |= per_burst
        temporal = torch.stack([values[name] for name in TEMPORAL_NAMES], 1)
        clip = torch.stack([per_clip[feature.name] for feature in PER_CLIP])
        return torch.cat([*_pool(temporal), clip]), temporal

    def onnx_example(self) -> tuple[Tensor, ...]:
        """Noise of 48 x 64 pixels."""
        generator = torch.Generator().manual_seed(0)
        return (torch.randint(0, 256, (BURSTS * BURST, 48, 64, 3), dtype=torch.uint8, generator=generator),)


def _measure(frames: Tensor) -> Tensor:
    """Statistics of each burst's key pair, then series of each burst, from uint8 (N, BURST, H, W, 3); (N, K)."""
    key, after, coarse = _windows(frames)
    luma, cb, cr = planes_of(key)
    measured = spatial_features(luma, cb, cr)
    measured |= difference_features(luma, luma_of(after))
    values = measured.fitted()
    columns = torch.stack([values[name] for name in MEASURED_NAMES], 1)
    return torch.cat([columns, burst_series(luma_of(coarse))], 1)


def _windows(frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Key frames and the frames after them (N, H, W, 3), and every second pixel of all frames (N, BURST, H, W, 3)."""
    height, width = operators.shape_as_tensor(frames)[2:4]
    (top, bottom), (left, right) = _middle(height), _middle(width)
    key = _grown(frames[:, KEY, top:bottom, left:right], SMALLEST)
    after = _grown(frames[:, KEY + 1, top:bottom, left:right], SMALLEST)
    return key, after, _grown(frames[:, :, top:bottom:2, left:right:2], SMALLEST // 2)


def _middle(length: Tensor) -> tuple[Any, Any]:
    """First and last + 1 of at most LARGEST pixels in the middle; starts on a multiple of 16, as coding blocks do."""
    start = torch.div((length - LARGEST).clamp(min=0), 32, rounding_mode="floor") * 16
    return start, start + length.clamp(max=LARGEST)


def _grown(frames: Tensor, least: int) -> Tensor:
    """At least `least` pixels high and wide, by repeating the last row and column; uint8 (..., H, W, 3)."""
    if not is_in_onnx_export() and min(frames.shape[-3:-1]) >= least:
        return frames
    height, width = operators.shape_as_tensor(frames)[-3:-1]
    rows = torch.arange((least - height).clamp(min=0)) * 0
    columns = torch.arange((least - width).clamp(min=0)) * 0
    frames = torch.cat([frames, frames[..., -1:, :, :].index_select(-3, rows)], -3)
    return torch.cat([frames, frames[..., -1:, :].index_select(-2, columns)], -2)


def _pool(temporal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, deviation and worst decile over the bursts, (BURSTS, d) -> three (d,)."""
    mean = temporal.mean(0)
    centred = temporal - mean
    high = torch.tensor([feature.worse == "high" for feature in PER_BURST], device=temporal.device)
    worst = torch.where(high, quantile(temporal, 1 - _WORST, BURSTS), quantile(temporal, _WORST, BURSTS))
    return mean, (centred * centred).mean(0).sqrt(), worst

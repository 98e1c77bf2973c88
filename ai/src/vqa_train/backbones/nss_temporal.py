"""What `nss` measures between frames: statistics of differences, motion, freezes, jumps, flicker."""

from __future__ import annotations

import torch
from torch import Tensor

from vqa_train.backbones.nss_spatial import mscn_moments
from vqa_train.backbones.nss_statistics import (
    Features,
    Measured,
    ggd_moments,
    halve,
    local_normalise,
    log,
    mean_hw,
    quantile,
    soft_share,
    std_hw,
)


def difference_features(earlier: Tensor, later: Tensor) -> Measured:
    """Statistics of the full-size difference of two neighbouring frames' luma, (N, H, W) each."""
    difference = later - earlier
    size = mean_hw(difference.abs())
    rough = mean_hw((difference[:, :, 1:] - difference[:, :, :-1]).abs())
    rough = (rough + mean_hw((difference[:, 1:] - difference[:, :-1]).abs())) / 2
    mscn, deviation, _ = local_normalise(difference)
    sampled = deviation[:, ::2, ::2]
    measured = Measured(
        {
            "ti": log(std_hw(difference), 1e-1),
            "diff_rough": (rough + 1e-1) / (size + 1e-1),
            "diff_dev_cv": std_hw(sampled) / (mean_hw(sampled) + 1e-1),
            "diff_flat_1": mean_hw(soft_share(sampled, 1.0)),
            "diff_flat_4": mean_hw(soft_share(sampled, 4.0)),
        },
        shapes={"diff": ggd_moments(difference)},
    )
    measured |= mscn_moments("diff1", mscn, diagonals=False)
    measured |= mscn_moments("diff2", local_normalise(halve(difference))[0], diagonals=False)
    return measured


# Name and length, less the burst, of each series.
_SERIES = (("size", -1), ("power", -1), ("still", -1), ("bend", -2), ("level", 0), ("edge", 0), ("variance", 0))


def burst_series(luma: Tensor) -> Tensor:
    """What happens within each burst, side by side, (N, K), from coarse luma (N, burst, H, W)."""
    steps = luma[:, 1:] - luma[:, :-1]
    size = steps.abs()
    level = mean_hw(luma)
    centred = luma - level[:, :, None, None]
    series = {
        "size": mean_hw(size),
        "power": mean_hw(steps * steps),
        "still": mean_hw(soft_share(size, 1.0)),
        "bend": mean_hw((steps[:, 1:] - steps[:, :-1]).abs()),
        "level": level,
        "edge": mean_hw((luma[..., 1:] - luma[..., :-1]).abs()),
        "variance": mean_hw(centred * centred),
    }
    return torch.cat([series[name] for name, _ in _SERIES], 1)


def split_series(columns: Tensor, burst: int) -> Features:
    """The series of `burst_series` by name."""
    parts = torch.split(columns, [burst + less for _, less in _SERIES], 1)
    return {name: part for (name, _), part in zip(_SERIES, parts, strict=True)}


def typical_motion(size: Tensor) -> Tensor:
    """Mean difference () of the pairs (n, burst - 1) that move at all; 0 where none does.

    The mean of square roots, squared: a jump or a cut counts little.
    """
    moving = 1 - soft_share(size, 0.2)
    return ((moving * size.sqrt()).sum() / (moving.sum() + 1e-6)) ** 2


def _relative_step(values: Tensor) -> Tensor:
    """|change| from frame to frame over the sum of both, (n, burst) -> (n, burst - 1), 0 to 1."""
    return (values[:, 1:] - values[:, :-1]).abs() / (values[:, 1:] + values[:, :-1] + 1.0)


def motion_features(series: Features) -> tuple[Features, Features]:
    """Features (n,) of each burst and () of the clip, from `burst_series` of all bursts."""
    size, level, variance = series["size"], series["level"], series["variance"]
    pairs = size.shape[0] * size.shape[1]
    step = (level[:, 1:] - level[:, :-1]).abs()
    flicker = (level[:, 2:] - 2 * level[:, 1:-1] + level[:, :-2]).abs()
    # What rounding leaves of a constant frame is no contrast.
    deviation = (variance - 1e-6).clamp(min=0.0).sqrt()
    contrast_step = _relative_step(deviation)
    sharp_step = _relative_step(series["edge"])
    gain = (variance[:, 1:] - variance[:, :-1]).abs() / 2
    gain_share = gain / ((series["power"].sqrt() + 0.1) * (deviation[:, 1:] + deviation[:, :-1] + 0.2) / 2)
    typical = typical_motion(size)
    relative = (size + 0.02) / (typical + 0.02)
    frozen = soft_share(relative, 0.08)
    jump = torch.log2(relative.clamp(min=0.5))
    features = {
        "motion": log(size.mean(1), 0.1),
        "motion_range": log(size.max(1).values, 0.1) - log(size.min(1).values, 0.1),
        "speed": log(size.mean(1), 0.1) - log(series["edge"].mean(1), 0.1),
        "irregular": ((series["bend"] + 0.05) / (size[:, 1:] + size[:, :-1] + 0.1)).mean(1),
        "still": series["still"].mean(1),
        "frozen": frozen.mean(1),
        "stutter": (frozen[:, 1:] - frozen[:, :-1]).abs().mean(1),
        "jump": jump.max(1).values,
        "luma_step": log(step.mean(1), 2e-2),
        "flicker": log(flicker.mean(1), 2e-2),
        "flicker_share": (step / (size + 0.1)).mean(1),
        "gain_share": gain_share.mean(1),
        "contrast_step": log(contrast_step.mean(1), 1e-2),
        "sharp_step": log(sharp_step.mean(1), 1e-2),
    }
    every = jump.flatten()
    clip = {
        "typical_motion": log(typical, 0.1),
        "lost_motion": log((frozen * typical).mean(), 0.1),
        "frozen_bursts": frozen.min(1).values.mean(),
        "judder": log((size - typical).abs().mean(), 0.1),
        "judder_share": log((size - typical).abs().mean() / (typical + 0.2), 0.05),
        "jump_worst": quantile(every, 0.95, pairs),
        "luma_spread": log((level - level.mean()).square().mean().sqrt(), 0.1),
        "step_worst": log(quantile(step.flatten(), 0.9, pairs), 2e-2),
        "flicker_worst": log(quantile(flicker.flatten(), 0.9, pairs - size.shape[0]), 2e-2),
        "sharp_step_worst": log(quantile(sharp_step.flatten(), 0.9, pairs), 1e-2),
    }
    return features, clip

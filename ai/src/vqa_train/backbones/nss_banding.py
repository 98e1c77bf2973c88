"""Banding for `nss`: steps between flat stretches, and luma that sits on a lattice of few levels."""

from __future__ import annotations

import torch
from torch import Tensor

from vqa_train.backbones.nss_statistics import Features, mean_hw, soft_share

# A difference of up to _FLAT luma levels between neighbours counts as flat: decoding and RGB conversion move a
# flat area by about one level.
_FLAT = 1.2
_HEIGHTS = (4.0, 12.0, 40.0)
_PERIODS = ((6.0, 14.0), (14.0, 28.0), (28.0, 64.0))
_BINS = 256


def step_shares(plane: Tensor) -> list[Tensor]:
    """Share of pixels at a step between two flat stretches, per range of step height in luma levels; (N,) each."""
    shares: list[Tensor] = []
    for lines in (plane[:, ::2], plane[:, :, ::2].transpose(1, 2)):
        step = (lines[:, :, 1:] - lines[:, :, :-1]).abs()
        flat = soft_share(step, _FLAT)
        around = flat[:, :, :-4] * flat[:, :, 1:-3] * flat[:, :, 3:-1] * flat[:, :, 4:]
        height = step[:, :, 2:-2]
        lower = flat[:, :, 2:-2]
        for i, limit in enumerate(_HEIGHTS):
            upper = soft_share(height, limit)
            share = mean_hw(around * (upper - lower)) / 2
            lower = upper
            if len(shares) <= i:
                shares.append(share)
            else:
                shares[i] = shares[i] + share
    return shares


def _waves() -> tuple[Tensor, list[int]]:
    """Matrix (256, 4 F) of cos and sin at F frequencies and at their halves, and how many F each period range has."""
    frequencies: list[float] = []
    counts = []
    for shortest, longest in _PERIODS:
        # 255 levels tell frequencies 1/255 apart; a third of that loses less than 5% of a peak.
        count = int((1 / shortest - 1 / longest) * 255 * 3) + 1
        frequencies += [1 / longest + (1 / shortest - 1 / longest) * i / count for i in range(count)]
        counts.append(count)
    turns = torch.arange(_BINS, dtype=torch.float64)[:, None] * torch.tensor(frequencies, dtype=torch.float64)
    angles = [2 * torch.pi * turns, torch.pi * turns]
    return torch.cat([wave(angle) for angle in angles for wave in (torch.cos, torch.sin)], 1).float(), counts


def lattice_strengths(luma: Tensor) -> list[Tensor]:
    """How far luma keeps to multiples of one step, per range of steps, 0 (no) to 1 (all pixels); (N,) each.

    |E exp(2 pi i Y / step)| less the same at twice the step, which is the larger where there is no lattice; the
    largest over a range.
    """
    waves, counts = _waves()
    levels = (luma[:, ::4, ::4] + 128.5).clamp(0, _BINS - 1).long().flatten(1)
    histogram = torch.zeros(luma.shape[0], _BINS, device=luma.device)
    histogram = histogram.scatter_add(1, levels, torch.ones_like(levels, dtype=torch.float32))
    histogram = histogram / histogram.sum(1, keepdim=True)
    cos, sin, half_cos, half_sin = (histogram @ waves.to(luma.device)).chunk(4, 1)
    strength = ((cos**2 + sin**2).sqrt() - (half_cos**2 + half_sin**2).sqrt()).relu()
    return [chunk.max(1).values for chunk in torch.split(strength, counts, 1)]


def banding_features(luma: Tensor, half: Tensor) -> Features:
    """Banding of full-size and half-size luma."""
    features: Features = {}
    for prefix, plane in (("band1", luma), ("band2", half)):
        shares = step_shares(plane)
        features |= {f"{prefix}_{size}": share for size, share in zip(("low", "mid", "high"), shares, strict=True)}
    for size, strength in zip(("fine", "mid", "coarse"), lattice_strengths(luma), strict=True):
        features[f"lattice_{size}"] = strength
    return features

"""What `nss` measures inside one frame: MSCN, gradients, Laplacian, sharpness, noise, blocks, colour."""

from __future__ import annotations

import torch
from torch import Tensor

from vqa_train.backbones.nss_banding import banding_features
from vqa_train.backbones.nss_statistics import (
    EPS,
    Features,
    Measured,
    aggd_moments,
    crop,
    ggd_moments,
    halve,
    local_normalise,
    log,
    mean_hw,
    part,
    soft_share,
    std_hw,
)

# Periods in pixels of an 8- or 16-pixel grid after enlargement by 4/3, 1.5, 2, 2.5, 3 and 4.
_GRID_PERIODS = (32 / 3, 12.0, 16.0, 20.0, 24.0, 32.0)
# C of gradient magnitude similarity (170 for Prewitt / 3 over two pixels), for gradients per pixel.
_SIMILARITY_C = 170.0 / 4


def luma_of(rgb: Tensor) -> Tensor:
    """BT.601 full-range luma minus 128, float32 (...), from uint8 RGB (..., 3).

    Centred so that local variances lose little to rounding in float32.
    """
    # Taken apart at once: picked one by one, each channel costs onnxruntime several times as much.
    red, green, blue = rgb.unbind(-1)
    return _luma(red.float(), green.float(), blue.float())


def _luma(red: Tensor, green: Tensor, blue: Tensor) -> Tensor:
    return red * 0.299 + green * 0.587 + blue * 0.114 - 128.0


def planes_of(rgb: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Luma as `luma_of`, Cb and Cr at half size, (N, H // 2, W // 2), from uint8 RGB (N, H, W, 3)."""
    red, green, blue = (channel.float() for channel in rgb.unbind(-1))
    luma = _luma(red, green, blue)
    shifted = luma + 128.0
    return luma, halve(blue - shifted) * (0.5 / 0.886), halve(red - shifted) * (0.5 / 0.701)


def mscn_moments(prefix: str, mscn: Tensor, *, diagonals: bool = True) -> Measured:
    """Moments of an MSCN plane and of its products with horizontal and vertical (and diagonal) neighbours."""
    across, down = mscn[:, :, :-1] * mscn[:, :, 1:], mscn[:, :-1] * mscn[:, 1:]
    measured = Measured(ggd={prefix: ggd_moments(mscn)})
    measured.aggd[f"{prefix}_hv"] = (aggd_moments(across) + aggd_moments(down)) / 2
    if diagonals:
        falling, rising = mscn[:, :-1, :-1] * mscn[:, 1:, 1:], mscn[:, :-1, 1:] * mscn[:, 1:, :-1]
        measured.aggd[f"{prefix}_d"] = (aggd_moments(falling) + aggd_moments(rising)) / 2
    return measured


def second_difference(plane: Tensor, axis: int) -> Tensor:
    """x[i-1] - 2 x[i] + x[i+1] along an axis."""
    return part(plane, axis, 0, 2) + part(plane, axis, 2, 0) - 2 * part(plane, axis, 1, 1)


def gradients(plane: Tensor) -> tuple[Tensor, Tensor]:
    """Horizontal and vertical Sobel response per pixel step (mask / 8), (N, H, W) -> two (N, H - 2, W - 2)."""

    def smooth(axis: int) -> Tensor:
        return (part(plane, axis, 0, 2) + part(plane, axis, 2, 0) + 2 * part(plane, axis, 1, 1)) / 8

    down, across = smooth(1), smooth(2)
    return down[:, :, 2:] - down[:, :, :-2], across[:, 2:] - across[:, :-2]


def laplacian_moments(plane: Tensor) -> Tensor:
    """Moments of the 4-neighbour Laplacian, (N, 2)."""
    return ggd_moments(second_difference(plane, 2)[:, 1:-1] + second_difference(plane, 1)[:, :, 1:-1])


def magnitude_of(plane: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient magnitude and its square, (N, H - 2, W - 2)."""
    gx, gy = gradients(plane)
    squared = gx * gx + gy * gy
    return squared.sqrt(), squared


def gradient_features(magnitude: Tensor, squared: Tensor) -> Features:
    """Level and spread of the gradient magnitude."""
    mean = mean_hw(magnitude)
    spread = (mean_hw(squared) - mean * mean).clamp(min=0.0).sqrt()
    return {"grad": log(mean, 1e-1), "grad_cv": log(spread / (mean + 1e-1), 1e-1), "si": log(8 * spread, 1.0)}


def reblur_features(magnitude: Tensor, squared: Tensor, blurred: Tensor) -> Features:
    """How like its own blur a plane is: gradient similarity, and ratio of the mean gradients."""
    soft, soft_squared = magnitude_of(blurred)
    sharp = crop(magnitude)
    similar = (2 * sharp * soft + _SIMILARITY_C) / (crop(squared) + soft_squared + _SIMILARITY_C)
    return {"reblur": mean_hw(similar), "reblur_ratio": (mean_hw(soft) + 1e-1) / (mean_hw(sharp) + 1e-1)}


def axis_blur_features(plane: Tensor, blurred: Tensor) -> Features:
    """Share of the neighbour differences that a blur leaves, per axis."""
    features: Features = {}
    inner = crop(plane)
    for name, axis in (("blur_h", 2), ("blur_v", 1)):
        sharp = (part(inner, axis, 1, 0) - part(inner, axis, 0, 1)).abs()
        soft = (part(blurred, axis, 1, 0) - part(blurred, axis, 0, 1)).abs()
        features[name] = 1 - mean_hw((sharp - soft).relu()) / (mean_hw(sharp) + 1e-2)
    return features


def noise_moments(plane: Tensor) -> Tensor:
    """Moments of the response to Immerkaer's mask [1 -2 1] x [1 -2 1], (N, 2)."""
    return ggd_moments(second_difference(second_difference(plane, 2), 1))


def block_features(plane: Tensor) -> Features:
    """Strength of an 8-pixel grid at its best phase over the other phases, and of grids enlarged by upscaling."""
    eight: list[Tensor] = []
    enlarged: list[Tensor] = []
    periods = torch.tensor(_GRID_PERIODS, device=plane.device)
    for steps in ((plane[:, :, 1:] - plane[:, :, :-1]).abs().mean(1), (plane[:, 1:] - plane[:, :-1]).abs().mean(2)):
        excess = (steps[:, 1:-1] - (steps[:, :-2] + steps[:, 2:]) / 2).relu()
        excess = excess / (steps.mean(1, keepdim=True) + 1e-2)
        phases = torch.stack([excess[:, i::8].mean(1) for i in range(8)])
        best = phases.max(0).values
        eight.append(log(best, 1e-2) - log((phases.sum(0) - best) / 7, 1e-2))
        # A running sum of ones instead of arange: the exporter would freeze the length.
        turns = torch.cumsum(torch.ones_like(excess[0]), 0)[:, None] / periods
        angle = 2 * torch.pi * (turns - torch.floor(turns))
        wave = ((excess @ torch.cos(angle)) ** 2 + (excess @ torch.sin(angle)) ** 2).sqrt()
        enlarged.append(wave.max(1).values / (excess.sum(1) + 1e-2))
    return {"block_8": (eight[0] + eight[1]) / 2, "block_up": (enlarged[0] + enlarged[1]) / 2}


def colour_features(luma: Tensor, cb: Tensor, cr: Tensor) -> Features:
    """Brightness, contrast and colourfulness."""
    sampled = luma[:, ::2, ::2]
    rg = 2.116136 * cr + 0.344136 * cb
    yb = 0.343932 * cr - 1.944068 * cb
    spread = (std_hw(rg) ** 2 + std_hw(yb) ** 2).sqrt()
    shift = (mean_hw(rg) ** 2 + mean_hw(yb) ** 2 + EPS).sqrt()
    return {
        "brightness": (mean_hw(sampled) + 128.0) / 255,
        "contrast": std_hw(sampled) / 255,
        "colourfulness": log(spread + 0.3 * shift, 1.0),
    }


def spatial_features(luma: Tensor, cb: Tensor, cr: Tensor) -> Measured:
    """Everything about frames given as `planes_of` gives them."""
    measured = Measured(colour_features(luma, cb, cr))
    planes = (luma, halve(luma), halve(halve(luma)))
    slopes = []
    for scale, plane in ((1, planes[0]), (2, planes[1])):
        mscn, deviation, blurred = local_normalise(plane)
        measured |= mscn_moments(f"y{scale}", mscn)
        magnitude, squared = magnitude_of(plane)
        features = reblur_features(magnitude, squared, blurred)
        slopes.append(log(mean_hw(magnitude), 1e-1))
        if scale == 1:
            features |= gradient_features(magnitude, squared)
            sampled = deviation[:, ::2, ::2]
            measured.values |= {f"flat_{t:g}": mean_hw(soft_share(sampled, t)) for t in (1.0, 4.0)}
            measured.values |= axis_blur_features(plane, blurred) | block_features(plane)
        measured.values |= {f"y{scale}_{name}": value for name, value in features.items()}
    slopes.append(log(mean_hw(magnitude_of(planes[2])[0]), 1e-1))
    chroma = torch.cat([cb, cr])
    for prefix, plane in (("c2", chroma), ("c4", halve(chroma))):
        measured |= mscn_moments(prefix, local_normalise(plane)[0], diagonals=False).mean_of_halves()
    laps, noise = [laplacian_moments(plane) for plane in planes], noise_moments(luma)
    levels = [log(lap[:, 0], 1e-1) for lap in laps]
    measured.shapes |= {"y1_lap": laps[0], "y2_lap": laps[1], "noise": noise}
    measured.values |= {
        "y1_lap": levels[0],
        "grad_slope_1": slopes[1] - slopes[0],
        "grad_slope_2": slopes[2] - slopes[1],
        "lap_slope_1": levels[1] - levels[0],
        "lap_slope_2": levels[2] - levels[1],
        "noise": log(noise[:, 0] * ((torch.pi / 2) ** 0.5 / 6), 1e-1),
        "noise_share": log(noise[:, 0], 1e-1) - levels[1],
    }
    measured.values |= banding_features(planes[0], planes[1])
    return measured

"""The features of `nss` by name: formula, source, range, and which way is worse; docs/features/nss.md prints them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Pool = Literal["mean", "std", "worst"]
POOLS: tuple[Pool, ...] = ("mean", "std", "worst")

_BRISQUE = "Mittal et al. 2012"
_AGGD = "Lasmar et al. 2009; Mittal et al. 2012"
_VIIDEO = "after Mittal et al. 2016"
_SOBEL = "Sobel; ITU-T P.910"
_CRETE = "after Crete et al. 2007"
_OURS = "ours"
_SHAPES = "-2.3 to 3.3"


@dataclass(frozen=True)
class Feature:
    """One feature.

    Attributes:
        name: unique among the features of its output.
        formula: what it is.
        source: paper or standard; "ours" for what has none.
        range: of its values.
        worse: the end of its range that distortions move it to; the decile at that end is pooled as `worst`.
    """

    name: str
    formula: str
    source: str
    range: str
    worse: Literal["high", "low"]


def _mscn(prefix: str, plane: str, products: dict[str, str], source: str) -> Iterator[Feature]:
    yield Feature(f"{prefix}_alpha", f"log2 GGD shape of M = MSCN of {plane}", source, _SHAPES, "low")
    yield Feature(f"{prefix}_std", f"GGD deviation of M = MSCN of {plane}", source, "0 to 1.2", "low")
    for key, what in products.items():
        of = f"of {what}, M = MSCN of {plane}"
        yield Feature(f"{prefix}_{key}_alpha", f"log2 AGGD shape {of}", _AGGD, _SHAPES, "low")
        yield Feature(f"{prefix}_{key}_mean", f"AGGD mean {of}", _AGGD, "-1 to 1", "high")
        yield Feature(f"{prefix}_{key}_left", f"AGGD left deviation {of}", _AGGD, "0 to 1.2", "low")
        yield Feature(f"{prefix}_{key}_right", f"AGGD right deviation {of}", _AGGD, "0 to 1.2", "low")


_HV = {"hv": "products with right and lower neighbours (moments averaged)"}
_ALL = {**_HV, "d": "products with both diagonal neighbours (moments averaged)"}


def _spatial() -> Iterator[Feature]:
    yield Feature("brightness", "mean Y / 255", _OURS, "0 to 1", "low")
    yield Feature("contrast", "deviation of Y / 255 (RMS contrast)", "Peli 1990", "0 to 0.5", "low")
    yield Feature(
        "colourfulness",
        "log2(1 + deviation + 0.3 |mean| of (R - G, (R + G) / 2 - B)), at half size",
        "Hasler and Suesstrunk 2003",
        "0 to 8",
        "low",
    )
    yield from _mscn("y1", "Y", _ALL, _BRISQUE)
    yield from _mscn("y2", "Y at half size", _ALL, _BRISQUE)
    yield from _mscn("c2", "Cb and Cr at half size (moments averaged)", _HV, _BRISQUE)
    yield from _mscn("c4", "Cb and Cr at quarter size (moments averaged)", _HV, _BRISQUE)
    yield Feature("y1_grad", "log2(0.1 + mean G), G = gradient magnitude", "Sobel", "-3.3 to 7", "low")
    yield Feature("y1_grad_cv", "log2(0.1 + deviation of G / (0.1 + mean G))", _OURS, "-3.3 to 5", "high")
    yield Feature("y1_si", "log2(1 + 8 deviation of G): spatial information", _SOBEL, "0 to 10", "low")
    yield Feature("grad_slope_1", "log2 ratio of mean G, half over full size", _OURS, "-5 to 5", "high")
    yield Feature("grad_slope_2", "log2 ratio of mean G, quarter over half size", _OURS, "-5 to 5", "high")
    yield Feature("y1_lap", "log2(0.1 + mean |L|), L = 4-neighbour Laplacian", _OURS, "-3.3 to 9", "low")
    yield Feature("y1_lap_alpha", "log2 GGD shape of L", _BRISQUE, _SHAPES, "low")
    yield Feature("y2_lap_alpha", "log2 GGD shape of L at half size", _BRISQUE, _SHAPES, "low")
    yield Feature("lap_slope_1", "log2 ratio of mean |L|, half over full size", _OURS, "-5 to 5", "high")
    yield Feature("lap_slope_2", "log2 ratio of mean |L|, quarter over half size", _OURS, "-5 to 5", "high")
    for scale, size in ((1, ""), (2, " at half size")):
        formula = f"mean (2 G B + c) / (G^2 + B^2 + c), B = G of the Gaussian-blurred Y, c = 42.5{size}"
        yield Feature(f"y{scale}_reblur", formula, "Xue et al. 2014; Crete et al. 2007", "0 to 1", "high")
        yield Feature(f"y{scale}_reblur_ratio", f"mean B / mean G{size}", _CRETE, "0 to 1", "high")
    for axis, neighbour in (("h", "right"), ("v", "lower")):
        formula = f"1 - mean (|D| - |D of blurred Y|)+ / mean |D|, D = difference to the {neighbour} neighbour"
        yield Feature(f"blur_{axis}", formula, "Crete et al. 2007", "0 to 1", "high")
    yield Feature(
        "noise", "log2(0.1 + sqrt(pi / 2) mean |N| / 6), N = Immerkaer's mask", "Immerkaer 1996", "-3.3 to 8", "high"
    )
    yield Feature("noise_alpha", "log2 GGD shape of N", _OURS, _SHAPES, "high")
    yield Feature("noise_share", "log2 ratio of mean |N| and mean |L| at half size", _OURS, "-12 to 5", "high")
    for limit in (1, 4):
        formula = f"soft share of pixels with local deviation below {limit}"
        yield Feature(f"flat_{limit}", formula, _OURS, "0 to 1", "high")
    yield Feature(
        "block_8",
        "log2 ratio of step excess at the best phase of 8 and at the rest",
        "after Wang et al. 2000",
        "0 to 8",
        "high",
    )
    yield Feature(
        "block_up", "largest Fourier magnitude of the step excess at periods of enlarged grids", _OURS, "0 to 1", "high"
    )
    for scale, size in ((1, "full"), (2, "half")):
        for name, low, high in (("low", "1.2", "4"), ("mid", "4", "12"), ("high", "12", "40")):
            formula = f"share of pixels at a step of {low} to {high} levels between flat stretches, {size} size"
            yield Feature(f"band{scale}_{name}", formula, "after Tandon et al. 2021 (CAMBI)", "0 to 1", "high")
    for name, steps in (("fine", "6 to 14"), ("mid", "14 to 28"), ("coarse", "28 to 64")):
        formula = f"largest |E exp(2 pi i Y / s)| - |E exp(pi i Y / s)| over steps s of {steps}"
        yield Feature(f"lattice_{name}", formula, _OURS, "0 to 1", "high")


def _difference() -> Iterator[Feature]:
    yield Feature(
        "ti",
        "log2(0.1 + deviation of D), D = difference of two frames: temporal information",
        "ITU-T P.910",
        "-3.3 to 8",
        "high",
    )
    yield Feature("diff_alpha", "log2 GGD shape of D", _VIIDEO, _SHAPES, "low")
    yield Feature("diff_rough", "mean |difference of neighbours in D| / mean |D|", _OURS, "0 to 2", "high")
    yield Feature("diff_dev_cv", "deviation / mean of the local deviation of D", _OURS, "0 to 20", "high")
    for limit in (1, 4):
        formula = f"soft share of pixels where the local deviation of D is below {limit}"
        yield Feature(f"diff_flat_{limit}", formula, _OURS, "0 to 1", "high")
    yield from _mscn("diff1", "D", _HV, _VIIDEO)
    yield from _mscn("diff2", "D at half size", _HV, _VIIDEO)


def _motion() -> Iterator[Feature]:
    yield Feature(
        "motion", "log2(0.1 + mean m), m = mean |difference| of each pair of frames", _OURS, "-3.3 to 8", "high"
    )
    yield Feature("motion_range", "log2 ratio of the largest and the smallest m", _OURS, "0 to 12", "high")
    yield Feature(
        "speed",
        "log2 ratio of m and the mean neighbour difference: about pixels per frame",
        "after Horn and Schunck 1981",
        "-8 to 8",
        "high",
    )
    yield Feature("irregular", "mean |second difference over time| / sum of the two m", _OURS, "0 to 1", "high")
    yield Feature("still", "soft share of pixels that change by less than 1", _OURS, "0 to 1", "high")
    yield Feature("frozen", "soft share of pairs with m below 8% of typical m", _OURS, "0 to 1", "high")
    yield Feature("stutter", "mean |change| of frozen from pair to pair", _OURS, "0 to 1", "high")
    yield Feature("jump", "log2 ratio of the largest m and typical m, at least -1", _OURS, "-1 to 10", "high")
    yield Feature("luma_step", "log2(0.02 + mean |change of mean Y|)", _OURS, "-5.6 to 8", "high")
    yield Feature("flicker", "log2(0.02 + mean |second difference of mean Y over time|)", _OURS, "-5.6 to 9", "high")
    yield Feature("flicker_share", "mean |change of mean Y| / m", _OURS, "0 to 1", "high")
    yield Feature(
        "gain_share",
        "correlation of the change of Y with Y: how much of it is a change of gain",
        _OURS,
        "0 to 1",
        "high",
    )
    yield Feature(
        "contrast_step",
        "log2(0.01 + mean |change| / sum of the deviation of Y in both frames)",
        _OURS,
        "-6.6 to 0",
        "high",
    )
    yield Feature(
        "sharp_step",
        "log2(0.01 + mean |change| / sum of the mean neighbour difference in both frames)",
        _OURS,
        "-6.6 to 0",
        "high",
    )


SPATIAL = tuple(_spatial())
DIFFERENCE = tuple(_difference())
MOTION = tuple(_motion())
PER_BURST = SPATIAL + DIFFERENCE + MOTION

PER_CLIP = (
    Feature("typical_motion", "log2(0.1 + t), t = (mean sqrt(m) of the pairs that move)^2", _OURS, "-3.3 to 8", "high"),
    Feature("lost_motion", "log2(0.1 + t mean frozen)", _OURS, "-3.3 to 8", "high"),
    Feature("frozen_bursts", "mean over bursts of the least frozen pair", _OURS, "0 to 1", "high"),
    Feature("judder", "log2(0.1 + mean |m - t|)", _OURS, "-3.3 to 8", "high"),
    Feature("judder_share", "log2(0.05 + mean |m - t| / (0.2 + t))", _OURS, "-4.3 to 3", "high"),
    Feature("jump_worst", "95th percentile over all pairs of log2 (m / t), at least -1", _OURS, "-1 to 10", "high"),
    Feature("luma_spread", "log2(0.1 + deviation of mean Y over the clip)", _OURS, "-3.3 to 7", "high"),
    Feature("step_worst", "log2(0.02 + 90th percentile of |change of mean Y|)", _OURS, "-5.6 to 8", "high"),
    Feature(
        "flicker_worst", "log2(0.02 + 90th percentile of |second difference of mean Y|)", _OURS, "-5.6 to 9", "high"
    ),
    Feature("sharp_step_worst", "as sharp_step, of the 90th percentile over all pairs", _OURS, "-6.6 to 0", "high"),
)

MEASURED_NAMES = tuple(feature.name for feature in SPATIAL + DIFFERENCE)
TEMPORAL_NAMES = tuple(feature.name for feature in PER_BURST)
POOLED_NAMES = tuple(f"{feature.name}.{pool}" for pool in POOLS for feature in PER_BURST) + tuple(
    f.name for f in PER_CLIP
)

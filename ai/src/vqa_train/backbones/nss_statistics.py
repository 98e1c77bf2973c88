"""Small exportable statistics that `nss` is made of: moment fits of (asymmetric) generalised Gaussians, local
normalisation, soft shares and pooling over a fixed number of values."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

Features = dict[str, Tensor]

SHAPE_MIN = 0.2
SHAPE_MAX = 10.0
_TABLE_SIZE = 513
# Keeps ratios finite on constant planes; MSCN values and luma differences live around 1.
EPS = 1e-8


def gamma_ratio(shape: float) -> float:
    """(E|x|)^2 / E[x^2] of a zero-mean generalised Gaussian: Γ(2/a)^2 / (Γ(1/a) Γ(3/a)), increasing in `shape`.

    Source: Sharifi and Leon-Garcia, IEEE Trans. Circuits Syst. Video Technol. 5(1), 1995.
    """
    return math.exp(2 * math.lgamma(2 / shape) - math.lgamma(1 / shape) - math.lgamma(3 / shape))


@cache
def _shape_table() -> tuple[Tensor, Tensor, Tensor]:
    """Knots of the ratio (K,), widths of the pieces (K-1,), slopes of log shape over the ratio (K-1,)."""
    shapes = [SHAPE_MIN * (SHAPE_MAX / SHAPE_MIN) ** (i / (_TABLE_SIZE - 1)) for i in range(_TABLE_SIZE)]
    ratios = torch.tensor([gamma_ratio(shape) for shape in shapes], dtype=torch.float64)
    logs = torch.tensor([math.log(shape) for shape in shapes], dtype=torch.float64)
    widths = ratios.diff()
    return ratios[:-1].float(), widths.float(), (logs.diff() / widths).float()


def shape_from_ratio(ratio: Tensor) -> Tensor:
    """The shape whose `gamma_ratio` is `ratio`, any shape of tensor; clipped to [SHAPE_MIN, SHAPE_MAX].

    Piecewise linear in log shape, written as a sum of clamped steps because ONNX opset 17 has no searchsorted.
    """
    knots, widths, slopes = (part.to(ratio.device) for part in _shape_table())
    steps = torch.minimum((ratio.unsqueeze(-1) - knots).clamp(min=0.0), widths)
    return SHAPE_MIN * torch.exp((steps * slopes).sum(-1))


def mean_hw(plane: Tensor) -> Tensor:
    """Mean over the last two axes, rows first: short sums lose little in float32, in torch and in onnxruntime."""
    return plane.mean(-1).mean(-1)


def std_hw(plane: Tensor) -> Tensor:
    """Population standard deviation over the last two axes (N, H, W) -> (N,)."""
    centred = plane - mean_hw(plane)[:, None, None]
    return mean_hw(centred * centred).sqrt()


def ggd_moments(plane: Tensor) -> Tensor:
    """E|x| and E[x^2] of each plane, (N, H, W) -> (N, 2)."""
    return torch.stack([mean_hw(plane.abs()), mean_hw(plane * plane)], -1)


def ggd_fit(moments: Tensor) -> tuple[Tensor, Tensor]:
    """Shape and standard deviation of a zero-mean generalised Gaussian from `ggd_moments`, (..., 2) -> two (...).

    A plane of zeros gives (SHAPE_MIN, 0). Source: Mittal, Moorthy and Bovik, IEEE Trans. Image Process. 21(12), 2012.
    """
    first, second = moments.unbind(-1)
    return shape_from_ratio(first * first / (second + EPS)), second.sqrt()


def aggd_moments(plane: Tensor) -> Tensor:
    """E|x|, E[x^2] and E[x^2; x > 0] of each plane, (N, H, W) -> (N, 3)."""
    positive = plane.relu()
    return torch.stack([mean_hw(plane.abs()), mean_hw(plane * plane), mean_hw(positive * positive)], -1)


def aggd_fit(moments: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Shape, mean, left and right deviation of an asymmetric generalised Gaussian, (..., 3) -> four (...).

    The sides are told apart by their partial second moments, E[x^2; x < 0] / E[x^2; x > 0] = (left / right)^3 in the
    model, so no pixels need be counted. A plane of zeros gives (SHAPE_MIN, 0, 0, 0).
    Source: Lasmar, Stitou and Berthoumieu, ICIP 2009 (density and ratio); Mittal et al. 2012 (the four features).
    """
    first, second, right_part = moments.unbind(-1)
    left_part = (second - right_part).clamp(min=0.0)
    gamma = ((left_part + EPS) / (right_part + EPS)) ** (1 / 3)
    right = (second / (1 - gamma + gamma * gamma)).sqrt()
    left = gamma * right
    ratio = first * first / (second + EPS) * (gamma**3 + 1) * (gamma + 1) / (gamma * gamma + 1) ** 2
    ratio = ratio.clamp(gamma_ratio(SHAPE_MIN), gamma_ratio(SHAPE_MAX))
    return shape_from_ratio(ratio), (right - left) * ratio.sqrt(), left, right


def _gaussian(sigma: float = 7 / 6, radius: int = 3) -> tuple[float, ...]:
    """One side of the normalised window, centre first."""
    side = [math.exp(-(i * i) / (2 * sigma * sigma)) for i in range(radius + 1)]
    total = side[0] + 2 * sum(side[1:])
    return tuple(value / total for value in side)


_WINDOW = _gaussian()
MARGIN = len(_WINDOW) - 1


def part(plane: Tensor, axis: int, start: int, end: int) -> Tensor:
    """Without `start` pixels before and `end` after along axis 1 or 2; constant slices keep the ONNX graph small."""
    window = slice(start, -end if end else None)
    return plane[:, window] if axis == 1 else plane[:, :, window]


def _blur_along(plane: Tensor, axis: int) -> Tensor:
    blurred = part(plane, axis, MARGIN, MARGIN) * _WINDOW[0]
    for i in range(1, MARGIN + 1):
        pair = part(plane, axis, MARGIN - i, MARGIN + i) + part(plane, axis, MARGIN + i, MARGIN - i)
        blurred = blurred + pair * _WINDOW[i]
    return blurred


def gaussian_blur(plane: Tensor) -> Tensor:
    """7 x 7 Gaussian window of deviation 7/6 where it fits, (N, H, W) -> (N, H - 6, W - 6)."""
    # Shifted sums: convolution of a single channel is several times slower in torch.
    return _blur_along(_blur_along(plane, 1), 2)


def local_normalise(plane: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean-subtracted contrast-normalised plane, local deviation and local mean, each (N, H - 6, W - 6).

    (x - mean) / (deviation + 1) with x on 0-255 (any offset). Source: Mittal et al. 2012, equations 1 to 3.
    """
    mean = gaussian_blur(plane)
    deviation = (gaussian_blur(plane * plane) - mean * mean).clamp(min=0.0).sqrt()
    return (crop(plane) - mean) / (deviation + 1.0), deviation, mean


def crop(plane: Tensor, margin: int = MARGIN) -> Tensor:
    """Without `margin` pixels at each side."""
    return plane[:, margin:-margin, margin:-margin]


def halve(plane: Tensor) -> Tensor:
    """2 x 2 mean; an odd last row or column is left out, (N, H, W) -> (N, H // 2, W // 2)."""
    return torch.nn.functional.avg_pool2d(plane.unsqueeze(1), 2).squeeze(1)


def log(value: Tensor, floor: float) -> Tensor:
    """log2(value + floor): twice the value is one more, and nothing stays finite."""
    return torch.log2(value + floor)


def soft_share(values: Tensor, threshold: float) -> Tensor:
    """Weight of "below threshold" in [0, 1]: 1 up to `threshold`, falling to 0 at twice that.

    Soft so that rounding in a decoder or runtime moves the mean by no more than the rounding.
    """
    return (2.0 - values / threshold).clamp(0.0, 1.0)


def quantile(values: Tensor, q: float, count: int) -> Tensor:
    """Linear-interpolated quantile over the first axis, of fixed length `count`: (count, ...) -> (...)."""
    ordered = torch.sort(values, dim=0).values
    position = q * (count - 1)
    low = min(int(position), max(count - 2, 0))
    return torch.lerp(ordered[low], ordered[min(low + 1, count - 1)], position - low)


@dataclass
class Measured:
    """What one pass over frames gives, by name.

    Attributes:
        values: finished features (N,).
        shapes: GGD moments (N, 2) of which only the shape is a feature.
        ggd: GGD moments (N, 2).
        aggd: AGGD moments (N, 3).
    """

    values: Features = field(default_factory=dict)
    shapes: Features = field(default_factory=dict)
    ggd: Features = field(default_factory=dict)
    aggd: Features = field(default_factory=dict)

    def parts(self) -> tuple[Features, ...]:
        """The four, in order."""
        return self.values, self.shapes, self.ggd, self.aggd

    def __ior__(self, other: Measured) -> Measured:
        for mine, theirs in zip(self.parts(), other.parts(), strict=True):
            mine.update(theirs)
        return self

    def mean_of_halves(self) -> Measured:
        """The mean of the first and the second half of N."""
        return Measured(*({k: torch.stack(v.chunk(2)).mean(0) for k, v in moments.items()} for moments in self.parts()))

    def fitted(self) -> Features:
        """The values, and the parameters of all fits: `<name>_alpha`, `_std`, `_mean`, `_left`, `_right`."""
        features = dict(self.values)
        # One fit for all: one copy of the shape table in the ONNX graph.
        ggd = self.ggd | self.shapes
        alpha, deviation = ggd_fit(torch.stack(list(ggd.values()), 1))
        features |= {f"{name}_alpha": torch.log2(alpha[:, i]) for i, name in enumerate(ggd)}
        features |= {f"{name}_std": deviation[:, i] for i, name in enumerate(self.ggd)}
        fits = aggd_fit(torch.stack(list(self.aggd.values()), 1))
        for suffix, columns in zip(("alpha", "mean", "left", "right"), fits, strict=True):
            values = torch.log2(columns) if suffix == "alpha" else columns
            features |= {f"{name}_{suffix}": values[:, i] for i, name in enumerate(self.aggd)}
        return features
